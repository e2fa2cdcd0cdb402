"""Layouts: what is refused, what goes where, and lowering for a pod without one."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from configs.layouts import LAYOUTS
from lab.core.errors import LabError
from lab.core.layout import Layout, make_layout
from lab.models import families
from lab.train.optimizer import direction
from lab.train.state import abstract_with_shardings, initial_state, state_shardings
from lab.train.step import make_steps
from tests.models.worlds import config


def test_refusals():
    devices = jax.devices()
    with pytest.raises(LabError, match='layout "fspd": allowed are ddp, fsdp'):
        make_layout("fspd", LAYOUTS, devices)
    with pytest.raises(LabError, match="does not divide 3 devices"):
        make_layout("fsdp_tp", LAYOUTS, devices[:3])
    layout = make_layout("fsdp", LAYOUTS, devices)
    with pytest.raises(LabError, match='"embed" of size 12 does not divide over the 8'):
        layout.sharding(("embed", "mlp"), (12, 4))
    with pytest.raises(LabError, match='does not map the axis "spectral"'):
        layout.sharding(("spectral",), (8,))


def test_where_axes_go():
    layout = make_layout("fsdp_tp", LAYOUTS, jax.devices())
    assert dict(layout.mesh.shape) == {"fsdp": 4, "tensor": 2}
    assert layout.batch_shards == 4
    spec = layout.sharding(("layers", "embed", "mlp"), (3, 8, 4)).spec
    assert spec == PartitionSpec(None, "fsdp", "tensor")


IDS = families.Codes(vocabulary=1024, grid=(16, 16, 1), classes=1000)
BITS = families.Codes(vocabulary=2, grid=(16, 16, 1), classes=1000)
LATENTS = families.Codes(vocabulary=0, grid=(16, 16, 1), classes=1000, channels=16)
POD = {  # a config, its codes, numbers at a position
    "elm-s6": (config("s6", **{"model.subcodes": 2}), IDS, 2),
    "elm-L": (config("L", **{"model.subcodes": 2}), IDS, 2),
    "elm-2B": (config("2B", **{"model.subcodes": 2}), IDS, 2),
    "mlm-L": (config("L", "mlm"), IDS, 1),
    "bigr-L": (config("L", "bigr"), BITS, 24),
    "mar-L": (config("L", "mar"), LATENTS, 16),
    "ar_diffusion-L": (config("L", "ar_diffusion"), LATENTS, 16),
    "dit-L": (config("L", "dit"), LATENTS, 16),
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("name", POD)
def test_a_step_lowers_for_a_pod_of_256_chips(layout, name):
    """Abstractly: no chip, no array; XLA's partitioner sees it only on the real compiler."""
    run, codes, numbers = POD[name]
    table = LAYOUTS[layout]
    fixed = math.prod(n for n in table["mesh"].values() if n != -1)
    shape = {axis: 256 // fixed if n == -1 else n for axis, n in table["mesh"].items()}
    if run.model.width % max(shape.values()) and layout != "ddp":
        pytest.skip(f"{run.model.width} features do not divide over {max(shape.values())} chips")
    mesh = AbstractMesh(
        tuple(shape.values()), tuple(shape), axis_types=(AxisType.Auto,) * len(shape)
    )
    made = Layout(name=layout, mesh=mesh, batch=table["batch"], rules=table["rules"])
    make = families.builder(
        run.model, codes, families.Running(compute_dtype="bfloat16", platform="tpu", remat="full")
    )
    transform = direction(run.optimizer)
    bare = jax.eval_shape(
        lambda key: initial_state(make, transform, key, ema=True), jax.random.key(0)
    )
    shardings = state_shardings(made, bare)
    steps = make_steps(
        made,
        shardings,
        optimizer=dataclasses.replace(run.optimizer, ema_decay=0.999),
        transform=transform,
        width=run.model.width,
        loss_key=bare["params"].objective.key,
        bound_draws=1,
    )
    rows = made.batch_sharding()
    kind = jnp.float32 if codes.channels else jnp.int32
    batch = {
        "codes": jax.ShapeDtypeStruct((512, 256, numbers), kind, sharding=rows),
        "label": jax.ShapeDtypeStruct((512,), jnp.int32, sharding=rows),
        "weight": jax.ShapeDtypeStruct((512,), jnp.float32, sharding=rows),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    state = abstract_with_shardings(bare, shardings)
    text = steps.train.trace(state, batch, key, rate).lower(lowering_platforms=("tpu",)).as_text()
    assert "num_partitions = 256" in text
    axis = "data" if layout == "ddp" else "fsdp"
    constrained = [line for line in text.splitlines() if "sharding_constraint" in line]
    assert any(f'[{{"{axis}"}}, {{}}' in line for line in constrained), (
        "activations follow the batch"
    )
