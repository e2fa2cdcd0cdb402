"""Heads for tokens that are K bits: Bernoulli diffusion, and a sigmoid per bit.

B batch, T positions, K bits of a position, D width, N any number of rows.
"""

import enum
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.layout import Placed, anywhere, constrain_batch
from lab.core.scopes import DRAWS, HEAD, LOSS
from lab.layers.denoiser import Denoiser
from lab.layers.linear import linear
from lab.layers.norm import RMSNorm
from lab.layers.parameters import Init, bias, head_matrix, table
from lab.models.bernoulli import BernoulliProcess, balance_odds, class_balance
from lab.models.drawing import Drawing, Proposal
from lab.models.image_keys import each_folded, spread_shares
from lab.models.logits import guided
from lab.models.objective import NATS, Likelihood, Objective

POSITION_STD = 0.02  # of BiGR's diffusion_pos_embed
F32 = jnp.float32


class Target(enum.StrEnum):
    """What a denoiser's logits are of."""

    XOR = "xor"  # whether a bit of x_t differs from x_0
    X0 = "x0"  # the bit of x_0


class Chain(NamedTuple):
    """State of a reverse chain: bits now, and the probabilities they were drawn from."""

    bits_TK: jax.Array
    probability_TK: jax.Array


class BernoulliDiffusionHead(nnx.Module):
    """BiGR's binary transcoder: a small network undoes bit flips, given the features.

    Hao et al. 2025 (arXiv 2410.14672) and their code. Its logits are trained by a class-balanced
    cross-entropy, which raises the odds of a rare flip by a known factor (`balance_odds`); the
    model that `nats` bounds and `propose` draws from divides by that factor again, so that
    its probabilities are those of the data. The published sampler instead multiplies the odds by
    b_t / (1 - b_t), through a product of q(x_t | x_s) and k_s p + b_s: the same for b_t >> 1/K.
    """

    likelihood = Likelihood.BOUND

    def __init__(
        self,
        key: jax.Array,
        *,
        bits: int,
        width: int,
        positions: int,
        depth: int,
        denoiser_width: int,
        steps: int,
        target: str,
        norm_epsilon: float,
        init: Init,
    ):
        place_key, network_key = jax.random.split(key)
        place_init = Init(rule=init.rule, std=POSITION_STD)
        self.norm = RMSNorm(width, epsilon=norm_epsilon)
        self.place = table(place_key, (positions, width), ("positions", "embed"), place_init)
        self.network = Denoiser(
            network_key,
            inputs=bits,
            outputs=bits,
            condition=width,
            width=denoiser_width,
            depth=depth,
            affine=False,
            init=init,
        )
        self.process = BernoulliProcess(steps)
        self.bits = bits
        self.target = Target(target)

    @property
    def objective(self) -> Objective:
        """Zero logits cost log 2 times the mean weight 2 m (1 - m) + 1/K, m in [0, 1]."""
        uninformed = math.log(2) * (0.5 + 1 / self.bits)
        return Objective("loss_weighted_bce", "weighted BCE/bit", uninformed)

    @property
    def forward_flops_per_position(self) -> float:
        """Matrix FLOPs of the loss at one position: one run of the network."""
        return float(self.network.forward_flops)

    @jax.named_scope(HEAD)
    def loss(self, x_BTD: jax.Array, tokens_BTK: jax.Array, key_B: jax.Array) -> jax.Array:
        """Class-balanced cross-entropy (B, T), a mean over bits, each token at its own time."""
        time_BT = jax.vmap(self._random_times, (0, None))(each_folded(key_B, 0), x_BTD.shape[1])
        z_ND, x0_NK, noisy_NK, t_N = self._noised_rows(x_BTD, tokens_BTK, key_B, time_BT)
        logit_NK = self._network(z_ND, noisy_NK, t_N, placed=constrain_batch)
        y_NK = jnp.abs(noisy_NK - x0_NK) if self.target is Target.XOR else x0_NK
        loss_N = jnp.mean(class_balance(y_NK) * _cross_entropy(logit_NK, y_NK), axis=-1)
        return loss_N.reshape(x_BTD.shape[:2])

    def nats(self, x_BTD: jax.Array, tokens_BTK: jax.Array, key_B: jax.Array) -> jax.Array:
        """An unbiased estimate (B, T) of the variational bound of each position's bits, in nats.

        T KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) at one random t; times of an image
        are stratified over its positions. x_T is a fair coin in both: the prior costs nothing.
        """
        time_BT = jax.vmap(self._spread_times, (0, None))(each_folded(key_B, 0), x_BTD.shape[1])
        z_ND, x0_NK, noisy_NK, t_N = self._noised_rows(x_BTD, tokens_BTK, key_B, time_BT)
        x0_logit_NK = self.x0_logits(z_ND, noisy_NK, t_N, placed=constrain_batch)
        flip_NK = self._flip_logits(x0_logit_NK, noisy_NK, t_N)
        term_NK = _step_nats(self.process, flip_NK, jnp.abs(noisy_NK - x0_NK), t_N[:, None])
        nats_N = self.process.steps * jnp.sum(term_NK, axis=-1)
        return nats_N.reshape(x_BTD.shape[:2])

    def condition(self, x_BTD: jax.Array, first: jax.Array | int = 0) -> jax.Array:
        """What the network is given (B, T, D): normed features plus the place of each position.

        The first of the T positions is number `first`: a sampler that goes one by one has T = 1.
        """
        place_TD = jax.lax.dynamic_slice_in_dim(self.place[...], first, x_BTD.shape[1])
        return self.norm(x_BTD) + place_TD[None].astype(x_BTD.dtype)

    def x0_logits(
        self, z_ND: jax.Array, noisy_NK: jax.Array, t_N: jax.Array, *, placed: Placed = anywhere
    ) -> jax.Array:
        """Logits (N, K) of x_0 = 1 as the network was trained to give them."""
        logit_NK = self._network(z_ND, noisy_NK, t_N, placed=placed)
        return (1 - 2 * noisy_NK) * logit_NK if self.target is Target.XOR else logit_NK

    def reverse(
        self, z_ND: jax.Array, noisy_NK: jax.Array, t_N: jax.Array, s_N: jax.Array
    ) -> jax.Array:
        """The model's P(x_s = 1 | x_t) (N, K), bits independent, for 0 <= s < t."""
        return self._step(self.x0_logits(z_ND, noisy_NK, t_N), noisy_NK, t_N, s_N)

    def propose(
        self,
        x_TD: jax.Array,
        null_TD: jax.Array | None,
        guidance: jax.Array,
        key: jax.Array,
        drawing: Drawing,
        first: jax.Array | int = 0,
    ) -> Proposal:
        """Draw the bits of one image by the reverse chain; they come from its last probabilities.

        Confidence is BiGR's mean of 2 |p - 1/2|, certainty minus the mean entropy of a bit (nats).
        The first position is number `first`.
        """
        z_TD = self.condition(x_TD[None], first)[0]
        null_z_TD = None if null_TD is None else self.condition(null_TD[None], first)[0]
        times = self.process.times(drawing.steps)
        start_key, chain_key = jax.random.split(key)
        shape = (x_TD.shape[0], self.bits)
        half_TK = jnp.full(shape, 0.5, F32)
        chain = Chain(jax.random.bernoulli(start_key, half_TK).astype(F32), half_TK)

        def step(chain: Chain, at) -> tuple[Chain, None]:
            t, s, step_key = at
            t_T, s_T = jnp.full(shape[:1], t), jnp.full(shape[:1], s)
            logit_TK = self._guided(z_TD, null_z_TD, guidance, chain.bits_TK, t_T)
            p_TK = self._step(logit_TK / drawing.temperature, chain.bits_TK, t_T, s_T)
            return Chain(jax.random.bernoulli(step_key, p_TK).astype(F32), p_TK), None

        keys = jax.random.split(chain_key, len(times.start))
        last, _ = jax.lax.scan(step, chain, (jnp.array(times.start), jnp.array(times.end), keys))
        return _proposal(last.bits_TK, last.probability_TK)

    def _network(
        self, z_ND: jax.Array, noisy_NK: jax.Array, t_N: jax.Array, *, placed: Placed = anywhere
    ) -> jax.Array:
        return self.network(2 * noisy_NK - 1, t_N - 1, z_ND, placed=placed).astype(F32)

    def _guided(self, z_TD, null_TD, guidance, noisy_TK, t_T) -> jax.Array:
        """Logits of x_0 from one run of the network, both conditions side by side."""
        if null_TD is None:
            return self.x0_logits(z_TD, noisy_TK, t_T)
        z_2TD, noisy_2TK = jnp.concatenate([z_TD, null_TD]), jnp.tile(noisy_TK, (2, 1))
        both_2TK = self.x0_logits(z_2TD, noisy_2TK, jnp.tile(t_T, 2))
        given_TK, null_TK = jnp.split(both_2TK, 2)
        return guided(given_TK, null_TK, guidance)

    def _flip_logits(self, x0_logit_NK, noisy_NK, t_N) -> jax.Array:
        """Logits of x_t != x_0 with the odds that the data have: the balance's factor taken out.

        Bits of x_0 are about as often ones as zeros: balancing them changes no odds.
        """
        flip_NK = (1 - 2 * noisy_NK) * x0_logit_NK
        if self.target is Target.X0:
            return flip_NK
        return flip_NK - jnp.log(balance_odds(self.process.flip(t_N), self.bits))[:, None]

    def _step(self, x0_logit_NK, noisy_NK, t_N, s_N) -> jax.Array:
        flip_NK = self._flip_logits(x0_logit_NK, noisy_NK, t_N)
        p_NK = jax.nn.sigmoid((1 - 2 * noisy_NK) * flip_NK)
        return self.process.posterior(noisy_NK, p_NK, t_N[:, None], s_N[:, None])

    @jax.named_scope(DRAWS)
    def _random_times(self, key: jax.Array, positions: int) -> jax.Array:
        """Times 1..T (positions,), each on its own."""
        return jax.random.randint(key, (positions,), 1, self.process.steps + 1)

    def _spread_times(self, key: jax.Array, positions: int) -> jax.Array:
        """Times 1..T (positions,), each uniform, together spread evenly, in random order."""
        steps = self.process.steps
        number_T = (spread_shares(key, positions) * steps).astype(jnp.int32)
        return jnp.minimum(1 + number_T, steps)

    def _noised_rows(self, x_BTD, tokens_BTK, key_B, time_BT):
        """Rows N = B T of condition, x_0, x_t and t."""
        x0_BTK = tokens_BTK.astype(F32)
        draw = jax.vmap(lambda key: jax.random.uniform(key, x0_BTK.shape[1:]))
        with jax.named_scope(DRAWS):
            time_BT1 = time_BT[..., None]
            noisy_BTK = self.process.noised(x0_BTK, time_BT1, draw(each_folded(key_B, 1)))
        z_ND, x0_NK, noisy_NK = (
            constrain_batch(x.reshape(-1, x.shape[-1]))
            for x in (self.condition(x_BTD), x0_BTK, noisy_BTK)
        )
        return z_ND, x0_NK, noisy_NK, constrain_batch(time_BT.reshape(-1))


