"""Self times of hand-made events against sums by hand and an enumeration of every nanosecond."""

import numpy as np
import pytest

from lab.core.hlo_parts import Kind
from lab.core.xplane import Event, instruction_name, read, self_times

KINDS = {"while": Kind.REST, "all-reduce": Kind.TRANSFER, "all-gather": Kind.TRANSFER}


def kind_of(op):
    return KINDS.get(op[1].partition(".")[0], Kind.WORK)


def event(op, start, end, *, line=0, finish=0):
    return Event(line, "step", op, start, end, finish)


def times(*events):
    return {op: time for (_, op), time in self_times(events, kind_of).items()}


def test_a_loop_has_what_its_operations_leave():
    found = times(event("while", 0, 100), event("a", 10, 30), event("b", 30, 60))
    assert found == {"while": 50, "a": 20, "b": 30}


def test_what_contains_others_counts_once_at_every_depth():
    found = times(
        event("call", 0, 100), event("while", 10, 90), event("a", 20, 50), event("call", 100, 110)
    )
    assert found == {"call": 30, "while": 50, "a": 30}


def test_a_body_on_another_thread_is_not_the_loop():
    found = times(event("while", 0, 100), event("a", 10, 30, line=1), event("b", 40, 50, line=2))
    assert found == {"while": 70, "a": 20, "b": 10}


def test_threads_share_an_instant():
    found = times(event("a", 0, 60), event("b", 20, 50, line=1), event("c", 30, 40, line=2))
    assert found == {"a": 20 + 10 / 2 + 10 / 3 + 10 / 2 + 10, "b": 10 + 10 / 3, "c": 10 / 3}


def test_a_transfer_has_what_no_work_hides():
    found = times(event("all-reduce", 0, 100, line=1), event("a", 20, 70))
    assert found == {"all-reduce": 50, "a": 50}


def test_transfers_share_among_themselves():
    found = times(event("all-reduce", 0, 10), event("all-gather", 0, 10, line=1))
    assert found == {"all-reduce": 5, "all-gather": 5}


def test_what_is_left_to_other_threads_counts_where_no_work_has_an_event():
    found = times(event("while", 0, 100), event("a", 10, 12, line=1, finish=40), event("b", 20, 30))
    assert found == {"while": 70, "a": 2 + 8 + 10, "b": 10}


def test_events_that_only_overlap_are_cut():
    assert times(event("a", 0, 10), event("b", 5, 15)) == {"a": 5, "b": 10}


def test_nothing_ran():
    assert times() == {}
    assert times(event("a", 5, 5)) == {}


@pytest.mark.parametrize("seed", range(8))
def test_times_sum_to_the_union_and_agree_with_an_enumeration(seed):
    rng = np.random.default_rng(seed)
    names = ["while", "all-reduce", "all-gather", "a", "b", "c"]
    events = []
    for number in range(25):
        start, length = int(rng.integers(0, 200)), int(rng.integers(0, 40))
        finish = start + length + int(rng.integers(-20, 30))
        op = f"{names[rng.integers(len(names))]}.{number}"
        events.append(event(op, start, start + length, line=int(rng.integers(3)), finish=finish))
    expected = {}
    for instant in range(300):
        for op, part in _enumerated(events, instant).items():
            expected[op] = expected.get(op, 0) + part
    found = times(*events)
    assert found.keys() == expected.keys()
    assert all(found[op] == pytest.approx(expected[op]) for op in expected)


def _enumerated(events, instant):
    """op -> share of one nanosecond, from the rule as it is written down."""
    inner, later = {}, []
    for each in sorted(events, key=lambda e: (e.start_ns, -e.end_ns)):
        if each.start_ns <= instant < each.end_ns:
            inner[each.line] = each
        if each.end_ns <= instant < each.finish_ns:
            later.append(each)
    ranked = [((kind_of(("", e.op)), False), e.op) for e in inner.values()]
    ranked += [((kind_of(("", e.op)), True), e.op) for e in later]
    lowest = min((rank for rank, _ in ranked), default=None)
    among = [op for rank, op in ranked if rank == lowest]
    return {op: 1 / len(among) for op in among}


def trace(path, text):
    """A trace file with these planes."""
    from jax.profiler import ProfileData

    path.write_bytes(ProfileData.text_proto_to_serialized_xspace(text))
    return path


