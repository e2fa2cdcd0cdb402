"""A compiled program's text, against closed forms and XLA's own counts where it has no loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lab.core import hlo, hlo_cost
from lab.core.errors import LabError
from lab.core.hlo_bytes import hbm_bytes


def compiled(function, *shapes, **jit):
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function, **jit).lower(*given).compile()


def program_of(function, *shapes, **jit):
    return hlo.read(compiled(function, *shapes, **jit).as_text())


def test_a_scan_counts_each_turn():
    def layers(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    found = program_of(layers, (8, 32), (7, 32, 32))
    assert hlo_cost.product_flops(found) == 7 * 2 * 8 * 32 * 32
    assert found.untold == ()


def test_loops_in_loops_and_odd_counters():
    def twice(x, w):
        inner = lambda _, x: x @ w  # noqa: E731
        return jax.lax.fori_loop(0, 3, lambda _, x: jax.lax.fori_loop(4, 9, inner, x), x)

    found = program_of(twice, (16, 16), (16, 16))
    assert hlo_cost.product_flops(found) == 3 * 5 * 2 * 16**3


def test_a_loop_that_depends_on_data_is_named():
    def until(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 10, lambda x: x @ w, x)

    found = program_of(until, (16, 16), (16, 16))
    assert len(found.untold) == 1
    assert hlo_cost.product_flops(found) == 2 * 16**3


@pytest.mark.parametrize("contracted", [((2,), (1,)), ((1,), (2,))])
def test_products_with_a_batch(contracted):
    def product(a, b):
        return jax.lax.dot_general(a, b, (contracted, ((0,), (0,))))

    found = program_of(product, (3, 8, 8), (3, 8, 8))
    assert hlo_cost.product_flops(found) == 2 * 3 * 8**3


CONVOLUTION = """HloModule m

ENTRY %main (x: f32[{batch},{width},{inputs}], k: f32[{window},{inputs},{outputs}]) -> f32[] {{
  %x = f32[{batch},{width},{inputs}]{{2,1,0}} parameter(0)
  %k = f32[{window},{inputs},{outputs}]{{2,1,0}} parameter(1)
  ROOT %c = f32[{batch},{out},{outputs}]{{2,1,0}} convolution(%x, %k), {how}
}}
"""


@pytest.mark.parametrize(
    ("width", "window", "stride", "pad", "dilate", "window_dilate"),
    [
        (9, 3, 1, (0, 0), 1, 1),
        (9, 3, 2, (1, 1), 1, 1),
        (5, 4, 1, (3, 3), 2, 1),
        (9, 3, 1, (2, 2), 1, 2),
    ],
)
def test_convolutions_multiply_where_the_window_meets_numbers(
    width, window, stride, pad, dilate, window_dilate
):
    dilated = (width - 1) * dilate + 1
    reach = (window - 1) * window_dilate + 1
    out = (dilated + sum(pad) - reach) // stride + 1
    image = np.zeros(dilated + sum(pad))
    image[pad[0] : pad[0] + dilated : dilate] = 1  # where there is a number
    met = sum(image[o * stride + k * window_dilate] for o in range(out) for k in range(window))
    how = (
        f"window={{size={window} stride={stride} pad={pad[0]}_{pad[1]} lhs_dilate={dilate} "
        f"rhs_dilate={window_dilate}}}, dim_labels=b0f_0io->b0f"
    )
    sizes = {"batch": 2, "width": width, "inputs": 4, "outputs": 6, "window": window, "out": out}
    found = hlo.read(CONVOLUTION.format(**sizes, how=how))
    assert hlo_cost.product_flops(found) == 2 * 2 * 4 * 6 * met


def test_bytes_against_xla_where_nothing_loops():
    def layers(x, weights):
        for at in range(4):
            x = jnp.tanh(x @ weights[at])
        return x

    made = compiled(layers, (64, 128), (4, 128, 128))
    found = hlo.read(made.as_text())
    cost = made.cost_analysis()
    assert hbm_bytes(found) == pytest.approx(cost["bytes accessed"], rel=0.1)
    weights, activations = 4 * 128 * 128 * 4, 9 * 64 * 128 * 4
    assert hbm_bytes(found) >= weights + activations


def test_a_loop_reads_one_layer_a_turn():
    def layers(x, weights):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0]

    few, many = (hbm_bytes(program_of(layers, (8, 64), (depth, 64, 64))) for depth in (4, 8))
    assert many == pytest.approx(2 * few, rel=0.2), "linear in the depth, not quadratic"


@functools.cache
def mesh():
    return jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)


SIZE = 64 * 16 * 4 / 8  # bytes that a device holds


@pytest.mark.parametrize("over", ["a", "b", ("a", "b")])
@pytest.mark.parametrize(
    ("kind", "function", "factor"),
    [
        ("all-reduce", lambda x, axes: jax.lax.psum(x, axes), lambda n: 2 * (n - 1) / n),
        ("all-gather", lambda x, axes: jax.lax.all_gather(x, axes), lambda n: n - 1),
        (
            "reduce-scatter",
            lambda x, axes: jax.lax.psum_scatter(x, axes, tiled=True),
            lambda n: (n - 1) / n,
        ),
    ],
)
def test_collectives_by_kind_axis_and_bytes(kind, function, factor, over):
    specs = PartitionSpec(("a", "b"))

    def local(x):
        def turn(total, _):
            return total + jnp.sum(function(x + jnp.sum(total), over)), None

        return jax.lax.scan(turn, jnp.zeros(()), None, length=5)[0][None]

    mapped = jax.shard_map(local, mesh=mesh(), in_specs=specs, out_specs=specs, check_vma=False)
    given = NamedSharding(mesh(), specs)
    found = program_of(mapped, (64, 16), in_shardings=given)
    (only,) = hlo_cost.collectives(found, dict(mesh().shape))
    size = {"a": 2, "b": 4, ("a", "b"): 8}[over]
    assert (only.kind, only.devices, only.times) == (kind, size, 5)
    assert only.axes == "+".join(over)
    assert only.wire_bytes == pytest.approx(5 * SIZE * factor(size))


def test_a_permutation_goes_along_an_axis():
    specs = PartitionSpec(("a", "b"))

    def shift(x):
        return jax.lax.ppermute(x, "b", [(at, (at + 1) % 4) for at in range(4)])

    mapped = jax.shard_map(shift, mesh=mesh(), in_specs=specs, out_specs=specs)
    found = program_of(mapped, (64, 16), in_shardings=NamedSharding(mesh(), specs))
    (only,) = hlo_cost.collectives(found, dict(mesh().shape))
    assert (only.kind, only.axes, only.wire_bytes) == ("collective-permute", "b", SIZE)


GATHER = """HloModule m

