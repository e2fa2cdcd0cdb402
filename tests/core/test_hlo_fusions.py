"""Bytes of HBM that fusions read and write, counted by hand."""

import pytest

from tests.core.written_hlo import KIB, entry, kib

# A fusion that takes %p, an array of 4 KiB, and the numbers %i and %u, of 1 KiB.
FUSED = """
%fused (p: f32[4,256], i: s32[], u: f32[1,256]) -> {kind} {{
  %p = f32[4,256]{{1,0{place}}} parameter(0)
  %i = s32[]{{:S(6)}} parameter(1)
  %u = f32[1,256]{{1,0:S(1)}} parameter(2)
  %z = s32[] constant(0)
{lines}
}}"""


def fusion(*lines, kind="f32[4,256]{1,0}", place="", aliased="", others=()):
    """KiB of a fusion whose other operands than %p lie on the chip."""
    text = FUSED.format(kind=kind, place=place, lines="\n".join(f"  {line}" for line in lines))
    alias = f", output_to_operand_aliasing={{{aliased}}}" if aliased else ""
    calls = (
        f"%x = f32[4,256]{{1,0{place}}} parameter(0)",
        "%i = s32[]{:S(6)} parameter(1)",
        "%u = f32[1,256]{1,0:S(1)} parameter(2)",
        f"ROOT %f = {kind} fusion(%x, %i, %u), kind=kLoop{alias}, calls=%fused",
    )
    return kib(*others, text, entry(*calls))


ROW = "f32[1,256]{1,0}"
CHIP = "f32[1,256]{1,0:S(1)}"
TAKE = "dynamic-slice(%{}, %i, %z), dynamic_slice_sizes={{1,256}}"
PUT = "dynamic-update-slice(%{}, %u, %i, %z)"


@pytest.mark.parametrize(
    ("lines", "kind", "expected"),
    [
        pytest.param([f"ROOT %r = {CHIP} {TAKE.format('p')}"], CHIP, 1, id="a slice"),
        pytest.param(
            [
                "%b = f32[4,1,256]{2,1,0} bitcast(%p)",
                "%c = f32[4,256]{1,0} reshape(%b)",
                f"ROOT %r = {CHIP} {TAKE.format('c')}",
            ],
            CHIP,
            1,
            id="a slice of a view",
        ),
        pytest.param(
            [
                "%zero = f32[] constant(-inf)",
                "%b = f32[8,256]{1,0} pad(%p, %zero), padding=0_4x0_0",
                f"ROOT %r = {CHIP} {TAKE.format('b')}",
            ],
            CHIP,
            1,
            id="a slice of what hangs over",
        ),
        pytest.param(
            [
                f"%s = {ROW} {TAKE.format('p')}",
                "%b = f32[4,256]{1,0} bitcast(%p)",
                f"%t = {ROW} {TAKE.format('b')}",
                f"ROOT %r = {CHIP} add(%s, %t)",
            ],
            CHIP,
            2,
            id="two slices, one of a view",
        ),
        pytest.param(
            [
                "%b = f32[4,256]{1,0} bitcast(%p)",
                f"%s = {ROW} {TAKE.format('b')}",
                "%n = f32[4,256]{1,0} negate(%p)",
                f"ROOT %t = ({CHIP}, f32[4,256]{{1,0:S(1)}}) tuple(%s, %n)",
            ],
            f"({CHIP}, f32[4,256]{{1,0:S(1)}})",
            4,
            id="a slice of a view and the whole: the whole once",
        ),
        pytest.param(
            ["ROOT %r = f32[1024]{0:S(1)} bitcast(%p)"],
            "f32[1024]{0:S(1)}",
            4,
            id="a view that is the result",
        ),
        pytest.param(
            [f"ROOT %r = {CHIP} gather(%u, %p), offset_dims={{1}}"], CHIP, 4, id="indices"
        ),
        pytest.param([f"ROOT %r = {CHIP} gather(%p, %p), offset_dims={{1}}"], CHIP, 4, id="both"),
    ],
)
def test_a_fusion_reads_what_the_users_need(lines, kind, expected):
    assert fusion(*lines, kind=kind) == expected