def plane(name, lines, *, stats=()):
    """A plane in text; lines: (name, [(event, start, length, {stat: text or number})])."""
    names = list(dict.fromkeys(e[0] for _, events in lines for e in events))
    text = f'planes {{ name: "{name}"\n'
    for number, each in enumerate(names, start=1):
        text += f'event_metadata {{ key: {number} value {{ id: {number} name: "{each}" }} }}\n'
    for number, each in enumerate(stats, start=1):
        text += f'stat_metadata {{ key: {number} value {{ id: {number} name: "{each}" }} }}\n'
    for line, events in lines:
        text += f'lines {{ name: "{line}"\n'
        for event_name, start, length, given in events:
            text += f"events {{ metadata_id: {names.index(event_name) + 1} "
            text += f"offset_ps: {start * 1000} duration_ps: {length * 1000} "
            for stat, value in given.items():
                kind = "str_value" if isinstance(value, str) else "int64_value"
                value = f'"{value}"' if isinstance(value, str) else value
                text += f"stats {{ metadata_id: {stats.index(stat) + 1} {kind}: {value} }} "
            text += "}\n"
        text += "}\n"
    return text + "}\n"


def test_threads_of_a_cpu(tmp_path):
    stats = ("hlo_op", "hlo_module", "device_ordinal", "_p", "_c")
    step = {"hlo_op": "dot.1", "hlo_module": "jit_train", "device_ordinal": 0, "_p": 7}
    lines = [
        ("pool/1", [("dot.1", 10, 20, step), ("ThunkExecutor::Execute", 0, 99, {})]),
        ("pool/2", [("end: dot.1", 50, 1, {"_c": 7})]),
        ("pool/3", [("add", 5, 5, {**step, "hlo_op": "add", "device_ordinal": 1, "_p": 8})]),
    ]
    found = read(trace(tmp_path / "t.xplane.pb", plane("/host:CPU", lines, stats=stats)))
    assert found == {
        "CPU 0": [Event(0, "jit_train", "dot.1", 10, 30, 50)],
        "CPU 1": [Event(2, "jit_train", "add", 5, 10, 0)],
    }


def test_the_core_of_a_tpu(tmp_path):
    body = "%fusion.3 = bf16[8]{0} fusion(%a), kind=kLoop"
    loop = "%while.1 = (s32[]) while(%t)"
    lines = [
        ("Steps", [("0", 0, 100, {})]),
        ("XLA Modules", [("jit_train(123)", 10, 80, {}), ("jit_key(9)", 0, 5, {})]),
        ("XLA Ops", [(loop, 20, 40, {}), (body, 30, 10, {}), ("%add = u32[] add(%a)", 1, 2, {})]),
        ("Async XLA Ops", [("%all-gather-start.1 = f32[] all-gather-start(%a)", 20, 40, {})]),
    ]
    host = plane("/host:CPU", [("t", [("x", 0, 9, {"hlo_op": "x"})])], stats=("hlo_op",))
    found = read(trace(tmp_path / "t.xplane.pb", plane("/device:TPU:0", lines) + host))
    assert list(found) == ["/device:TPU:0"]
    events = found["/device:TPU:0"]
    assert {(e.module, e.op) for e in events} == {
        ("jit_train", "while.1"),
        ("jit_train", "fusion.3"),
        ("jit_key", "add"),
    }
    assert times(*events) == {"while.1": 30, "fusion.3": 10, "add": 2}


def test_the_streams_of_a_gpu(tmp_path):
    stats = ("hlo_op", "hlo_module")
    named = {"hlo_op": "loop_fusion.2", "hlo_module": "jit_train"}
    reduced = {"hlo_op": "all-reduce.1", "hlo_module": "jit_train"}
    lines = [
        ("Stream #13(Compute)", [("loop_fusion_2", 0, 30, named), ("gemm_fusion_4", 30, 5, {})]),
        ("Stream #14(Collective)", [("ncclDevKernel_AllReduce", 10, 30, reduced)]),
        ("XLA Modules", [("jit_train", 0, 40, {})]),
    ]
    found = read(trace(tmp_path / "t.xplane.pb", plane("/device:GPU:0", lines, stats=stats)))
    assert times(*found["/device:GPU:0"]) == {
        "loop_fusion.2": 30,
        "gemm_fusion_4": 5,
        "all-reduce.1": 5,
    }


def test_a_trace_without_operations(tmp_path):
    assert (
        read(trace(tmp_path / "t.xplane.pb", plane("/host:CPU", [("t", [("x", 0, 9, {})])]))) == {}
    )


def test_the_name_in_an_instruction():
    assert instruction_name("%fusion.3 = bf16[8]{0} fusion(%a), kind=kLoop") == "fusion.3"
    assert instruction_name("fusion.3") == "fusion.3"
