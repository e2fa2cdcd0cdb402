"""A head for latents: Gaussian diffusion of each position's channels, given its features.

B batch, T positions, C channels of a position, D width, N any number of rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.layout import Placed, anywhere, constrain_batch
from lab.core.scopes import DRAWS, HEAD
from lab.layers.denoiser import Denoiser
from lab.layers.norm import LayerNorm, RMSNorm
from lab.layers.parameters import Init, table
from lab.models.drawing import Drawing, Proposal
from lab.models.gaussian import LOSS_UNIT, GaussianProcess, Predicted, Timed, split
from lab.models.image_keys import each_folded, spread_shares
from lab.models.logits import guided
from lab.models.objective import Likelihood, Objective

POSITION_STD = 0.02  # of MAR's diffusion_pos_embed
NORMS = {"rms": RMSNorm, "layer": LayerNorm}
F32 = jnp.float32


class Rows(NamedTuple):
    """Noised tokens, a row each, and what the network said of them."""

    x0_NC: jax.Array
    noise_NC: jax.Array
    time_N: jax.Array
    predicted: Predicted


class GaussianDiffusionHead(nnx.Module):
    """MAR's diffusion loss (Li et al. 2024, section 3): a small network undoes noise on a token.

    `norm` is "rms" or "layer", the final norm of the backbone that the head stands on. Each token
    is trained at `repeats` times at once.
    """

    likelihood = Likelihood.BOUND

    def __init__(
        self,
        key: jax.Array,
        *,
        channels: int,
        width: int,
        positions: int,
        depth: int,
        denoiser_width: int,
        steps: int,
        schedule: str,
        repeats: int,
        norm: str,
        norm_epsilon: float,
        init: Init,
    ):
        place_key, network_key = jax.random.split(key)
        place_init = Init(rule=init.rule, std=POSITION_STD)
        self.norm = NORMS[norm](width, epsilon=norm_epsilon)
        self.place = table(place_key, (positions, width), ("positions", "embed"), place_init)
        self.network = Denoiser(
            network_key,
            inputs=channels,
            outputs=2 * channels,
            condition=width,
            width=denoiser_width,
            depth=depth,
            affine=True,
            init=init,
        )
        self.process = GaussianProcess(steps, schedule)
        self.channels = channels
        self.repeats = repeats

    @property
    def objective(self) -> Objective:
        """Known by its larger part, the squared error of the noise."""
        return Objective("loss_noise_mse", LOSS_UNIT, self.process.uninformed)

    @property
    def forward_flops_per_position(self) -> float:
        """Matrix FLOPs of the loss at one position: the network runs once a repeat."""
        return float(self.repeats * self.network.forward_flops)

    @jax.named_scope(HEAD)
    def loss(self, x_BTD: jax.Array, tokens_BTC: jax.Array, key_B: jax.Array) -> jax.Array:
        """Noise MSE + 0.001 bound (B, T), a mean over channels and over repeats."""
        shape = (self.repeats, x_BTD.shape[1])

        def times(key: jax.Array) -> jax.Array:
            return jax.random.randint(key, shape, 1, self.process.steps + 1)

        with jax.named_scope(DRAWS):
            time_BRT = jax.vmap(times)(each_folded(key_B, 0))
        rows = self._rows(self.process, x_BTD, tokens_BTC, key_B, time_BRT)
        loss_NC = self.process.training_loss(
            rows.predicted, rows.noise_NC, rows.x0_NC, rows.time_N, levels=0
        )
        return jnp.mean(loss_NC.reshape(-1, *shape, self.channels), axis=(1, 3))

    def nats(self, x_BTD: jax.Array, tokens_BTC: jax.Array, key_B: jax.Array) -> jax.Array:
        """An unbiased estimate (B, T) of the variational bound of each token's density, in nats.

        The term of one time over the chance of the time, and the prior; the times of an image are
        spread evenly over its positions, in random order. A density: it may be negative.
        """
        chain = self.process.respaced(0)
        timed = jax.vmap(self._spread_times, (0, None))(each_folded(key_B, 0), x_BTD.shape[1])
        rows = self._rows(chain, x_BTD, tokens_BTC, key_B, timed.t[:, None])
        term_NC = chain.step_nats(rows.predicted, rows.noise_NC, rows.x0_NC, rows.time_N, levels=0)
        nats_NC = timed.weight.reshape(-1, 1) * term_NC + chain.prior_nats(rows.x0_NC)
        return jnp.sum(nats_NC, axis=-1).reshape(timed.t.shape)

    def condition(self, x_BTD: jax.Array, first: jax.Array | int = 0) -> jax.Array:
        """What the network is given (B, T, D): normed features plus the place of each position.

        The first of the T positions is number `first`: a sampler that goes one by one has T = 1.
        """
        place_TD = jax.lax.dynamic_slice_in_dim(self.place[...], first, x_BTD.shape[1])
        return self.norm(x_BTD) + place_TD[None].astype(x_BTD.dtype)

    def predicted(
        self,
        z_ND: jax.Array,
        noisy_NC: jax.Array,
        time_N: jax.Array,
        *,
        placed: Placed = anywhere,
    ) -> Predicted:
        """The noise and its v, from conditions, x_t and times 0 to T - 1 as a network has them."""
        return split(self.network(noisy_NC, time_N, z_ND, placed=placed))

    def propose(
        self,
        x_TD: jax.Array,
        null_TD: jax.Array | None,
        guidance: jax.Array,
        key: jax.Array,
        drawing: Drawing,
        first: jax.Array | int = 0,
    ) -> Proposal:
        """Draw the channels of one image by ancestral sampling; float32.

        The temperature multiplies the noise of every step, not x_T; guidance is of the predicted
        noise, the variance being that of the class. How sure a draw is has no cheap measure here:
        confidence and certainty are zero, so that only a random or raster order makes sense.
        """
        process = self.process.respaced(drawing.steps)
        z_TD = self.condition(x_TD[None], first)[0]
        null_z_TD = None if null_TD is None else self.condition(null_TD[None], first)[0]
        start_key, chain_key = jax.random.split(key)
        shape = (x_TD.shape[0], self.channels)

        def step(noisy_TC: jax.Array, at) -> tuple[jax.Array, None]:
            t, step_key = at
            time_T = jnp.full(shape[:1], process.network_time(t))
            predicted = self._guided(z_TD, null_z_TD, guidance, noisy_TC, time_T)
            noise_TC = drawing.temperature * jax.random.normal(step_key, shape)
            return process.ancestral(noisy_TC, predicted, t, noise_TC), None

        chain = (jnp.arange(process.length, 0, -1), jax.random.split(chain_key, process.length))
        drawn_TC, _ = jax.lax.scan(step, jax.random.normal(start_key, shape), chain)
        return Proposal(drawn_TC, jnp.zeros(shape[:1], F32), jnp.zeros(shape[:1], F32))

    def _guided(self, z_TD, null_TD, guidance, noisy_TC, time_T) -> Predicted:
        """From one run of the network, both conditions side by side."""
        if null_TD is None:
            return self.predicted(z_TD, noisy_TC, time_T)
        z_2TD, noisy_2TC = jnp.concatenate([z_TD, null_TD]), jnp.tile(noisy_TC, (2, 1))
        both = self.predicted(z_2TD, noisy_2TC, jnp.tile(time_T, 2))
        given_TC, null_TC = jnp.split(both.noise, 2)
        blend_TC = both.blend[: len(time_T)]
        return Predicted(guided(given_TC, null_TC, guidance), blend_TC)

    def _spread_times(self, key: jax.Array, positions: int) -> Timed:
        """Times of the positions of an image, each by its chance, together spread evenly."""
        return self.process.respaced(0).drawn_times(spread_shares(key, positions))

    def _rows(self, process: GaussianProcess, x_BTD, tokens_BTC, key_B, time_BRT) -> Rows:
        """N = B R T rows: each token noised to R times. Images first, so that rows stay with the
        devices of their images.
        """
        shape = (*time_BRT.shape[1:], self.channels)
        with jax.named_scope(DRAWS):
            noise_BRTC = jax.vmap(lambda key: jax.random.normal(key, shape))(each_folded(key_B, 1))
            x0_BRTC = jnp.broadcast_to(tokens_BTC.astype(F32)[:, None], noise_BRTC.shape)
            noisy_BRTC = process.noised(x0_BRTC, time_BRT, noise_BRTC)
        z_BTD = self.condition(x_BTD)
        z_BRTD = jnp.broadcast_to(z_BTD[:, None], (*time_BRT.shape, z_BTD.shape[-1]))
        x0_NC, noise_NC, noisy_NC, z_ND = (
            constrain_batch(x.reshape(-1, x.shape[-1]))
            for x in (x0_BRTC, noise_BRTC, noisy_BRTC, z_BRTD)
        )
        time_N = constrain_batch(time_BRT.reshape(-1))
        predicted = self.predicted(
            z_ND, noisy_NC, process.network_time(time_N), placed=constrain_batch
        )
        return Rows(x0_NC, noise_NC, time_N, predicted)