%start (p: bf16[4,8]) -> bf16[4,64] {{
  %p = bf16[4,8]{{1,0}} parameter(0)
  ROOT %g.1 = bf16[4,64]{{1,0}} all-gather(%p), {how}
}}

%middle (q: bf16[4,8]) -> bf16[4,64] {{
  %q = bf16[4,8]{{1,0}} parameter(0)
  ROOT %g.2 = bf16[4,64]{{1,0}} all-gather(%q), {how}
}}

ENTRY %main (x: bf16[4,8]) -> bf16[4,64] {{
  %x = bf16[4,8]{{1,0:T(8,128)(2,1)S(1)}} parameter(0)
  %f.1 = bf16[4,64]{{1,0}} fusion(%x), kind=kCustom, calls=%start
  ROOT %f.2 = bf16[4,64]{{1,0}} fusion(%x), kind=kCustom, calls=%middle
}}
"""


def gather(groups):
    return GATHER.format(how=f"channel_id=7, replica_groups={groups}, dimensions={{1}}")


@pytest.mark.parametrize(
    "groups",
    [
        "[2,8]<=[8,2]T(1,0)",
        "{{0,2,4,6,8,10,12,14},{1,3,5,7,9,11,13,15}}",
        "mesh['axis_0'=8,'axis_1'=2] {'axis_0'}",
    ],
)
def test_groups_in_every_spelling_and_a_split_collective_once(groups):
    found = hlo_cost.collectives(hlo.read(gather(groups)), {"fsdp": 8, "tensor": 2})
    (only,) = found
    assert (only.kind, only.axes, only.devices, only.times) == ("all-gather", "fsdp", 8, 1)
    assert only.wire_bytes == 7 * 4 * 8 * 2


def test_what_lies_on_the_chip_moves_nothing():
    text = gather("[2,8]<=[8,2]T(1,0)")
    assert hbm_bytes(hlo.read(text)) == 2 * 4 * 64 * 2  # two results; %x is in S(1)


def test_no_program_is_refused():
    with pytest.raises(LabError, match="no ENTRY"):
        hlo.read("nothing")


SCATTER = """HloModule m

