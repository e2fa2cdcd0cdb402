"""A stack of equal layers: one constructor under vmap, one body under scan, remat by name."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from lab.core.scopes import LAYERS

Layer = TypeVar("Layer", bound=nnx.Module)
Seen = TypeVar("Seen")


def _only(*names: str) -> Callable[..., Any]:
    return jax.checkpoint_policies.save_only_these_names(*names)


# What layers call by a name, for a policy to keep: `kept` puts the name on it.
QUERY_KEY_VALUE = "query_key_value"
ATTENTION_OUT = "attention_out"
MLP_OUT = "mlp_out"
LAYER_IN = "layer_in"

# What the backward pass finds; the rest of a layer it makes again. In features of a position, of a
# Llama block of width D whose MLP is 8 D / 3 wide:
REMAT_POLICIES: dict[str, Any] = {
    "full": None,  # the input of a layer: D
    "attention_out": _only(ATTENTION_OUT),  # 2 D; the MLP without attention before it
    "block_outputs": _only(ATTENTION_OUT, MLP_OUT),  # 3 D; where gates multiply both
    "projections": _only(QUERY_KEY_VALUE, ATTENTION_OUT),  # 5 D; all but the MLP's products
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # 10 D; every matrix's
    # 0: the input waits in the host's memory, which it reaches while other layers run.
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[LAYER_IN],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


def kept(x: jax.Array, name: str) -> jax.Array:
    """x, which a policy may keep by this name; where there is none, nothing but x."""
    return checkpoint_name(x, name)


def stacked(make: Callable[[jax.Array], Layer], key: jax.Array, *, depth: int) -> Layer:
    """`depth` layers in one module whose parameters have a leading layer axis."""
    return jax.vmap(make)(jax.random.split(key, depth))


@jax.named_scope(LAYERS)
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
        return call(layer, kept(x, LAYER_IN), key), None

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