class DirectBernoulliHead(nnx.Module):
    """A sigmoid per bit, the bits independent given the features: BiGR's "direct BCE"."""

    likelihood = Likelihood.EXACT

    def __init__(self, *, bits: int, width: int, norm_epsilon: float):
        self.norm = RMSNorm(width, epsilon=norm_epsilon)
        self.out = head_matrix((width, bits), ("embed", "features"))
        self.bias = bias(bits, "features")
        self.bits = bits

    @property
    def objective(self) -> Objective:
        """Nats of a position, summed over its bits."""
        return Objective(NATS, "nats/token", self.bits * math.log(2))

    @property
    def forward_flops_per_position(self) -> float:
        """Matrix FLOPs of one position."""
        return 2.0 * self.out.shape[0] * self.bits

    def logits(self, x_TD: jax.Array) -> jax.Array:
        """Logits (..., T, K) of a one in float32."""
        return linear(self.norm(x_TD), self.out).astype(F32) + self.bias[...].reshape(
            (1,) * (x_TD.ndim - 1) + (-1,)
        )

    def loss(
        self, x_BTD: jax.Array, tokens_BTK: jax.Array, key_B: jax.Array | None = None
    ) -> jax.Array:
        """The same as `nats`."""
        return self.nats(x_BTD, tokens_BTK, key_B)

    @jax.named_scope(HEAD)
    def nats(
        self, x_BTD: jax.Array, tokens_BTK: jax.Array, key_B: jax.Array | None = None
    ) -> jax.Array:
        """Negative log likelihood (B, T) of the bits at each position; no randomness."""
        return jnp.sum(_cross_entropy(self.logits(x_BTD), tokens_BTK.astype(F32)), axis=-1)

    def propose(
        self,
        x_TD: jax.Array,
        null_TD: jax.Array | None,
        guidance: jax.Array,
        key: jax.Array,
        drawing: Drawing,
        first: jax.Array | int = 0,
    ) -> Proposal:
        """Draw the bits of one image; `first` is of no account."""
        null_TK = None if null_TD is None else self.logits(null_TD)
        logit_TK = guided(self.logits(x_TD), null_TK, guidance)
        p_TK = jax.nn.sigmoid(logit_TK / drawing.temperature)
        return _proposal(jax.random.bernoulli(key, p_TK), p_TK)


