"""Parameters with their logical axes, their role and their initial values.

Initial values and learning rates follow a width rule, and may follow a depth rule. "mup" is the
maximal update parametrisation for Adam (Yang et al. 2022, "Tensor Programs V", table 8): a hidden
matrix starts at N(0, 1 / fan_in) and learns at base_width / width times the rate, so does the
zero-initialised head; embeddings and scales, which touch the width on one side, learn at the full
rate. "normal" starts every matrix at N(0, std) as the published code of ELM and LlamaGen does.

A residual stream adds up 2 depth branches. Under "mup" each ends in a matrix that starts
1 / sqrt(2 depth) smaller, which keeps the stream at the start but not its updates; under
"completep" (Dey et al. 2025, "Don't be lazy: CompleteP", table 1, alpha = 1) it starts 1 / depth
smaller and learns at base_depth / depth times the rate, the branch multiplier of that paper put
into the matrix, and all blocks together change the stream alike at any depth. Two blocks are
equal under both. Adam's epsilon is left as it is.
"""

import dataclasses
import enum
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.config import OptimizerConfig

KERNEL_AXES = ("kernel_rows", "kernel_columns", "channels_in", "channels_out")


class Role(enum.StrEnum):
    """What a parameter is to the width rule and to weight decay."""

    TABLE = "table"  # embeddings: input of fixed size, output of the width
    HIDDEN = "hidden"  # matrices with the width, or a multiple, on both sides
    HEAD = "head"  # from the width to an output of fixed size
    SCALE = "scale"  # vectors


@dataclasses.dataclass(frozen=True)
class Init:
    """How parameters start: rule "mup", "completep" or "normal", and its standard deviation."""

    rule: str
    std: float


def table(key: jax.Array, shape: tuple[int, int], axes: tuple[str, str], init: Init) -> nnx.Param:
    """An embedding table (rows, features)."""
    return nnx.Param(init.std * jax.random.normal(key, shape), axes=axes, role=Role.TABLE)


def matrix(
    key: jax.Array,
    shape: tuple[int, int],
    axes: tuple[str, str],
    init: Init,
    *,
    gain: float = 1.0,
) -> nnx.Param:
    """A hidden matrix (fan in, fan out); `gain` scales the start, but not under "normal"."""
    return nnx.Param(_start(key, shape, init, gain), axes=axes, role=Role.HIDDEN)


def branch_end(
    key: jax.Array, shape: tuple[int, int], axes: tuple[str, str], init: Init, *, depth: int
) -> nnx.Param:
    """The last matrix of a branch, one of two in each of `depth` blocks that add up."""
    gain = 1 / depth if init.rule == "completep" else (2 * depth) ** -0.5
    value = _start(key, shape, init, gain)
    return nnx.Param(value, axes=axes, role=Role.HIDDEN, depth=depth)


def _start(key: jax.Array, shape: tuple[int, int], init: Init, gain: float) -> jax.Array:
    std = init.std if init.rule == "normal" else gain * shape[0] ** -0.5
    return std * jax.random.normal(key, shape)


def input_matrix(
    key: jax.Array, shape: tuple[int, int], axes: tuple[str, str], init: Init
) -> nnx.Param:
    """A matrix from a fixed number of inputs of size one; they sum to a row of a table in size."""
    std = init.std if init.rule == "normal" else init.std * shape[0] ** -0.5
    return table(key, shape, axes, Init(rule=init.rule, std=std))


def zero_matrix(shape: tuple[int, int], axes: tuple[str, str]) -> nnx.Param:
    """A hidden matrix, zero at the start: of a branch that starts closed."""
    return nnx.Param(jnp.zeros(shape), axes=axes, role=Role.HIDDEN)


def head_matrix(shape: tuple[int, int], axes: tuple[str, str]) -> nnx.Param:
    """An output matrix, zero at the start."""
    return nnx.Param(jnp.zeros(shape), axes=axes, role=Role.HEAD)


def scale(size: int) -> nnx.Param:
    """A vector of ones."""
    return nnx.Param(jnp.ones((size,)), axes=("embed_out",), role=Role.SCALE)


def vectors(value: jax.Array, axes: tuple[str, ...]) -> nnx.Param:
    """Biases and the like, one or several vectors: they learn at the full rate, without decay."""
    return nnx.Param(value, axes=axes, role=Role.SCALE)


def bias(size: int, axis: str) -> nnx.Param:
    """A vector of zeros."""
    return vectors(jnp.zeros((size,)), (axis,))


def kernel_and_bias(
    key: jax.Array, side: int, *, inputs: int, outputs: int
) -> tuple[nnx.Param, nnx.Param]:
    """A square convolution's weight (rows, columns, inputs, outputs) and bias (outputs,).

    Uniform within 1 / sqrt(fan in): torch's default, which the published tokenizers start from.
    Both come from one draw: XLA on CPU compiles each draw anew, and a network has dozens.
    """
    fan_in = side * side * inputs
    bound, total = fan_in**-0.5, fan_in * outputs
    both = jax.random.uniform(key, (total + outputs,), minval=-bound, maxval=bound)
    weight = both[:total].reshape(side, side, inputs, outputs)
    return nnx.Param(weight, axes=KERNEL_AXES, role=Role.HIDDEN), channel_vector(both[total:])


def channel_vector(value: jax.Array) -> nnx.Param:
    """One number a channel: a bias or a scale."""
    return nnx.Param(value, axes=("channels_out",), role=Role.SCALE)


def codebook(value: jax.Array) -> nnx.Param:
    """A row of features (codes, features) a code."""
    return nnx.Param(value, axes=("codes", "channels_out"), role=Role.TABLE)


def is_parameter(leaf: Any) -> bool:
    """Whether a node of a tree is a parameter (and not a counter of an optimiser)."""
    return isinstance(leaf, nnx.Variable)


def axes_of(leaf: Any) -> tuple[str, ...] | None:
    """A parameter's logical axes, `layers` first where it is stacked; None of anything else."""
    if not is_parameter(leaf):
        return None
    axes = leaf.get_metadata("axes")
    return ("layers", *axes) if leaf.ndim == len(axes) + 1 else axes


def is_matrix(leaf: nnx.Variable) -> bool:
    """Whether weight decay applies."""
    return leaf.get_metadata("role") in (Role.HIDDEN, Role.HEAD, Role.TABLE)


def rate_multiplier(leaf: nnx.Variable, optimizer: OptimizerConfig, *, width: int) -> float:
    """The factor on the learning rate of this parameter under the rules for width and depth."""
    if optimizer.width_rule == "none" or leaf.get_metadata("role") in (Role.TABLE, Role.SCALE):
        return 1.0
    multiplier = optimizer.base_width / width
    if optimizer.depth_rule == "completep" and "depth" in leaf.get_metadata():
        multiplier *= optimizer.base_depth / leaf.get_metadata("depth")
    return multiplier
