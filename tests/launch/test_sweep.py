"""Sweeps of processes: each run once, failures, signals, SIGKILL, two sweeps at once."""

import json
import os
import signal
import textwrap
import time

import psutil
import pytest

from lab.core.errors import ExitCode
from tests.launch.commands import TINY, command, ends, place, refused, rows_of, start, wait_for_rows

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
SELDOM = "--config.execution.checkpoint_every_steps=50"  # a save takes as long as 50 steps
ONCE = {"s1": 1, "s2": 1, "s3": 1}


def sweep_arguments(folder, *, steps, more=""):
    path = folder / "sweep.py"
    path.write_text(SWEEP.format(more=more))
    tiny = (*TINY, f"--config.train.duration={steps} steps", *place(folder))
    return ("-m", "lab.launch.sweep", path, *tiny)


def counts(folder):
    return {name: len(rows) for name, rows in ends(folder).items()}


def records(folder):
    found = [rows_of(path) for path in folder.glob("runs/*/*/record.jsonl")]
    return {rows[0]["name"]: rows for rows in found}


def status_of(arguments):
    return json.loads(command(*arguments, "--status", "--json").stdout)


def test_two_workers_run_each_once_and_say_so(tmp_path):
    arguments = sweep_arguments(tmp_path, steps=8)
    result = command(*arguments, "--workers", "2", "--json")
    assert result.returncode == ExitCode.DONE, result.stderr
    assert counts(tmp_path) == ONCE
    status = json.loads(result.stdout)
    assert status == status_of(arguments)
    assert status["counts"]["finished"] == 3
    assert [(e["name"], e["state"], e["step"]) for e in status["runs"]] == [
        (f"s{i}", "finished", 8) for i in (1, 2, 3)
    ]
    assert all(entry["loss"] > 0 for entry in status["runs"])
    for entry in status["runs"]:
        spent = entry["goodput"]
        assert spent["productive_s"] > 0 and spent["compile_s"] > 0 and spent["startup_s"] > 0
        assert spent["redone_s"] == spent["unheld_s"] == 0
    assert "s2: finished" in result.stderr, "progress stands beside the JSON"
    before = records(tmp_path)
    table = command(*arguments, "--status").stdout
    assert table.count("finished") == 3 and "8/8" in table
    assert command(*arguments, "--workers", "2").returncode == ExitCode.DONE
    assert records(tmp_path) == before


def test_a_failed_and_a_diverged_run_are_reported_once_and_stop_no_other(tmp_path):
    """The reason holds what would be markup of the terminal's library."""
    more = (
        '"data.train_split": "train" if s != "s2" else "[/b]trian",'
        '"optimizer.learning_rate": 0.01 if s != "s1" else 1e9,'
        '"optimizer.clip_norm": 0.0, "train.explode_factor": 1.2'
    )
    arguments = sweep_arguments(tmp_path, steps=6, more=more)
    result = command(*arguments, "--workers", "2")
    assert result.returncode == ExitCode.FAILURE, result.stderr
    assert result.stdout.count("s2 failed: ") == 1, "the other worker must not try it again"
    assert "[/b]trian" in result.stdout
    assert {name: rows[0]["status"] for name, rows in ends(tmp_path).items()} == {
        "s1": "diverged",
        "s3": "finished",
    }
    status = status_of(arguments)["runs"]
    assert [entry["state"] for entry in status] == ["diverged", "failed", "finished"]
    assert "gradient norm" in status[0]["reason"] and "[/b]trian" in status[1]["reason"]
    again = command(*arguments, "--workers", "1")
    assert again.returncode == ExitCode.FAILURE
    assert again.stdout.count("s2 failed: ") == 1, "started again, it is tried again"


@pytest.mark.slow
def test_a_second_sweep_does_not_try_again_what_failed_under_the_first(tmp_path):
    more = '"data.train_split": "train" if s != "s1" else "trian"'
    arguments = (*sweep_arguments(tmp_path, steps=100000, more=more), SELDOM)
    first = start(*arguments)
    wait_for_rows(tmp_path, 30)  # of the second run; the first one has failed
    second = start(*arguments)
    time.sleep(10)  # it would have claimed a run
    outputs = []
    for process in (second, first):
        process.send_signal(signal.SIGTERM)
        outputs.append(process.communicate(timeout=60)[0])
        assert process.returncode == ExitCode.INTERRUPTED
    assert [out.count("s1 failed: ") for out in outputs] == [0, 1]
    assert [entry["state"] for entry in status_of(arguments)["runs"]] == [
        "failed",
        "waiting",
        "waiting",
    ]


