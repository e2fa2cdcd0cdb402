"""What --status says of made-up run directories, and that it makes no number up."""

import io
import json

import pytest
from rich.console import Console

from lab.core.config import identity, run_directory
from lab.launch import status, status_table
from lab.launch.board import FAILURE, RunState
from lab.launch.claim import claimed
from lab.launch.goodput import Goodput
from lab.launch.status import StatusReader, cost_of
from lab.launch.status_table import clock_time, show, summary, watch
from tests.launch.test_goodput import line
from tests.models.worlds import config

STEPS = 40


def run_of(tmp_path, name, *, size="s1", **more):
    usual = {
        "name": name,
        "study": "made_up",
        "train.duration": f"{STEPS} steps",
        "execution.workdir": str(tmp_path),
    }
    return config(size, **{**usual, **more})


def write(run, *, step, loss=None, end=None, times=()):
    """A record up to a step, and the file of times."""
    directory = run_directory(run)
    directory.mkdir(parents=True, exist_ok=True)
    header = {"kind": "header", "schema": "lab.record/1", "identity": identity(run)}
    header |= {"name": run.name, "steps": STEPS, "params": {"blocks": 12, "head": 3}}
    rows = [header | {"units": {"loss": "nats/token"}}, {"kind": "train", "step": step}]
    if loss is not None:
        numbers = {"loss_nats_per_token": loss, "loss_se_nats_per_token": 0.25}
        rows.append({"kind": "evaluation", "step": step, "weights": "raw", **numbers})
    if end:
        rows.append({"kind": "end", "status": end, "step": step, "reason": f"it {end}"})
    (directory / "record.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if times:
        (directory / "time.jsonl").write_text("".join(json.dumps(row) + "\n" for row in times))
    return directory


def at_two_seconds(step):
    """Two seconds an update, of which half a second is waiting for data."""
    return [
        line("a", 0.0, None, startup=4),
        line("a", 1.0, 0, startup=5),
        line("a", 1.0 + 2 * step, step, startup=5, update=1.5 * step, data=0.5 * step),
    ]


def status_of(*runs):
    return StatusReader(runs, title="sweep.py").read()


def test_each_state_and_the_numbers_of_a_run_are_told(tmp_path):
    done = run_of(tmp_path, "done")
    diverged = run_of(tmp_path, "diverged", seed=1)
    running = run_of(tmp_path, "running", seed=2)
    failed = run_of(tmp_path, "failed", seed=3)
    waiting = run_of(tmp_path, "waiting", seed=4)
    write(done, step=STEPS, loss=1.5, end="finished", times=at_two_seconds(STEPS))
    write(diverged, step=7, end="diverged")
    directory = write(running, step=10, times=at_two_seconds(10))
    run_directory(failed).mkdir(parents=True)
    (run_directory(failed) / FAILURE).write_text("no such split\ntrace")
    with claimed(directory):
        found = status_of(done, diverged, running, failed, waiting)
    assert {str(state): count for state, count in found.counts.items()} == {
        "waiting": 1, "running": 1, "finished": 1, "diverged": 1, "failed": 1,
    }  # fmt: skip
    told = {each["name"]: each for each in found.as_json()["runs"]}
    assert (told["done"]["loss"], told["done"]["loss_se"]) == (1.5, 0.25)
    assert told["done"]["goodput"] == Goodput(startup_s=5, data_s=20, productive_s=60).as_json()
    assert told["done"]["time_left_s"] is None and told["done"]["step_s"] == 2.0
    assert (told["running"]["host"], told["running"]["doing"]) == ("h1", "updating")
    assert told["running"]["time_left_s"] == 60.0 and told["running"]["time_left_by"] == "running"
    assert told["waiting"]["time_left_s"] == 80.0 and told["waiting"]["time_left_by"] == "done"
    assert told["waiting"]["goodput"] is None and told["diverged"]["goodput"] is None
    assert told["failed"]["reason"] == "no such split" and told["failed"]["time_left_s"] is None
    whole = found.as_json()
    assert whole["running_longest_left_s"] == 60.0 and whole["waiting_work_s"] == 80.0
    assert whole["goodput"] == Goodput(startup_s=10, data_s=25, productive_s=75).as_json()
    assert whole["goodput_share"]["productive"] == round(75 / 110, 5)
    text = screen_of(found)
    states = "1 done, 1 running, 1 waiting, 1 failed, 1 diverged"
    assert f"{states}; running: 0:01:00 left; waiting: 0:01:20 of work" in text
    assert "goodput: 68.2% productive, 0.0% compile, 22.7% data" in text
    assert "9.1% startup, 0.0% lost of 0:01:50" in text
    assert "1.5000 ± 0.2500" in text and "10/40" in text and "updating, on h1" in text


def screen_of(found):
    console = Console(file=io.StringIO(), width=160, color_system=None)
    show(console, found)
    return console.file.getvalue()


def test_time_left_is_unknown_where_nothing_of_the_same_cost_tells_it(tmp_path):
    """Another width, another batch: no speed is made of theirs."""
    done = run_of(tmp_path, "done")
    write(done, step=STEPS, end="finished", times=at_two_seconds(STEPS))
    others = [
        run_of(tmp_path, "wide", size="s2"),
        run_of(tmp_path, "batch", **{"train.batch_size": 64}),
        run_of(tmp_path, "often", **{"train.evaluate_every_steps": 5}),
        run_of(tmp_path, "epochs", **{"train.duration": "3 epochs"}),
        run_of(tmp_path, "averaged", **{"optimizer.ema_decay": 0.5}),
    ]
    found = status_of(done, *others)
    assert [each.time_left_s for each in found.runs[1:]] == [None] * 5
    assert summary(found)[0].endswith("; waiting: unknown time of work")
    assert screen_of(found).count("unknown") == 6
    assert found.as_json()["waiting_work_s"] is None
    assert found.as_json()["waiting_of_unknown_time"] == 5
    known = status_of(done, run_of(tmp_path, "seed", seed=9), *others)
    assert summary(known)[0].endswith("; waiting: 0:01:20 of work (unknown for 5)")


def test_a_rate_a_seed_and_a_duration_cost_nothing(tmp_path):
    done = run_of(tmp_path, "done")
    write(done, step=STEPS, end="finished", times=at_two_seconds(STEPS))
    like = run_of(
        tmp_path,
        "like",
        seed=3,
        **{"optimizer.learning_rate": 0.5, "optimizer.weight_decay": 0.3},
        **{"train.duration": f"{2 * STEPS} steps"},
    )
    assert cost_of(like) == cost_of(done)
    assert status_of(done, like).runs[1].time_left_s == 2 * STEPS * 2.0


def test_a_run_that_was_stopped_has_its_own_speed(tmp_path):
    stopped = run_of(tmp_path, "stopped")
    write(stopped, step=30, times=at_two_seconds(30))
    (found,) = status_of(stopped).runs
    assert found.entry.state is RunState.WAITING and found.doing == ""
    assert (found.time_left_s, found.time_left_by) == (20.0, "stopped")


def test_a_bad_file_of_times_is_named_and_hides_nothing_else(tmp_path):
    run = run_of(tmp_path, "bad")
    directory = write(run, step=STEPS, loss=1.5, end="finished")
    (directory / "time.jsonl").write_text("{no\n")
    (found,) = status_of(run).runs
    assert found.entry.state is RunState.FINISHED and found.entry.loss == 1.5
    assert found.goodput is None
    other = run_of(tmp_path, "other", seed=1)
    directory = write(other, step=3)
    (directory / "time.jsonl").write_text("{no\n")
    assert "time.jsonl, line 1: not JSON" in status_of(other).runs[0].entry.reason


def test_watching_goes_on_until_all_has_ended_and_reads_an_end_once(tmp_path, monkeypatch):
    runs = [run_of(tmp_path, "a"), run_of(tmp_path, "b", seed=1)]
    write(runs[0], step=STEPS, loss=1.5, end="finished")
    reads, naps, read = [], [], status.read_status

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 2:
            write(runs[1], step=STEPS, loss=2.5, end="finished")

    def counted(run, directory):
        reads.append(run.name)
        return read(run, directory)

    monkeypatch.setattr(status, "read_status", counted)
    monkeypatch.setattr(status_table.time, "sleep", nap)
    console = Console(file=io.StringIO(), width=160, color_system=None)
    watch(console, StatusReader(runs, title="sweep.py"), refresh_s=0.5)
    assert naps == [0.5, 0.5]
    assert reads == ["a", "b", "b", "b"]
    text = console.file.getvalue()
    assert text.count("1 done, 0 running, 1 waiting") == 2
    assert text.count("2 done, 0 running, 0 waiting") == 1


def test_ctrl_c_ends_watching_with_the_table(tmp_path, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(status_table.time, "sleep", interrupt)
    for terminal in (False, True):
        console = Console(file=io.StringIO(), width=160, color_system=None, force_terminal=terminal)
        watch(console, StatusReader([run_of(tmp_path, "a")], title="sweep.py"))
        assert "│ a   │ waiting │" in console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (1e6, "277:46:40")],
)
def test_times_are_hours_minutes_and_seconds(seconds, shown):
    assert clock_time(seconds) == shown
