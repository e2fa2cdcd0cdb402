"""Bytes of HBM of single instructions and of collectives, counted by hand."""

import pytest

from tests.core.written_hlo import entry, kib


@pytest.mark.parametrize(
    ("source", "result", "expected"), [("", "S(1)", 1), ("S(1)", "", 1), ("", "", 2)]
)
def test_an_asynchronous_slice_moves_the_slice(source, result, expected):
    start = (
        f"((f32[4,256]{{1,0:T(8,128){source}}}), f32[1,256]{{1,0:T(8,128){result}}}, "
        "s32[]{:S(2)}) slice-start(%x), slice={[0:1], [0:256]}"
    )
    found = kib(
        entry(
            f"%x = f32[4,256]{{1,0:T(8,128){source}}} parameter(0)",
            f"%s = {start}",
            f"ROOT %d = f32[1,256]{{1,0:T(8,128){result}}} slice-done(%s)",
        )
    )
    assert found == expected


@pytest.mark.parametrize(
    ("source", "result", "expected"), [("", "S(1)", 4), ("S(1)", "", 4), ("", "", 8)]
)
def test_an_asynchronous_copy_counts_on_the_side_of_hbm(source, result, expected):
    of = "f32[4,256]{{1,0:T(8,128){}}}"
    found = kib(
        entry(
            f"%x = {of.format(source)} parameter(0)",
            f"%s = ({of.format(result)}, {of.format(source)}, u32[]{{:S(2)}}) copy-start(%x)",
            f"ROOT %d = {of.format(result)} copy-done(%s)",
        )
    )
    assert found == expected


@pytest.mark.parametrize(
    ("start", "results", "expected"),
    [
        ("collective-permute-start(%x)", "(f32[4,256]{1,0}, f32[4,256]{1,0}, u32[]{:S(2)})", 8),
        ("all-gather-start(%x)", "(f32[4,256]{1,0}, f32[16,256]{1,0})", 20),
        ("all-reduce-start(%x)", "f32[4,256]{1,0}", 8),
        ("reduce-scatter-start(%x)", "((f32[4,256]{1,0}), f32[1,256]{1,0}, u32[]{:S(2)})", 5),
        ("send(%x, %t)", "(f32[4,256]{1,0}, u32[]{:S(2)}, token[])", 4),
        ("recv(%t)", "(f32[4,256]{1,0}, u32[]{:S(2)}, token[])", 4),
    ],
    ids=lambda value: str(value).partition("(")[0],
)
def test_a_transfer_reads_its_operand_once_and_writes_its_result_once(start, results, expected):
    kind = start.partition("(")[0].removesuffix("-start")
    lines = (
        "%x = f32[4,256]{1,0} parameter(0)",
        "%t = token[] after-all()",
        f"%s = {results} {start}, channel_id=1",
        f"ROOT %d = f32[4,256]{{1,0}} {kind}-done(%s)",
    )
    assert kib(entry(*lines)) == expected


def test_a_gather_reads_its_indices_and_what_it_takes():
    lines = (
        "%x = f32[64,256]{1,0} parameter(0)",
        "%i = s32[256]{0} parameter(1)",
        "ROOT %g = f32[256,1]{1,0} gather(%x, %i), offset_dims={1}, slice_sizes={1,1}",
    )
    assert kib(entry(*lines)) == 1 + 1 + 1


def test_a_slice_reads_and_writes_the_slice():
    lines = (
        "%x = f32[4,256]{1,0} parameter(0)",
        "%i = s32[] parameter(1)",
        "ROOT %s = f32[1,256]{1,0} dynamic-slice(%x, %i, %i), dynamic_slice_sizes={1,256}",
    )
    assert kib(entry(*lines)) == 1 + 1


def test_names_and_room_move_nothing():
    found = kib(
        entry(
            "%x = f32[4,256]{1,0} parameter(0)",
            '%room = f32[4,256]{1,0} custom-call(), custom_call_target="AllocateBuffer"',
            "%b = f32[1024]{0} bitcast(%x)",
            "%t = (f32[1024]{0}, f32[4,256]{1,0}) tuple(%b, %room)",
            "%o = (f32[1024]{0}, f32[4,256]{1,0}) opt-barrier(%t)",
            "%g = f32[4,256]{1,0} get-tuple-element(%o), index=1",
            'ROOT %c = f32[8,256]{1,0} custom-call(%g, %g), custom_call_target="ConcatBitcast"',
        )
    )
    assert found == 0


def test_what_a_sum_applies_is_not_counted_by_itself():
    add = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}"""
    lines = (
        "%x = f32[4,256]{1,0} parameter(0)",
        "%z = f32[]{:S(6)} constant(0)",
        "ROOT %r = f32[4,1]{1,0:S(1)} reduce(%x, %z), dimensions={1}, to_apply=%add",
    )
    assert kib(add, entry(*lines)) == 4


def test_what_runs_asynchronously_is_counted_once():
    wrapped = """