INNER = """
%inner (b: f32[4,256], j: s32[]) -> f32[1,256] {
  %b = f32[4,256]{1,0} parameter(0)
  %j = s32[] parameter(1)
  %o = s32[] constant(0)
  ROOT %s = f32[1,256]{1,0} dynamic-slice(%b, %j, %o), dynamic_slice_sizes={1,256}
}"""
MIDDLE = """
%middle (j: s32[], c: f32[4,256]) -> f32[1,256] {
  %j = s32[] parameter(0)
  %c = f32[4,256]{1,0} parameter(1)
  ROOT %s = f32[1,256]{1,0} fusion(%c, %j), kind=kLoop, calls=%inner
}"""
VIEW = """
%view (b: f32[4,256]) -> f32[4,256] {
  %b = f32[4,256]{1,0} parameter(0)
  ROOT %v = f32[4,256]{1,0} bitcast(%b)
}"""


def test_a_slice_in_a_fusion_in_a_fusion():
    once = f"ROOT %r = {CHIP} fusion(%i, %p), kind=kLoop, calls=%middle"
    assert fusion(once, kind=CHIP, others=(INNER, MIDDLE)) == 1
    twice = (
        f"%a = {ROW} fusion(%p, %i), kind=kLoop, calls=%inner",
        f"%b = {ROW} fusion(%i, %p), kind=kLoop, calls=%middle",
        f"ROOT %r = {CHIP} add(%a, %b)",
    )
    assert fusion(*twice, kind=CHIP, others=(INNER, MIDDLE)) == 2
    of_view = (
        "%v = f32[4,256]{1,0} fusion(%p), kind=kLoop, calls=%view",
        f"ROOT %r = {CHIP} {TAKE.format('v')}",
    )
    assert fusion(*of_view, kind=CHIP, others=(VIEW,)) == 1
    whole = ("ROOT %v = f32[4,256]{1,0:S(1)} fusion(%p), kind=kLoop, calls=%view",)
    assert fusion(*whole, kind="f32[4,256]{1,0:S(1)}", others=(VIEW,)) == 4


def test_a_stack_is_read_and_written_a_layer_a_turn():
    """The state of the loop moves nothing by itself; the slice stands in a nested fusion."""
    fused = """
%turn (p: f32[8,256], i: s32[], q: f32[8,256]) -> f32[8,256] {
  %p = f32[8,256]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %q = f32[8,256]{1,0} parameter(2)
  %z = s32[] constant(0)
  %s = f32[1,256]{1,0} fusion(%p, %i), kind=kLoop, calls=%inner
  ROOT %u = f32[8,256]{1,0} dynamic-update-slice(%q, %s, %i, %z)
}"""
    state = "(s32[]{:S(6)}, f32[8,256]{1,0}, f32[8,256]{1,0})"
    body = f"""
%body (t: {state}) -> {state} {{
  %t = {state} parameter(0)
  %i = s32[]{{:S(6)}} get-tuple-element(%t), index=0
  %p = f32[8,256]{{1,0}} get-tuple-element(%t), index=1
  %q = f32[8,256]{{1,0}} get-tuple-element(%t), index=2
  %f = f32[8,256]{{1,0}} fusion(%p, %i, %q), kind=kLoop, calls=%turn
  ROOT %r = {state} tuple(%i, %p, %f)
}}"""
    condition = f"""
%condition (t: {state}) -> pred[] {{
  %t = {state} parameter(0)
  ROOT %c = pred[]{{:S(6)}} constant(true)
}}"""
    loop = (
        "%i = s32[]{:S(6)} parameter(0)",
        "%x = f32[8,256]{1,0} parameter(1)",
        "%y = f32[8,256]{1,0} parameter(2)",
        f"%t = {state} tuple(%i, %x, %y)",
        f"ROOT %w = {state} while(%t), condition=%condition, body=%body, "
        'backend_config={"known_trip_count":{"n":"8"}}',
    )
    inner = INNER.replace("f32[4,256]", "f32[8,256]")
    assert kib(inner, fused, body, condition, entry(*loop)) == 8 * (1 + 1)


