"""All positions at once: Gaussian diffusion of whole images (Peebles & Xie 2023, "DiT").

B batch, P cells of the grid, C channels of a cell, T positions with S numbers each, D width. Noise
is on cells; the backbone's own positions are patches of them.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.counts import ByRole
from lab.core.scopes import DRAWS, EMBEDDING, HEAD
from lab.layers.draws import WHOLE, Part
from lab.layers.linear import Affine
from lab.layers.modulation import Modulation, modulated
from lab.layers.norm import standardised
from lab.layers.parameters import Init, head_matrix, input_matrix
from lab.models.gaussian import LOSS_UNIT, GaussianProcess, Predicted, split, to_codes, to_numbers
from lab.models.image_keys import each_folded, keys_of
from lab.models.objective import Likelihood, Objective, Training

if typing.TYPE_CHECKING:
    from lab.models.generator import Generator

EPSILON = 1e-6  # of the final normalisation
TIME, NOISE = 6, 7  # folded into a key: when, and which noise
CLASS, BLOCKS = 0, 1  # split from the key of a step: dropped classes, and the backbone's dropout


def patchify(x_BPC: jax.Array, *, grid: tuple[int, int], patch: int) -> jax.Array:
    """Squares of patch x patch cells as positions (B, P / patch^2, patch^2 C), in raster order."""
    batch, _, channels = x_BPC.shape
    rows, columns = (side // patch for side in grid)
    cells = x_BPC.reshape(batch, rows, patch, columns, patch, channels)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, -1)


def unpatchify(x_BTF: jax.Array, *, grid: tuple[int, int], patch: int) -> jax.Array:
    """The inverse of `patchify`: cells (B, P, C)."""
    rows, columns = (side // patch for side in grid)
    squares = x_BTF.reshape(x_BTF.shape[0], rows, columns, patch, patch, -1)
    cells = squares.transpose(0, 1, 3, 2, 4, 5)
    return cells.reshape(x_BTF.shape[0], grid[0] * grid[1], -1)


class PatchEmbedding(nnx.Module):
    """One affine map from the cells of a patch."""

    def __init__(
        self,
        key: jax.Array,
        *,
        patch: int,
        grid: tuple[int, int],
        channels: int,
        width: int,
        init: Init,
    ):
        shape = (patch * patch * channels, width)
        self.project = Affine(input_matrix(key, shape, ("features", "embed"), init))
        self.patch = patch
        self.grid = grid

    def __call__(self, x_BPC: jax.Array) -> jax.Array:
        """Embeddings (B, P / patch^2, D)."""
        return self.project(patchify(x_BPC, grid=self.grid, patch=self.patch))

    @property
    def forward_flops_per_position(self) -> int:
        """Of one patch."""
        return self.project.forward_flops


class FinalLayer(nnx.Module):
    """Norm without parameters, shift and scale from the condition, affine map; zero at the start.

    DiT's code: the modulation is zero-initialised as well.
    """

    def __init__(self, key: jax.Array, *, width: int, outputs: int):
        del key  # nothing is drawn: every head takes a key
        self.modulation = Modulation(condition=width, width=width, parts=2)
        self.out = Affine(head_matrix((width, outputs), ("embed", "features")))

    @jax.named_scope(HEAD)
    def noise(self, x_BTD: jax.Array, condition_BD: jax.Array) -> jax.Array:
        """Outputs (B, T, outputs) in float32 of each patch: noises, and v's, of its cells."""
        vectors_B2D = self.modulation(condition_BD.astype(x_BTD.dtype))
        normed_BTD = standardised(x_BTD, epsilon=EPSILON).astype(x_BTD.dtype)
        h_BTD = modulated(normed_BTD, vectors_B2D[:, :1], vectors_B2D[:, 1:])
        return self.out(h_BTD).astype(jnp.float32)

    def forward_flops(self, positions: int) -> int:
        """Of one image with so many patches."""
        return self.modulation.forward_flops + positions * self.out.forward_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointOrder:
    """No order: noise on all cells at once, undone step by step.

    `levels` codes of a number are spaced evenly in [-1, 1], and the last step gives them
    probabilities (Ho et al. 2020, equation 13); 0: the tokens are numbers already, with a density.
    """

    process: GaussianProcess
    grid: tuple[int, int]
    patch: int
    levels: int
    channels: int

    @property
    def cells(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    def likelihood(self, model: "Generator") -> Likelihood:
        """The variational bound."""
        return Likelihood.BOUND

    def objective(self, model: "Generator") -> Objective:
        """Known by its larger part, the squared error of the noise."""
        return Objective("loss_noise_mse", LOSS_UNIT, self.process.uninformed)

    def numbers(self, tokens_BTS: jax.Array) -> jax.Array:
        """Tokens as float32 cells (B, P, C): the slots of a cell are channels."""
        x_BPC = tokens_BTS.reshape(-1, self.cells, self.channels)
        return to_numbers(x_BPC, levels=self.levels) if self.levels else x_BPC.astype(jnp.float32)

    def tokens(self, x_BPC: jax.Array, *, numbers: int) -> jax.Array:
        """Cells as tokens (B, T, `numbers`): the nearest codes where there are levels."""
        x_BTS = x_BPC.reshape(x_BPC.shape[0], -1, numbers)
        return to_codes(x_BTS, levels=self.levels) if self.levels else x_BTS

    def condition(
        self,
        model: "Generator",
        time_B: jax.Array,
        label_B: jax.Array,
        key: jax.Array | None,
        part: Part = WHOLE,
    ) -> jax.Array:
        """Time and class (B, D) in float32; with a key some classes are dropped."""
        return model.time(time_B) + model.classes(label_B, key, part)

    def predicted(
        self,
        model: "Generator",
        x_BPC: jax.Array,
        time_B: jax.Array,
        label_B: jax.Array,
        key: jax.Array | None = None,
        part: Part = WHOLE,
    ) -> Predicted:
        """Noise and v (B, P, C) from x_t and times 0 to T - 1 (`GaussianProcess.network_time`)."""
        with jax.named_scope(DRAWS):
            keys = (None, None) if key is None else tuple(jax.random.split(key))
        with jax.named_scope(EMBEDDING):
            condition_BD = self.condition(model, time_B, label_B, keys[CLASS], part)
            x_BTD = model.embedding(x_BPC.astype(model.compute_dtype))
        x_BTD = model.backbone(x_BTD, condition_BD.astype(model.compute_dtype), keys[BLOCKS])
        out_BTF = model.head.noise(x_BTD, condition_BD)
        with jax.named_scope(HEAD):
            return split(unpatchify(out_BTF, grid=self.grid, patch=self.patch))

    def training(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key: jax.Array | None,
        *,
        dropout: bool = True,
        part: Part = WHOLE,
    ) -> Training:
        """Noise MSE + 0.001 bound, each image at one time; the loss of a position is the mean."""
        assert key is not None  # times and noise are drawn
        images, positions = tokens_BTS.shape[:2]
        drawn = ((part.whole(images),), 1, self.process.steps + 1)
        with jax.named_scope(DRAWS):
            time_B = part.of(jax.random.randint(jax.random.fold_in(key, TIME), *drawn))
            noise_keys_B = keys_of(jax.random.fold_in(key, NOISE), images, part)
            x0_BPC = self.numbers(tokens_BTS)
            noise_BPC = _normal(noise_keys_B, x0_BPC)
            noisy_BPC = self.process.noised(x0_BPC, time_B, noise_BPC)
        dropped = key if dropout else None
        time = self.process.network_time(time_B)
        predicted = self.predicted(model, noisy_BPC, time, label_B, dropped, part)
        loss_BPC = self.process.training_loss(
            predicted, noise_BPC, x0_BPC, time_B, levels=self.levels
        )
        return Training(positions * jnp.mean(loss_BPC, axis=(1, 2)), positions)

    def nats(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key_B: jax.Array | None,
        draws: int,
    ) -> jax.Array:
        """The variational bound (Ho et al. 2020, equation 5), an unbiased estimate: (B,).

        The mean over `draws` times of the term over the chance of the time, and the prior. One time
        comes from each of as many parts, equal in chance, of all times; each has its own noise.
        """
        x0_BPC = self.numbers(tokens_BTS)
        chain = self.process.respaced(0)

        def drawn(number: jax.Array) -> jax.Array:
            keys_B = each_folded(key_B, number)
            jitter_B = jax.vmap(jax.random.uniform)(each_folded(keys_B, TIME))
            time_B, weight_B = chain.drawn_times((number + jitter_B) / draws)
            noise_BPC = _normal(each_folded(keys_B, NOISE), x0_BPC)
            noisy_BPC = chain.noised(x0_BPC, time_B, noise_BPC)
            time = chain.network_time(time_B)
            predicted = self.predicted(model, noisy_BPC, time, label_B)
            term_BPC = chain.step_nats(predicted, noise_BPC, x0_BPC, time_B, levels=self.levels)
            return weight_B * jnp.sum(term_BPC, axis=(1, 2))

        terms_B = jnp.mean(jax.lax.map(drawn, jnp.arange(draws)), axis=0)
        return terms_B + jnp.sum(chain.prior_nats(x0_BPC), axis=(1, 2))

    def forward_flops(self, model: "Generator") -> ByRole:
        """All patches, once."""
        patches = self.cells // self.patch**2
        blocks, attention = model.backbone.forward_flops(patches)
        embedded = patches * model.embedding.forward_flops_per_position
        return ByRole(
            embedding=embedded + model.time.forward_flops,
            blocks=blocks,
            head=model.head.forward_flops(patches),
            attention=attention,
        )


def _normal(key_B: jax.Array, like_BPC: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: jax.random.normal(key, like_BPC.shape[1:]))(key_B)
