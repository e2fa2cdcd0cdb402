"""What a run carries from step to step: parameters, moments, average, step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lab.core.layout import Layout, tree_shardings
from lab.layers.parameters import axes_of

State = dict[str, Any]  # params, opt, ema (None without an average), step


def initial_state(
    make_model: Callable[[jax.Array], Any],
    transform: optax.GradientTransformation,
    key: jax.Array,
    *,
    ema: bool,
) -> State:
    """The state before the first update."""
    params = make_model(key)
    return {
        "params": params,
        "opt": transform.init(params),
        "ema": jax.tree.map(jnp.copy, params) if ema else None,
        "step": jnp.zeros((), jnp.int32),
    }


def state_shardings(layout: Layout, abstract: State) -> Any:
    """A sharding for every part of the state: moments and average lie as their parameters do."""
    return tree_shardings(layout, abstract, axes_of=axes_of)


def abstract_with_shardings(abstract: State, shardings: Any) -> State:
    """The abstract state with a sharding on each leaf, as a restore needs it."""

    def of(sharding: Any, subtree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), subtree
        )

    return jax.tree.map(of, shardings, abstract)
