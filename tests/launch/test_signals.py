"""SIGTERM, a second signal, SIGKILL; one run and sweeps of processes."""

import json
import signal
import textwrap
import time

import pytest

from lab.core.errors import ExitCode
from lab.launch.claim import claimed, is_claimed
from tests.launch.commands import TINY, command, only, start

SWEEP = textwrap.dedent(
    """
    def sweep():
        sizes = ["s1", "s2", "s3"]
        common = {{"study": "tiny"}}
        return [
            {{"config": f"configs/elm.py:{{s}}", "name": s, **common, {more}}} for s in sizes
        ]
    """
)


def place(folder):
    return [
        f"--config.execution.workdir={folder / 'runs'}",
        f"--config.data.data_dir={folder}/data",
    ]


def train_arguments(folder, steps):
    config = ("-m", "lab.launch.train", "--config", "configs/elm.py:s2")
    return (*config, *TINY, f"--config.train.duration={steps} steps", *place(folder))


def sweep_arguments(folder, *, steps, more=""):
    path = folder / "sweep.py"
    path.write_text(SWEEP.format(more=more))
    tiny = (*TINY, f"--config.train.duration={steps} steps", *place(folder))
    return ("-m", "lab.launch.sweep", path, *tiny)


def wait_for_rows(folder, count, pattern="runs/*/*/record.jsonl", seconds=60):
    """Wait until some record has that many rows."""
    for _ in range(seconds * 20):
        paths = list(folder.glob(pattern))
        if any(len(p.read_text().splitlines()) >= count for p in paths):
            return
        time.sleep(0.05)
    raise AssertionError(f"no record of {count} rows after {seconds} s")


def ends(folder):
    """name -> end rows of every record."""
    found = {}
    for path in folder.glob("runs/*/*/record.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[rows[0]["name"]] = [row for row in rows if row["kind"] == "end"]
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_and_the_run_goes_on(tmp_path, number):
    process = start(*train_arguments(tmp_path, 3000))
    wait_for_rows(tmp_path, 20)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert "interrupted: saved at step" in out
    folder = only(tmp_path, "runs/default/*/checkpoints")
    saved = max(int(p.name) for p in folder.iterdir())
    assert f"saved at step {saved}" in out
    rows = only(tmp_path, "runs/default/*/record.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == saved, "no row is ahead of the checkpoint or behind"


def test_a_held_run_is_refused_and_a_dead_holder_holds_nothing(tmp_path):
    process = start(*train_arguments(tmp_path, 100000))
    wait_for_rows(tmp_path, 5)
    directory = only(tmp_path, "runs/default/*/record.jsonl").parent
    assert is_claimed(directory)
    with claimed(directory) as ours:
        assert not ours
    result = command(*train_arguments(tmp_path, 100000))
    assert result.returncode == ExitCode.BAD_INPUT
    assert "another process is training this run" in result.stderr
    process.kill()
    process.communicate(timeout=30)
    assert not is_claimed(directory)
    with claimed(directory) as ours:
        assert ours


def test_a_sweep_of_two_workers_runs_each_once_and_says_so(tmp_path):
    arguments = sweep_arguments(tmp_path, steps=8)
    result = command(*arguments, "--workers", "2")
    assert result.returncode == ExitCode.DONE, result.stderr
    assert {name: len(rows) for name, rows in ends(tmp_path).items()} == {"s1": 1, "s2": 1, "s3": 1}
    status = json.loads(command(*arguments, "--status", "--json").stdout)
    assert [(e["name"], e["state"], e["step"]) for e in status] == [
        (f"s{i}", "finished", 8) for i in (1, 2, 3)
    ]
    assert all(entry["loss_nats_per_token"] > 0 for entry in status)


def test_a_failed_run_is_reported_and_does_not_stop_the_others(tmp_path):
    more = '"data.train_split": "train" if s != "s2" else "trian"'
    arguments = sweep_arguments(tmp_path, steps=6, more=more)
    result = command(*arguments)
    assert result.returncode == ExitCode.FAILURE
    assert "s2 failed" in result.stdout and "trian" in result.stdout
    assert set(ends(tmp_path)) == {"s1", "s3"}
    status = json.loads(command(*arguments, "--status", "--json").stdout)
    assert [entry["state"] for entry in status] == ["finished", "failed", "finished"]
    assert "trian" in status[1]["reason"]


@pytest.mark.slow
def test_sigterm_to_a_sweep_saves_all_and_the_same_command_finishes(tmp_path):
    arguments = sweep_arguments(tmp_path, steps=4000)
    process = start(*arguments, "--workers", "2")
    wait_for_rows(tmp_path, 30)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert not any(rows for rows in ends(tmp_path).values())
    assert command(*arguments, "--workers", "2").returncode == ExitCode.DONE
    assert all(len(rows) == 1 for rows in ends(tmp_path).values())


@pytest.mark.slow
def test_two_sweeps_at_once_train_each_run_once(tmp_path):
    arguments = sweep_arguments(tmp_path, steps=400)
    both = [start(*arguments, "--workers", "2") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=240)
        assert process.returncode == ExitCode.DONE, err
    assert {name: len(rows) for name, rows in ends(tmp_path).items()} == {"s1": 1, "s2": 1, "s3": 1}


@pytest.mark.slow
def test_a_ladder_killed_ten_times_ends_the_same(tmp_path):
    often = ["--config.train.log_every_steps=10", "--config.execution.checkpoint_every_steps=20"]
    result = command(
        *("tools/kill_ladder.py", "--kills", "10", "--seed", "0", "--json"),
        *("--workdir", tmp_path, "--scale", "0.05", *often),
        timeout_s=1500,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    found = json.loads(result.stdout)
    assert found["kills"] == 10 and len(found["runs"]) == 15
