"""Where the time of a session goes: every second is of one kind, and kills are survived."""

import errno
import json
import os

import pytest

from lab.core.errors import LabError
from lab.launch import timesheet
from lab.launch.claim import ClaimLost
from lab.launch.goodput import goodput, read_sessions
from lab.launch.timesheet import KINDS, TIMES, Startup, TimeSheet, timed
from lab.train.hooks import Doing, Outcome, Status
from lab.train.loop import Loop
from tests.train.jobs import hooks, job
from tests.train.test_guard import ROLLBACK, harmed
from tests.train.test_guard import job as guarded_job

STEPS = 10


class Clock:
    """Ticks at every look, by whole seconds, so that sums are exact."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        self.now_s += 1.0
        return self.now_s

    def still(self):
        return self.now_s


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def sums(line):
    return sum(line[f"{kind}_s"] for kind in KINDS)


def sheet_of(path, clock, **more):
    return TimeSheet(path, clock=clock.still, wall=lambda: 1000.0 + clock.now_s, **more)


@pytest.fixture
def every_line(monkeypatch):
    monkeypatch.setattr(timesheet, "EVERY_S", 0.0)
    monkeypatch.setattr(timesheet, "SHARE", 0.0)


def test_kinds_of_a_whole_run_sum_to_its_time_exactly(tmp_path, every_line):
    """A real run of ten updates, three evaluations and its saves, by a clock that ticks."""
    made = job(tmp_path, **{"execution.checkpoint_every_steps": 4})
    clock, beats = Clock(), []
    path = tmp_path / TIMES
    sheet = TimeSheet(path, clock=clock, startup_s=7.0, wall=clock.still)
    given = hooks(clock=clock, beat=lambda doing, step: beats.append(doing))
    outcome = timed(sheet, given, lambda hooks: Loop(made, hooks).run())
    assert outcome.status is Status.FINISHED
    lines = lines_of(path)
    for line in lines:
        assert sums(line) == line["elapsed_s"] > 0, line
    last = lines[-1]
    assert last["ended"] == "finished" and last["step"] == STEPS
    assert last["elapsed_s"] == clock.now_s - 1 + 7.0, "nothing of the clock is missing"
    assert all(last[f"{kind}_s"] > 0 for kind in KINDS)
    assert lines[0]["before_claim_s"] == 7.0 and lines[0]["step"] is None
    assert [line["step"] for line in lines if line["step"] is not None][0] == 0
    assert beats[:3] == [Doing.RESTORING, Doing.EVALUATING, Doing.COMPILING]
    assert beats.count(Doing.COMPILING) == 2, "one update and one batch of an evaluation compile"
    assert beats.count(Doing.UPDATING) == STEPS - 1


def test_a_rollback_compiles_nothing_and_its_steps_are_done_again(tmp_path, every_line):
    made = harmed(guarded_job(tmp_path, **ROLLBACK), bad=(7,))
    clock, beats = Clock(), []
    sheet = TimeSheet(tmp_path / TIMES, clock=clock, wall=clock.still)
    given = hooks(clock=clock, beat=lambda doing, step: beats.append(doing))
    assert timed(sheet, given, lambda hooks: Loop(made, hooks).run()).status is Status.FINISHED
    assert beats.count(Doing.RESTORING) == 2, "at the beginning, and for the rollback"
    assert beats.count(Doing.COMPILING) == 2
    found = goodput(read_sessions(tmp_path / TIMES))
    assert found.redone_s > 0 and found.unheld_s == 0
    assert found.total_s == lines_of(tmp_path / TIMES)[-1]["elapsed_s"]


def test_each_second_is_of_what_was_done_in_it(tmp_path):
    clock, path = Clock(), tmp_path / TIMES
    sheet = sheet_of(path, clock, startup_s=2.0)
    plan = [  # what begins, and how long it lasts
        (Doing.RESTORING, 3),
        (Doing.READING, 5),
        (Doing.COMPILING, 11),
        (Doing.READING, 13),
        (Doing.UPDATING, 17),
        (Doing.EVALUATING, 19),
        (Doing.EVALUATING, 23),
        (Doing.SAVING, 29),
    ]
    clock.now_s += 1  # preparing
    for step, (doing, seconds) in enumerate(plan):
        sheet.beat(doing, step)
        clock.now_s += seconds
    sheet.end("interrupted")
    last = lines_of(path)[-1]
    assert {kind: last[f"{kind}_s"] for kind in KINDS} == {
        "startup": 2 + 1 + 3,
        "compile": 11,
        "data": 5 + 13,
        "evaluation": 19 + 23,
        "save": 29,
        "update": 17,
    }
    assert last["at_unix_s"] == 1000.0 + clock.now_s and last["doing"] == Doing.SAVING


def test_a_long_session_has_few_lines(tmp_path):
    """A week of updates of a second, saved every minute."""
    clock, path = Clock(), tmp_path / TIMES
    sheet = sheet_of(path, clock)
    sheet.beat(Doing.RESTORING, 0)
    for step in range(7 * 24 * 3600):
        sheet.beat(Doing.READING, step)
        sheet.beat(Doing.UPDATING, step)
        clock.now_s += 1.0
        if step % 60 == 59:
            sheet.beat(Doing.SAVING, step + 1)
    sheet.end("finished")
    lines = lines_of(path)
    assert 500 < len(lines) < 5000
    for before, after in zip(lines, lines[1:], strict=False):
        gap_s = after["elapsed_s"] - before["elapsed_s"]
        assert gap_s <= 1.0 + max(timesheet.EVERY_S, timesheet.SHARE * after["elapsed_s"])


def test_the_half_line_that_a_kill_left_is_cut_off_and_no_other(tmp_path):
    clock, path = Clock(), tmp_path / TIMES
    sheet_of(path, clock).end("interrupted")
    whole = path.read_text()
    path.write_text(whole + '{"schema": "lab.ti')
    sheet_of(path, clock).end("finished")
    assert path.read_text().startswith(whole)
    found = lines_of(path)
    assert [line.get("ended") for line in found] == [None, "interrupted", None, "finished"]
    assert len({line["session"] for line in found}) == 2
    path.write_text("{half")
    sheet_of(path, clock).end("finished")
    assert [line.get("ended") for line in lines_of(path)] == [None, "finished"]


def test_a_session_whose_claim_is_lost_writes_nothing_more(tmp_path, every_line):
    clock, path, lost = Clock(), tmp_path / TIMES, []

    def check():
        if lost:
            raise ClaimLost("another's")

    sheet = sheet_of(path, clock, check_claim=check)
    sheet.beat(Doing.READING, 0)
    before = path.read_text()
    lost.append(True)
    sheet.beat(Doing.UPDATING, 0)
    lost.clear()
    sheet.beat(Doing.READING, 1)
    sheet.end("error")
    assert path.read_text() == before


@pytest.mark.parametrize("short", [False, True])
def test_a_full_disk_ends_the_file_by_a_warning_and_not_the_run(
    tmp_path, monkeypatch, every_line, short
):
    clock, path, said = Clock(), tmp_path / TIMES, []
    sheet = sheet_of(path, clock, warn=said.append)
    write = os.write

    def full(file, content):
        if short:
            return write(file, content[:5])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        sheet.beat(Doing.READING, 0)
        sheet.beat(Doing.UPDATING, 0)
        sheet.end("finished")
    reason = f"{path}: cannot be written: No space left on device; where time goes is not told"
    assert said == [reason]
    sheet_of(path, clock).end("finished")
    assert [line["session"] for line in lines_of(path)][1:] == [lines_of(path)[-1]["session"]] * 2


def test_a_place_that_can_not_be_written_is_said_once(tmp_path):
    said = []
    sheet = sheet_of(tmp_path / "none" / TIMES, Clock(), warn=said.append)
    sheet.beat(Doing.READING, 0)
    sheet.end("finished")
    assert len(said) == 1 and "No such file" in said[0]


def test_the_outcome_of_a_session_is_its_last_word(tmp_path):
    clock, path = Clock(), tmp_path / TIMES

    def fails(given):
        given.beat(Doing.READING, 3)
        raise LabError("no")

    with pytest.raises(LabError):
        timed(sheet_of(path, clock), hooks(), fails)
    diverged = Outcome(Status.DIVERGED, 3, "")
    assert timed(sheet_of(path, clock), hooks(), lambda given: diverged) is diverged
    ended = [line["ended"] for line in lines_of(path) if "ended" in line]
    assert ended == ["error", "diverged"]


def test_what_a_process_took_to_start_is_of_its_first_run():
    startup = Startup(3.5)
    assert [startup.take(), startup.take()] == [3.5, 0.0]
