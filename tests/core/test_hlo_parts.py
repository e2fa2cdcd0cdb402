"""Which part and pass an operation is of: names that jax gives, and compiled programs."""

import jax
import jax.numpy as jnp
import pytest

from lab.core import hlo
from lab.core.hlo_parts import COPIES, OTHER, Kind, places
from lab.core.scopes import (
    ATTENTION,
    CONVOLUTION,
    DECODER,
    HEAD,
    LAYERS,
    LOSS,
    NORM,
    OPTIMIZER,
    direction_of,
    part_of,
)

NAMES = {
    "jit(train)/jvp(layer stack)/while/body/closed_call/attention/dot_general": (
        ATTENTION,
        "forward",
    ),
    "jit(train)/transpose(jvp(layer stack))/while/body/closed_call/attention/norm/mul": (
        ATTENTION,
        "backward",
    ),
    "jit(train)/transpose(jvp(layer stack))/while/body/closed_call/norm/mul": (NORM, "backward"),
    "jit(train)/transpose(jvp(layer stack))/while/body/dynamic_slice": (LAYERS, "backward"),
    "jit(train)/transpose(jvp(layer stack))/checkpoint/rematted_computation/attention/exp": (
        ATTENTION,
        "recomputed",
    ),
    "jit(train)/jvp(head)/norm/mul": (HEAD, "forward"),
    "jit(train)/jvp(head)/loss/exp": (LOSS, "forward"),
    "jit(run)/while/body/optimizer/mul": (OPTIMIZER, "update"),
    "jit(train)/attention/iota": (ATTENTION, "forward"),  # of no number that is differentiated
    "jit(train)/jvp(decoder)/layer stack/mul": (LAYERS, "forward"),
    "jit(train)/jvp(decoder)/add": (DECODER, "forward"),
    "jit(train)/jvp(bottleneck)/convolution/add": (CONVOLUTION, "forward"),
    "jit(train)/jvp()/add": (None, "forward"),
    "jit(train)/add": (None, "update"),
    "state['params'].backbone.layers.attention.key.value": (None, "update"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert (part_of(name), str(direction_of(name))) == NAMES[name]


def compiled(function, *shapes):
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*given).compile().as_text()


def loss(w_DD, x_ND):
    def layer(x_ND, _):
        with jax.named_scope(ATTENTION):
            return jnp.tanh(x_ND @ w_DD), None

    with jax.named_scope(LAYERS):
        body = jax.checkpoint(layer)
        y_ND, _ = jax.lax.scan(body, x_ND, None, length=3)
    with jax.named_scope(LOSS):
        return jnp.sum(y_ND * y_ND)


def test_a_scanned_layer_with_remat():
    def step(w_DD, x_ND):
        found, gradient = jax.value_and_grad(loss)(w_DD, x_ND)
        with jax.named_scope(OPTIMIZER):
            return w_DD - 0.1 * gradient, found

    program = hlo.read(compiled(step, (64, 64), (32, 64)))
    found = places(program)
    working = {(p.part, str(p.direction)) for p in found.values() if p.kind is Kind.WORK}
    assert {
        (ATTENTION, "forward"),
        (ATTENTION, "recomputed"),
        (ATTENTION, "backward"),
        (OPTIMIZER, "update"),
    } <= working
    products = [
        found[instruction.name]
        for _, instruction, _ in program.running()
        if instruction.opcode == "dot"
    ]
    assert {place.part for place in products} == {ATTENTION}
    loops = [(p.part, str(p.direction)) for p in found.values() if p.kind is Kind.REST]
    assert sorted(loops) == [(LAYERS, "backward"), (LAYERS, "forward")]


def test_every_convolution_of_a_gradient_is_one():
    """Also that of the weight, which XLA on CPU leaves without a name."""

    def loss(w_HWIO, x_BHWC):
        with jax.named_scope(CONVOLUTION):
            y_BHWC = jax.lax.conv_general_dilated(
                jnp.tanh(x_BHWC), w_HWIO, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return jnp.sum(jnp.tanh(y_BHWC))

    program = hlo.read(compiled(jax.grad(loss, (0, 1)), (3, 3, 8, 8), (2, 8, 8, 8)))
    found = places(program)
    convolutions = [
        instruction
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode == "convolution"
    ]
    assert any("op_name" not in each.attributes for each in convolutions)
    placed = [(found[each.name].part, str(found[each.name].direction)) for each in convolutions]
    assert sorted(placed) == [(CONVOLUTION, "backward")] * 2 + [(CONVOLUTION, "forward")]


TEXT = """HloModule jit_train

%move (p: f32[4,8]) -> f32[8,4] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %t = f32[8,4]{1,0} transpose(%p), dimensions={1,0}
}

%mixed (q: f32[4,8]) -> f32[4,8] {
  %q = f32[4,8]{1,0} parameter(0)
  %e = f32[4,8]{1,0} exponential(%q), metadata={op_name="jit(train)/jvp(head)/exp"}
  %n = f32[4,8]{1,0} negate(%e), metadata={op_name="jit(train)/jvp(head)/a,b->c/neg"}
  ROOT %s = f32[4,8]{1,0} add(%n, %q), metadata={op_name="jit(train)/jvp()/add"}
}

%scatter (r: f32[4,8]) -> f32[2,8] {
  %r = f32[4,8]{1,0} parameter(0)
  %ar = f32[4,8]{1,0} all-reduce(%r), channel_id=4, replica_groups={{0,1}}
  %c = s32[] constant(0)
  ROOT %ds = f32[2,8]{1,0} dynamic-slice(%ar, %c, %c), dynamic_slice_sizes={2,8}
}

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %copy.1 = f32[4,8]{1,0} copy(%x)
  %copy-start.1 = (f32[4,8]{1,0}, f32[4,8]{1,0}, u32[]) copy-start(%x)
  %copy-done.1 = f32[4,8]{1,0} copy-done(%copy-start.1)
  %copy.2 = f32[4,8]{1,0} copy(%x), metadata={op_name="jit(train)/jvp(attention)/transpose"}
  %turned = f32[8,4]{1,0} fusion(%x), kind=kLoop, calls=%move
  %fused = f32[4,8]{1,0} fusion(%x), kind=kLoop, calls=%mixed
  %gather = f32[4,8]{1,0} all-gather(%x), metadata={op_name="jit(train)/jvp(attention)/dot_general"}
  %reduced = f32[2,8]{1,0} fusion(%x), kind=kLoop, calls=%scatter
  %product = f32[4,4]{1,0} convolution(%x, %x), dim_labels=bf_oi->bf
  ROOT %sum = f32[4,8]{1,0} add(%copy.1, %fused)
}
"""


def test_what_no_scope_owns():
    found = places(hlo.read(TEXT))

    def of(name):
        place = found[name]
        return place.part, place.direction and str(place.direction), place.kind

    assert of("copy.1") == (COPIES, None, Kind.WORK)
    assert of("copy-start.1") == of("copy-done.1") == (COPIES, None, Kind.TRANSFER)
    assert of("copy.2") == (ATTENTION, "forward", Kind.WORK)
    assert of("turned") == (COPIES, None, Kind.WORK)
    assert of("fused") == (HEAD, "forward", Kind.WORK)
    assert of("gather") == ("all-gather", "forward", Kind.TRANSFER)
    assert of("reduced") == ("all-reduce", None, Kind.TRANSFER)
    assert of("sum") == (OTHER, None, Kind.WORK)
    assert of("product") == (OTHER, None, Kind.WORK)  # a TPU's product of matrices


def test_a_scope_changes_nothing_but_names():
    def plain(x_ND):
        return jnp.tanh(x_ND @ x_ND.T)

    def named(x_ND):
        with jax.named_scope(ATTENTION):
            return jnp.tanh(x_ND @ x_ND.T)

    texts = [
        jax.jit(each).lower(jnp.ones((8, 8))).as_text().replace(each.__name__, "f")
        for each in (plain, named)
    ]
    assert texts[0] == texts[1]
