"""Goodput of made-up sessions against sums made by hand."""

import json

import pytest

from lab.core.errors import LabError
from lab.launch.goodput import Goodput, goodput, read_sessions
from lab.launch.timesheet import KINDS, SCHEMA

HOST = {"host": "h1", "pid": 7}


def line(session, at, step, *, doing="updating", ended=None, **seconds):
    row = {"schema": SCHEMA, "session": session, "at_unix_s": at, "step": step, "doing": doing}
    row |= {f"{kind}_s": float(seconds.get(kind, 0)) for kind in KINDS}
    return row | HOST | ({"ended": ended} if ended else {})


def sessions(tmp_path, *rows):
    path = tmp_path / "time.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_sessions(path)


def test_an_undisturbed_run_lost_nothing(tmp_path):
    found = sessions(
        tmp_path,
        line("a", 100.0, None, startup=4),
        line("a", 101.0, 0, startup=5),
        line("a", 150.0, 9, startup=5, compile=7, data=2, evaluation=3, save=1, update=30),
        line("a", 162.0, 12, startup=5, compile=7, data=3, evaluation=6, save=2, update=40),
    )
    wanted = Goodput(startup_s=5, compile_s=7, data_s=3, evaluation_s=6, save_s=2, productive_s=40)
    assert goodput(found) == wanted and wanted.total_s == 63
    shares = wanted.shares()
    assert shares["productive"] == 40 / 63 and shares["lost"] == 0
    assert sum(shares.values()) == pytest.approx(1.0)


def test_steps_done_again_after_a_kill_are_lost_and_so_is_the_time_between(tmp_path):
    """Saved at 8, killed at 14, which nobody noticed for 40 s."""
    found = sessions(
        tmp_path,
        line("a", 0.0, None, startup=4),
        line("a", 1.0, 0, startup=5),
        line("a", 50.0, 8, startup=5, compile=7, data=4, save=2, update=32),
        line("a", 75.0, 14, startup=5, compile=7, data=7, evaluation=5, save=2, update=50),
        line("b", 115.0, None, startup=3),
        line("b", 117.0, 8, startup=5),
        line("b", 160.0, 20, startup=5, compile=6, data=6, save=1, update=30, ended="finished"),
    )
    assert goodput(found) == Goodput(
        startup_s=10,
        compile_s=13,
        data_s=4 + 6,
        save_s=3,
        productive_s=32 + 30,
        redone_s=3 + 5 + 18,  # data, an evaluation and updates of steps 9 to 14
        unheld_s=40,
    )
    assert goodput(found).shares()["lost"] == 66 / goodput(found).total_s
    assert [(each.host, each.pid, each.ended) for each in found] == [
        ("h1", 7, ""),
        ("h1", 7, "finished"),
    ]


def test_a_part_of_what_lies_between_two_lines_is_lost_by_its_steps(tmp_path):
    """It went back to step 5 of steps 1 to 20, of which one line tells."""
    found = sessions(
        tmp_path,
        line("a", 0.0, 0),
        line("a", 40.0, 20, data=8, update=32),
        line("b", 40.0, 5),
        line("b", 55.0, 10, update=10),
    )
    assert goodput(found) == Goodput(data_s=2, productive_s=8 + 10, redone_s=6 + 24)


def test_a_rollback_inside_a_session_and_a_second_kill_are_not_counted_twice(tmp_path):
    found = sessions(
        tmp_path,
        line("a", 0.0, 0),
        line("a", 10.0, 10, update=10),
        line("a", 12.0, 12, update=12),  # the spike
        line("a", 13.0, 10, update=12, startup=1),  # restored
        line("a", 23.0, 20, update=22, startup=1),
        line("b", 23.0, None, startup=2),
        line("b", 24.0, 0, startup=3),  # its checkpoints are gone
        line("b", 30.0, 6, startup=3, update=6),
        line("c", 30.0, 6),
        line("c", 44.0, 20, update=14),
    )
    assert goodput(found) == Goodput(startup_s=4, productive_s=20, redone_s=22)


def test_a_session_that_ended_before_a_state_was_restored_is_start_up(tmp_path):
    found = sessions(
        tmp_path,
        line("a", 0.0, 0),
        line("a", 10.0, 10, update=10),
        line("b", 15.0, None, startup=2),
        line("c", 16.0, None, startup=1),
        line("c", 20.0, 10, startup=5),
    )
    assert goodput(found) == Goodput(startup_s=2 + 5, productive_s=10, unheld_s=6)


def test_the_speed_is_that_of_the_last_half_with_evaluations_and_without_compiling(tmp_path):
    (one,) = sessions(
        tmp_path,
        line("a", 0.0, None, startup=1),
        line("a", 1.0, 0, startup=1),
        line("a", 60.0, 10, startup=1, compile=40, update=20),
        line("a", 70.0, 20, startup=1, compile=40, update=30),
        line("a", 85.0, 30, startup=1, compile=40, update=40, evaluation=5),
        line("a", 95.0, 40, startup=1, compile=40, update=48, evaluation=5, data=2),
    )
    assert one.step_s() == (28 + 5 + 2) / 30, "from step 10 on: the middle of its lines"


def test_a_session_without_steps_has_no_speed(tmp_path):
    assert sessions(tmp_path, line("a", 0.0, None))[0].step_s() is None
    assert sessions(tmp_path, line("a", 0.0, None), line("a", 1.0, 7))[0].step_s() is None
    back = sessions(tmp_path, line("a", 0.0, 7), line("a", 5.0, 9, update=5), line("a", 6.0, 7))
    assert back[0].step_s() is None, "since the rollback it made none"


def test_half_a_line_is_left_out_and_a_bad_one_is_named(tmp_path):
    path = tmp_path / "time.jsonl"
    assert read_sessions(path) == []
    good = json.dumps(line("a", 0.0, 3))
    path.write_text(f"{good}\n{good[:20]}")
    assert len(read_sessions(path)[0].lines) == 1
    missing = json.dumps({k: v for k, v in line("a", 0.0, 3).items() if k != "save_s"})
    for bad, words in (
        ("{no", "line 2: not JSON"),
        ("[1]", "line 2: a line of schema"),
        ('{"schema": "lab.time/2"}', "\"lab.time/1\" is expected, not 'lab.time/2'"),
        (missing, "line 2: save_s is missing"),
    ):
        path.write_text(f"{good}\n{bad}\n")
        with pytest.raises(LabError) as error:
            read_sessions(path)
        assert str(path) in str(error.value) and words in str(error.value)
