"""What only the TPU's own compiler shows of a step, without a TPU: needs libtpu.

make libtpu; python -m pytest -m tpu_backend
"""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs.layouts import LAYOUTS
from lab.core.errors import LabError
from lab.core.layout import make_layout
from lab.launch.compile_job import tpu_environment
from lab.layers.kernels import attend
from lab.models import families
from lab.train.optimizer import direction
from lab.train.state import abstract_with_shardings, initial_state, state_shardings
from lab.train.step import make_steps
from tests.models.worlds import config

pytestmark = pytest.mark.tpu_backend


def topology(slices):
    try:
        tpu_environment()
    except LabError as error:
        pytest.skip(str(error))
    from jax.experimental import topologies

    named = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4", num_slices=slices)
    return named.devices


def compiled_step(run, codes, made, *, remat, parts):
    """The training step of a generator of ids for the devices of a layout."""
    running = families.Running(compute_dtype="bfloat16", platform="tpu", remat=remat)
    make, transform = families.builder(run.model, codes, running), direction(run.optimizer)
    bare = jax.eval_shape(
        lambda key: initial_state(make, transform, key, ema=False), jax.random.key(0)
    )
    shardings, rows = state_shardings(made, bare), made.batch_sharding()
    steps = make_steps(
        made,
        shardings,
        optimizer=run.optimizer,
        transform=transform,
        width=run.model.width,
        loss_key=bare["params"].objective.key,
        bound_draws=1,
        parts=parts,
    )
    images = 4 * parts * made.batch_shards
    batch = {
        "codes": jax.ShapeDtypeStruct((images, codes.positions, 1), jnp.int32, sharding=rows),
        "label": jax.ShapeDtypeStruct((images,), jnp.int32, sharding=rows),
        "weight": jax.ShapeDtypeStruct((images,), jnp.float32, sharding=rows),
    }
    state, key = abstract_with_shardings(bare, shardings), jax.eval_shape(jax.random.key, 0)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    return steps.train.lower(state, batch, key, rate).compile()


def test_two_slices_hold_a_replica_each_and_the_host_what_is_offloaded():
    """hsdp, in parts, with the inputs of layers in the memory of the host."""
    made = make_layout("hsdp", LAYOUTS, topology(slices=2))
    assert dict(made.mesh.shape) == {"replica": 2, "fsdp": 16}
    for number, replica in enumerate(made.mesh.devices):
        assert {device.slice_index for device in replica} == {number}
    run = config("s12", **{"model.residual_dropout": 0.1, "model.depth": 3})
    codes = families.Codes(vocabulary=256, grid=(16, 16, 1), classes=10)
    compiled = compiled_step(run, codes, made, remat="offload", parts=2)
    assert compiled.memory_analysis().host_temp_size_in_bytes > 0


def test_attention_over_long_sequences_is_the_kernels():
    """1024 positions: it takes a fifth, or less, of what XLA holds for its weights."""
    made = make_layout("fsdp_tp", LAYOUTS, topology(slices=1))
    where = NamedSharding(made.mesh, PartitionSpec("fsdp", None, "tensor"))
    x_BTHK = jax.ShapeDtypeStruct((32, 1024, 32, 64), jnp.bfloat16)

    def held(under):
        def loss(q, k, v):
            out = attend(q, k, v, causal=True, platform="tpu").astype(jnp.float32)
            return jnp.sum(jnp.square(out))

        def gradients(*given):
            with under:
                return jax.grad(loss, (0, 1, 2))(*given)

        step = jax.jit(gradients, in_shardings=(where,) * 3, out_shardings=(where,) * 3)
        compiled = step.lower(x_BTHK, x_BTHK, x_BTHK).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    kernel = held(jax.sharding.use_abstract_mesh(made.abstract_mesh))
    assert kernel < held(contextlib.nullcontext()) / 5