%wrapped (p: f32[4,256]) -> f32[4,256] {
  %p = f32[4,256]{1,0} parameter(0)
  ROOT %n = f32[4,256]{1,0} negate(%p)
}"""
    lines = (
        "%x = f32[4,256]{1,0} parameter(0)",
        "%s = ((f32[4,256]{1,0}), f32[4,256]{1,0}, s32[]{:S(2)}) async-start(%x), calls=%wrapped",
        "ROOT %d = f32[4,256]{1,0} async-done(%s)",
    )
    assert kib(wrapped, entry(*lines)) == 8


PASSED = "f32[1,256]{1,0}, f32[4,256]{1,0}, s32[2]{0:S(4)}"
GATHER = "all-gather(%s), channel_id=7, replica_groups=[1,4]<=[4], dimensions={0}"
CHAIN = f"""
%start (s: f32[1,256]) -> ({PASSED}) {{
  %s = f32[1,256]{{1,0}} parameter(0)
  %g = f32[4,256]{{1,0}} {GATHER}
  ROOT %c = ({PASSED}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}}

%step (s: f32[1,256], d: f32[4,256], n: s32[2], q: f32[8,256]) -> (f32[8,256], {PASSED}) {{
  %q = f32[8,256]{{1,0}} parameter(3)
  %r = f32[8,256]{{1,0}} negate(%q)
  %s = f32[1,256]{{1,0}} parameter(0)
  %d = f32[4,256]{{1,0}} parameter(1)
  %g = f32[4,256]{{1,0}} {GATHER}
  %n = s32[2]{{0:S(4)}} parameter(2)
  ROOT %t = (f32[8,256]{{1,0}}, f32[1,256]{{1,0}}, f32[4,256]{{1,0}}, f32[4,256]{{1,0}}, \
s32[2]{{0:S(4)}}) tuple(%r, %s, %d, %g, /*index=4*/%n)
}}

%done (s: f32[1,256], d: f32[4,256], n: s32[2]) -> f32[4,256] {{
  %s = f32[1,256]{{1,0}} parameter(0)
  %d = f32[4,256]{{1,0}} parameter(1)
  %g = f32[4,256]{{1,0}} {GATHER}
  %n = s32[2]{{0:S(4)}} parameter(2)
  ROOT %c = f32[4,256]{{1,0}} custom-call(%s, %d, %g, %n), custom_call_target="AsyncCollectiveDone"
}}
"""


def test_a_collective_that_products_hide_is_counted_where_it_starts():
    """The start reads one KiB and writes four; each step between reads and writes its own 8."""
    stepped = "(f32[8,256]{1,0}, f32[1,256]{1,0}, f32[4,256]{1,0}, f32[4,256]{1,0}, s32[2]{0:S(4)})"
    passes = "output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {}), {3}: (1, {}), {4}: (2, {})}"
    lines = [
        "%x = f32[1,256]{1,0} parameter(0)",
        "%y = f32[8,256]{1,0} parameter(1)",
        f"%a = ({PASSED}) fusion(%x), kind=kCustom, "
        "output_to_operand_aliasing={{0}: (0, {})}, calls=%start",
        "%s.0 = f32[1,256]{1,0} get-tuple-element(%a), index=0",
        "%d.0 = f32[4,256]{1,0} get-tuple-element(%a), index=1",
        "%n.0 = s32[2]{0:S(4)} get-tuple-element(%a), index=2",
    ]
    for at in range(3):
        given = f"%s.{at}, %d.{at}, %n.{at}, %y"
        lines += [
            f"%f.{at} = {stepped} fusion({given}), kind=kOutput, {passes}, calls=%step",
            f"%s.{at + 1} = f32[1,256]{{1,0}} get-tuple-element(%f.{at}), index=1",
            f"%d.{at + 1} = f32[4,256]{{1,0}} get-tuple-element(%f.{at}), index=3",
            f"%n.{at + 1} = s32[2]{{0:S(4)}} get-tuple-element(%f.{at}), index=4",
        ]
    lines.append(
        "ROOT %e = f32[4,256]{1,0} fusion(%s.3, %d.3, %n.3), kind=kCustom, "
        "output_to_operand_aliasing={{}: (1, {})}, calls=%done"
    )
    assert kib(CHAIN, entry(*lines)) == (1 + 4) + 3 * (8 + 8)


def test_a_collective_in_a_fusion_that_is_not_split_reads_and_writes():
    fused = """
%gather (s: f32[1,256]) -> f32[4,256] {
  %s = f32[1,256]{1,0} parameter(0)
  ROOT %g = f32[4,256]{1,0} all-gather(%s), channel_id=7, replica_groups=[1,4]<=[4], dimensions={0}
}"""
    lines = (
        "%x = f32[1,256]{1,0} parameter(0)",
        "ROOT %f = f32[4,256]{1,0} fusion(%x), kind=kCustom, calls=%gather",
    )
    assert kib(fused, entry(*lines)) == 1 + 4


def test_a_sum_in_place_is_read_and_written():
    fused = """
%sum (s: f32[4,256]) -> f32[4,256] {
  %s = f32[4,256]{1,0} parameter(0)
  ROOT %g = f32[4,256]{1,0} all-reduce(%s), channel_id=7, replica_groups=[1,4]<=[4], to_apply=%add
}"""
    lines = (
        "%x = f32[4,256]{1,0} parameter(0)",
        "ROOT %f = f32[4,256]{1,0} fusion(%x), kind=kCustom, "
        "output_to_operand_aliasing={{}: (0, {})}, calls=%sum",
    )
    assert kib(fused, entry(*lines)) == 4 + 4
