"""A stack of equal layers: one constructor under vmap, one body under scan, remat by name."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx

Layer = TypeVar("Layer", bound=nnx.Module)
Seen = TypeVar("Seen")

REMAT_POLICIES: dict[str, Any] = {
    "full": None,  # keep nothing but the inputs of a layer
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def stacked(make: Callable[[jax.Array], Layer], key: jax.Array, *, depth: int) -> Layer:
    """`depth` layers in one module whose parameters have a leading layer axis."""
    return jax.vmap(make)(jax.random.split(key, depth))


def run_stack(
    layers: nnx.Module,
    x: jax.Array,
    call: Callable[[Any, jax.Array, jax.Array | None], jax.Array],
    *,
    keys: jax.Array | None,
    remat: str,
    unroll: bool,
) -> jax.Array:
    """Run x through the layers: call(layer, x, key) each.

    `keys` (depth,) feed dropout, None leaves it out. `remat` names what the backward pass keeps.
    `unroll` writes the layers out one after the other: it compiles longer, but on CPU a scan's
    backward pass copies all that it kept into stacked arrays and back, which doubled a step.
    """

    def body(x: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
        layer, key = inputs
        return call(layer, x, key), None

    if remat != "none":
        body = jax.checkpoint(body, policy=REMAT_POLICIES[remat], prevent_cse=unroll)
    if not unroll:
        return jax.lax.scan(body, x, (layers, keys))[0]
    for index in range(jax.tree.leaves(layers)[0].shape[0]):
        x, _ = body(x, jax.tree.map(lambda stack, i=index: stack[i], (layers, keys)))
    return x


def observe_stack(
    layers: nnx.Module,
    x: jax.Array,
    call: Callable[[Any, jax.Array], jax.Array],
    look: Callable[[Any, jax.Array], Seen],
) -> tuple[jax.Array, Seen]:
    """x after the layers, and look(layer, x) of what enters each, stacked (depth, ...).

    A pass of its own beside `run_stack`, so that training carries nothing of it. What `look` reads
    on the way to its answer is held for one layer at a time.
    """

    def body(x: jax.Array, layer: Any) -> tuple[jax.Array, Seen]:
        return call(layer, x), look(layer, x)

    return jax.lax.scan(body, x, layers)
