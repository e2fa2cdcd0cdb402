"""What only the TPU's own compiler shows of a step, without a TPU: needs libtpu.

make libtpu; python -m pytest -m tpu_backend
"""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs.layouts import LAYOUTS
from lab.core.chips import parse_slices
from lab.core.errors import LabError
from lab.core.layout import make_layout
from lab.launch.compile_job import (
    World,
    abstract_job,
    compiled,
    devices_of,
    planned_spec,
    tpu_environment,
)
from lab.layers.kernels import attend
from tests.models.worlds import config

pytestmark = pytest.mark.tpu_backend


def devices(count):
    """Of so many slices of v5e:4x4."""
    try:
        tpu_environment()
    except LabError as error:
        pytest.skip(str(error))
    return devices_of(parse_slices("v5e:4x4", count=count))


def test_two_slices_hold_a_replica_each_and_the_host_what_is_offloaded():
    """hsdp, in parts, with the inputs of layers in the memory of the host."""
    made = make_layout("hsdp", LAYOUTS, devices(2))
    assert dict(made.mesh.shape) == {"replica": 2, "fsdp": 16}
    for number, replica in enumerate(made.mesh.devices):
        assert {device.slice_index for device in replica} == {number}
    more = {"execution.remat": "offload", "execution.accumulation": 2}
    more |= {"train.batch_size": 8 * made.batch_shards, "train.evaluation_batch_size": 64}
    run = config("s12", **{"model.residual_dropout": 0.1, "model.depth": 3, **more})
    spec = planned_spec((16, 16, 1), vocabulary=256, subcodes=1)
    job = abstract_job(run, made, World(spec=spec, classes=10, examples=1000))
    assert compiled(job, "train").program.memory_analysis().host_temp_size_in_bytes > 0


@pytest.mark.parametrize("topology", ["v5e:16x16", "v6e:16x16", "v5p:4x8x8"])
def test_a_replica_may_be_a_part_of_a_torus(topology):
    """256 chips as replicas of a number that is no product of the torus's sizes."""
    try:
        tpu_environment()
    except LabError as error:
        pytest.skip(str(error))
    found = devices_of(parse_slices(topology, count=1))
    for replicas in (2, 16, 32):
        made = make_layout("hsdp", LAYOUTS, found, replicas=replicas)
        assert dict(made.mesh.shape) == {"replica": replicas, "fsdp": 256 // replicas}
        assert len({device.id for device in made.mesh.devices.flat}) == 256


def test_attention_over_long_sequences_is_the_kernels():
    """1024 positions: it takes a fifth, or less, of what XLA holds for its weights."""
    made = make_layout("fsdp_tp", LAYOUTS, devices(1))
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
        program = step.lower(x_BTHK, x_BTHK, x_BTHK).compile()
        return program.memory_analysis().temp_size_in_bytes

    kernel = held(jax.sharding.use_abstract_mesh(made.abstract_mesh))
    assert kernel < held(contextlib.nullcontext()) / 5