def test_a_bad_sweep_is_refused_in_one_line(tmp_path):
    path = tmp_path / "sweep.py"
    bad = {
        'return [{"seed": 1}]': ['a run without "config"', "seed"],
        'return [{"config": "configs/elm.py:s1", "optimiser.beta1": 0.5}]': ['"optimizer"'],
        'return [{"config": "configs/elm.py:s1"}] * 2': ["two runs of one identity"],
        'return [{"config": "configs/elm.py:s1", "seed": i} for i in (0, 1)]': ["one name"],
        "return [": ["sweep.py, line 2", "never closed"],
    }
    for body, words in bad.items():
        path.write_text(f"def sweep():\n    {body}\n")
        refused(command("-m", "lab.launch.sweep", path, "--list"), *words)
    arguments = sweep_arguments(tmp_path, steps=4)
    refused(command(*arguments, "--only", "s9"), "--only s9", "s1, s2, s3")
    refused(command(*arguments, "--workers", "0"), "--workers 0")
    refused(command(*arguments, "--statsu"), 'did you mean "--status"')
    refused(command(*arguments, "--watch"), "--watch: of use with --status")
    refused(command(*arguments, "--status", "--watch", "--json"), "--watch", "without --json")
    refused(command(*arguments[:2], "lab/core/units.py", "--list"), "no function sweep()")


def test_sigkill_of_the_only_worker_is_said_and_the_same_command_finishes(tmp_path):
    arguments = (*sweep_arguments(tmp_path, steps=150), SELDOM)
    process = start(*arguments)
    wait_for_rows(tmp_path, 60)
    (worker,) = psutil.Process(process.pid).children(recursive=True)
    worker.kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.FAILURE, err
    assert "a worker was killed by SIGKILL" in out
    assert command(*arguments).returncode == ExitCode.DONE
    assert counts(tmp_path) == ONCE
    steps = [row["step"] for row in records(tmp_path)["s1"] if row["kind"] == "train"]
    assert steps == list(range(1, 151)), "no row twice, none missing"


@pytest.mark.slow
def test_sigterm_to_a_sweep_saves_all_and_the_same_command_finishes(tmp_path):
    arguments = (*sweep_arguments(tmp_path, steps=1000), SELDOM)
    process = start(*arguments, "--workers", "2")
    wait_for_rows(tmp_path, 30)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert not any(ends(tmp_path).values())
    for path in tmp_path.glob("runs/*/*/record.jsonl"):
        saved = max(int(p.name) for p in (path.parent / "checkpoints").iterdir())
        assert rows_of(path)[-1]["step"] == saved
    assert command(*arguments, "--workers", "2").returncode == ExitCode.DONE
    assert counts(tmp_path) == ONCE


def two_workers(folder):
    """A long sweep in the background, and its workers when both have begun."""
    process = start(*sweep_arguments(folder, steps=100000), "--workers", "2")
    wait_for_rows(folder, 30)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == 2
    return process, workers


@pytest.mark.slow
def test_a_second_signal_takes_the_workers_along(tmp_path):
    process, workers = two_workers(tmp_path)
    for worker in workers:
        os.kill(worker.pid, signal.SIGSTOP)  # they cannot answer the first signal
    process.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    assert process.poll() is None, "the first signal waits for the workers"
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    assert process.returncode == -signal.SIGTERM
    _, alive = psutil.wait_procs(workers, timeout=10)
    for worker in alive:
        worker.kill()  # a stopped one would stay for ever
    process.communicate(timeout=30)
    assert not alive


@pytest.mark.slow
def test_when_the_parent_is_killed_its_workers_save_and_leave(tmp_path):
    process, workers = two_workers(tmp_path)
    process.kill()
    process.communicate(timeout=30)
    assert not psutil.wait_procs(workers, timeout=30)[1]
    assert not any(ends(tmp_path).values())
    for path in tmp_path.glob("runs/*/*/record.jsonl"):
        saved = max(int(p.name) for p in (path.parent / "checkpoints").iterdir())
        assert rows_of(path)[-1]["step"] == saved
    assert not list(tmp_path.glob("runs/*/*/failure.txt"))


@pytest.mark.slow
def test_two_sweeps_at_once_train_each_run_once(tmp_path):
    arguments = sweep_arguments(tmp_path, steps=400)
    both = [start(*arguments, "--workers", "2") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=240)
        assert process.returncode == ExitCode.DONE, err
    assert counts(tmp_path) == ONCE
    for rows in records(tmp_path).values():
        steps = [row["step"] for row in rows if row["kind"] == "train"]
        assert steps == list(range(1, 401))