%all-reduce-scatter (p: f32[64,4]) -> f32[8,4] {
  %p = f32[64,4]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %sum = f32[64,4]{1,0} all-reduce(%p), channel_id=1, replica_groups=[2,8]<=[8,2]T(1,0)
  ROOT %part = f32[8,4]{1,0} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={8,4}
}

ENTRY %main (x: f32[64,4]) -> f32[8,4] {
  %x = f32[64,4]{1,0} parameter(0)
  ROOT %f = f32[8,4]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter
}
"""


def test_a_sum_of_which_a_part_is_kept_is_a_reduce_scatter():
    (only,) = hlo_cost.collectives(hlo.read(SCATTER), {"fsdp": 8, "tensor": 2})
    assert (only.kind, only.axes) == ("reduce-scatter", "fsdp")
    assert only.wire_bytes == 7 / 8 * 64 * 4 * 4


@pytest.mark.parametrize(
    ("groups", "axes", "devices"),
    [
        ("mesh['x'=1,'y'=4,'z'=2], device_ids=([2,4]T(1,0)) {'y'}", "fsdp", 4),
        ("mesh['x'=4,'y'=1,'z'=2], device_ids=([2,4]T(1,0)) {'z'}", "replica", 2),
        ("mesh['x'=2,'y'=4] {'y'}", "fsdp", 4),
        ("mesh['x'=8,'y'=1] {'x'}", "replica+fsdp", 8),
        ("[2,4]<=[8]", "fsdp", 4),
        ("[4,2]<=[2,4]T(1,0)", "replica", 2),
        ("{{0,4},{1,5},{2,6},{3,7}}", "replica", 2),
        ("{}", "replica+fsdp", 8),
    ],
)
def test_groups_of_a_collective_in_all_the_ways_they_are_written(groups, axes, devices):
    """Of a mesh of 2 replicas of 4: devices 0 to 3 and 4 to 7."""
    (found,) = hlo_cost.collectives(_gather(groups), {"replica": 2, "fsdp": 4})
    assert (found.axes, found.devices) == (axes, devices)
    assert found.wire_bytes == 4 * 8 * (devices - 1)


@pytest.mark.parametrize("groups", ["mesh['x'=8], device_ids=(0 to 7) {'x'}", "<=[8]"])
def test_groups_that_are_not_understood_are_an_error_and_not_all_devices(groups):
    with pytest.raises(LabError, match="is not understood"):
        hlo_cost.collectives(_gather(groups), {"replica": 2, "fsdp": 4})


def _gather(groups):
    return hlo.read(
        "HloModule m\n\n"
        "ENTRY %main (x: f32[8]) -> f32[64] {\n"
        "  %x = f32[8]{0} parameter(0)\n"
        "  ROOT %all-gather.1 = f32[64]{0} all-gather(%x), channel_id=1, "
        f"replica_groups={groups}, dimensions={{0}}, use_global_device_ids=true\n"
        "}\n"
    )


MEGASCALE = (
    "is_host_transfer=true, frontend_attributes={"
    '_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_target="{1}x{0:3}",'
    '_xla_megascale_reduce_operation="SUM",_xla_megascale_transfer_type="ALL_REDUCE"}'
)
TWO_SLICES = f"""HloModule m

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}}

ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  %sum.1 = f32[8]{{0}} all-reduce(%x), channel_id=1, replica_groups={{{{0,1,2,3}}}}, to_apply=%add
  %token = token[] after-all()
  %send = (f32[8]{{0}}, u32[], token[]) send(%sum.1, %token), channel_id=2, {MEGASCALE}
  %sent = token[] send-done(%send), channel_id=2, is_host_transfer=true
  %recv = (f32[8]{{0}}, u32[], token[]) recv(%token), channel_id=3, {MEGASCALE}
  %received = (f32[8]{{0}}, token[]) recv-done(%recv), channel_id=3, is_host_transfer=true
  ROOT %out = f32[8]{{0}} get-tuple-element(%received), index=0
}}
"""


def test_of_two_slices_a_program_is_one_and_what_goes_between_passes_the_host():
    """4 chips each, replicated: 32 bytes summed inside by a ring of 4, then by one of 2."""
    inside, between = hlo_cost.collectives(hlo.read(TWO_SLICES), {"data": 8}, slices=2)
    assert (inside.kind, inside.axes, inside.devices) == ("all-reduce", "data", 4)
    assert (inside.wire_bytes, inside.between_slices) == (2 * 32 * 3 / 4, False)
    assert (between.kind, between.axes, between.devices) == ("all-reduce", "data", 2)
    assert (between.wire_bytes, between.between_slices) == (2 * 32 * 1 / 2, True)
