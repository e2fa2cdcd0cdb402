"""The real TPU compiler on the real step, without a TPU: needs libtpu (pip install libtpu).

python -m pytest -m tpu_backend
"""

import os

import pytest

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
import jax.numpy as jnp

from configs.layouts import LAYOUTS
from lab.core.layout import make_layout
from lab.models import families
from lab.train.optimizer import direction
from lab.train.state import abstract_with_shardings, initial_state, state_shardings
from lab.train.step import make_steps
from tests.models.worlds import config

pytestmark = pytest.mark.tpu_backend


IDS = families.Codes(vocabulary=256, grid=(16, 16, 1), classes=1000)
BITS = families.Codes(vocabulary=2, grid=(16, 16, 1), classes=1000)
LATENTS = families.Codes(vocabulary=0, grid=(16, 16, 1), classes=1000, channels=16)
WORLDS = {  # a config, its codes, numbers at a position
    "elm": (config("s12", **{"model.subcodes": 2}), IDS, 2),
    "mlm": (config("s12", "mlm"), IDS, 1),
    "bigr": (config("s12", "bigr"), BITS, 24),
    "mar": (config("s12", "mar"), LATENTS, 16),
    "ar_diffusion": (config("s12", "ar_diffusion"), LATENTS, 16),
    "dit": (config("s12", "dit", **{"model.patch": 2}), LATENTS, 16),
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("name", WORLDS)
def test_the_training_step_compiles_for_a_slice_of_v5e(layout, name):
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4").devices
    made = make_layout(layout, LAYOUTS, devices)
    run, codes, numbers = WORLDS[name]
    running = families.Running(compute_dtype="bfloat16", platform="tpu", remat="full")
    make, transform = families.builder(run.model, codes, running), direction(run.optimizer)
    bare = jax.eval_shape(
        lambda key: initial_state(make, transform, key, ema=False), jax.random.key(0)
    )
    shardings = state_shardings(made, bare)
    steps = make_steps(
        made,
        shardings,
        optimizer=run.optimizer,
        transform=transform,
        width=run.model.width,
        loss_key=bare["params"].objective.key,
        bound_draws=1,
    )
    rows = made.batch_sharding()
    kind = jnp.float32 if codes.channels else jnp.int32
    batch = {
        "codes": jax.ShapeDtypeStruct((64, 256, numbers), kind, sharding=rows),
        "label": jax.ShapeDtypeStruct((64,), jnp.int32, sharding=rows),
        "weight": jax.ShapeDtypeStruct((64,), jnp.float32, sharding=rows),
    }
    state = abstract_with_shardings(bare, shardings)
    key = jax.eval_shape(lambda: jax.random.key(0))
    lowered = steps.train.lower(state, batch, key, jax.ShapeDtypeStruct((), jnp.float32))
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(bare))
    if layout == "ddp":
        assert memory.argument_size_in_bytes >= held
    else:
        assert memory.argument_size_in_bytes < held / 2, "the state is spread over the chips"
    collectives = ("all-reduce", "all-gather", "reduce-scatter")
    assert any(name in compiled.as_text() for name in collectives)