@jax.named_scope(LOSS)
def _cross_entropy(logit: jax.Array, y: jax.Array) -> jax.Array:
    """-log P(y) of a bit y."""
    return jax.nn.softplus((1 - 2 * y) * logit)


def _step_nats(process: BernoulliProcess, flip_NK, flipped_NK, t_N1) -> jax.Array:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) of each bit; at t = 1 the cross-entropy.

    Of the chances that x_{t-1} differs from x_t, q has one, `right`; p mixes it with the other, by
    the probability that the network gives to the wrong x_0. Where the two are near, the logarithm
    of 1 + (p - q) / q keeps the digits that the logarithm of a ratio would lose to float32.
    """
    t_N1 = t_N1.astype(F32)
    late_N1 = jnp.maximum(t_N1, 2)  # at t = 1 the chances are 0 and 1
    back = process.way_back(late_N1, late_N1 - 1)
    right_NK = jnp.where(flipped_NK == 1, back.if_flipped, back.if_kept)
    other_NK = jnp.where(flipped_NK == 1, back.if_kept, back.if_flipped)
    miss_NK = jnp.where(flipped_NK == 1, -flip_NK, flip_NK)  # logits of the wrong x_0
    wrong_NK = jax.nn.sigmoid(miss_NK)
    off_NK = (other_NK - right_NK) * wrong_NK
    p_NK = right_NK * jax.nn.sigmoid(-miss_NK) + other_NK * wrong_NK
    near_NK = jnp.abs(off_NK) < 0.5 * right_NK
    log_ratio_NK = jnp.where(
        near_NK, jnp.log1p(jnp.where(near_NK, off_NK, 0) / right_NK), jnp.log(p_NK / right_NK)
    )
    stay_NK = 1 - right_NK  # at least a quarter, as is 1 - p
    kl_NK = -right_NK * log_ratio_NK - stay_NK * jnp.log1p(-off_NK / stay_NK)
    return jnp.where(t_N1 == 1, _cross_entropy(flip_NK, flipped_NK), kl_NK)


def _proposal(bits_TK: jax.Array, p_TK: jax.Array) -> Proposal:
    """Bits drawn from p, with the two measures of how sure p is."""
    entropy_TK = jax.scipy.special.entr(p_TK) + jax.scipy.special.entr(1 - p_TK)
    return Proposal(
        tokens_TS=bits_TK.astype(jnp.int32),
        confidence_T=jnp.mean(2 * jnp.abs(p_TK - 0.5), axis=-1),
        certainty_T=-jnp.mean(entropy_TK, axis=-1),
    )
