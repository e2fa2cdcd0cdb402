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


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("size", ["s6", "L", "2B"])
def test_a_step_lowers_for_a_pod_of_256_chips(layout, size):
    """Abstractly: no chip, no array; XLA's partitioner sees it only on the real compiler."""
    run = config(size, **{"model.subcodes": 2})
    table = LAYOUTS[layout]
    fixed = math.prod(n for n in table["mesh"].values() if n != -1)
    shape = {axis: 256 // fixed if n == -1 else n for axis, n in table["mesh"].items()}
    if size == "s6" and layout != "ddp":
        pytest.skip(f"{run.model.width} features do not divide over 128 chips")
    mesh = AbstractMesh(
        tuple(shape.values()), tuple(shape), axis_types=(AxisType.Auto,) * len(shape)
    )
    made = Layout(name=layout, mesh=mesh, batch=table["batch"], rules=table["rules"])
    codes = families.Codes(vocabulary=1024, grid=(16, 16, 1), classes=1000)
    make = families.builder(
        run.model, codes, families.Running(compute_dtype="bfloat16", platform="tpu", remat="full")
    )
    transform = direction(run.optimizer)
    bare = jax.eval_shape(
        lambda key: initial_state(make, transform, key, ema=True), jax.random.key(0)
    )
    shardings = state_shardings(made, bare)
    optimizer = dataclasses.replace(run.optimizer, ema_decay=0.999)
    steps = make_steps(
        made,
        shardings,
        optimizer=optimizer,
        transform=transform,
        width=run.model.width,
        loss_key="loss_nats_per_token",
        bound_draws=1,
    )
    rows = made.batch_sharding()
    batch = {
        "codes": jax.ShapeDtypeStruct((512, 256, 2), jnp.int32, sharding=rows),
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