@pytest.mark.parametrize(
    ("lines", "options", "expected"),
    [
        pytest.param([f"ROOT %r = f32[4,256]{{1,0}} {PUT.format('p')}"], {}, 1, id="in place"),
        pytest.param(
            [
                "%b = f32[4,256]{1,0} bitcast(%p)",
                f"%d = f32[4,256]{{1,0}} {PUT.format('b')}",
                f"%e = f32[4,256]{{1,0}} {PUT.format('d')}",
                "ROOT %r = f32[4,256]{1,0} bitcast(%e)",
            ],
            {},
            2,
            id="twice, between views",
        ),
        pytest.param(
            [
                *(
                    f"%p.{n + 1} = f32[4,256]{{1,0}} {PUT.format('p' if n == 0 else f'p.{n}')}"
                    for n in range(5)
                ),
                "ROOT %r = f32[4,256]{1,0} bitcast(%p.5)",
            ],
            {},
            4,
            id="five times: no more than all of it",
        ),
        pytest.param(
            [
                "%c = f32[] constant(0)",
                "%o = f32[4,256]{1,0} broadcast(%c), dimensions={}",
                f"ROOT %r = f32[4,256]{{1,0}} {PUT.format('o')}",
            ],
            {},
            4,
            id="into a new array: all of it",
        ),
        pytest.param(
            [f"ROOT %r = f32[4,256]{{1,0:S(1)}} {PUT.format('p')}"],
            {"kind": "f32[4,256]{1,0:S(1)}"},
            4,
            id="into another memory: all of it is read",
        ),
        pytest.param(
            [
                f"%d = f32[4,256]{{1,0}} {PUT.format('p')}",
                "ROOT %r = f32[4,256]{0,1} copy(%d)",
            ],
            {},
            8,
            id="moved afterwards: all of it is read and written",
        ),
        pytest.param(
            [
                f"%d = f32[4,256]{{1,0}} {PUT.format('p')}",
                "%n = f32[4,256]{1,0} negate(%d)",
                "ROOT %r = (f32[4,256]{1,0}, f32[4,256]{1,0:S(1)}) tuple(%d, %n)",
            ],
            {"kind": "(f32[4,256]{1,0}, f32[4,256]{1,0:S(1)})"},
            5,
            id="in place, and all of it is used",
        ),
        pytest.param(
            [
                f"%d = f32[4,256]{{1,0}} {PUT.format('p')}",
                f"%s = {ROW} {TAKE.format('p')}",
                f"ROOT %r = ({CHIP}, f32[4,256]{{1,0}}) tuple(%s, %d)",
            ],
            {"kind": f"({CHIP}, f32[4,256]{{1,0}})"},
            2,
            id="in place as a part of the results, and a slice is used",
        ),
        pytest.param(
            ["ROOT %r = f32[4,256]{1,0} negate(%p)"],
            {"aliased": "{}: (0, {})"},
            8,
            id="an optimizer reads and writes",
        ),
        pytest.param(
            [
                f"%n = {CHIP} negate(%u)",
                f"ROOT %r = ({CHIP}, f32[4,256]{{1,0}}) tuple(%n, %p)",
            ],
            {"kind": f"({CHIP}, f32[4,256]{{1,0}})", "aliased": "{1}: (0, {})"},
            0,
            id="passed through",
        ),
        pytest.param(
            [
                f"%n = {CHIP} negate(%u)",
                f"ROOT %r = ({CHIP}, f32[4,256]{{1,0}}) tuple(%n, %p)",
            ],
            {"kind": f"({CHIP}, f32[4,256]{{1,0}})"},
            8,
            id="copied",
        ),
    ],
)
def test_a_fusion_writes_what_it_changes(lines, options, expected):
    assert fusion(*lines, **options) == expected


def test_an_update_in_a_fusion_in_a_fusion():
    inner = """
%put (v: f32[1,256], b: f32[4,256], j: s32[]) -> f32[4,256] {
  %v = f32[1,256]{1,0} parameter(0)
  %b = f32[4,256]{1,0} parameter(1)
  %j = s32[] parameter(2)
  %o = s32[] constant(0)
  ROOT %d = f32[4,256]{1,0} dynamic-update-slice(%b, %v, %j, %o)
}"""
    lines = (
        "%b = f32[4,256]{1,0} bitcast(%p)",
        "ROOT %r = f32[4,256]{1,0} fusion(%u, %b, %i), kind=kLoop, calls=%put",
    )
    assert fusion(*lines, others=(inner,)) == 1


@pytest.mark.parametrize("fused", [False, True])
def test_a_scatter_adds_where_the_indices_say(fused):
    """The place of each update is read and written; indices of 4 bytes, two rows of a KiB."""
    lines = (
        "%x = f32[4,256]{1,0} parameter(0)",
        "%i = s32[2]{0} parameter(1)",
        "%u = f32[2,256]{1,0} parameter(2)",
    )
    scatter = "ROOT %s = f32[4,256]{1,0} scatter(%x, %i, %u), update_window_dims={1}"
    if not fused:
        assert kib(entry(*lines, scatter)) == 2 + 2 + 2 + 8 / KIB
        return
    inside = entry(*lines, scatter).replace("%main", "%fused")
    call = "ROOT %f = f32[4,256]{1,0} fusion(%x, %i, %u), kind=kCustom, calls=%fused"
    assert kib(inside, entry(*lines, call)) == 2 + 2 + 2 + 8 / KIB
