"""One run: SIGTERM, Ctrl-C, a second signal, SIGKILL, a damaged checkpoint; who holds a run."""

import json
import signal
import subprocess
import sys
import time

import pytest

from lab.core.errors import ExitCode
from lab.launch.claim import claimed, is_claimed
from lab.launch.signals import StopSignal
from tests.launch.commands import (
    TINY,
    command,
    environment,
    only,
    place,
    rows_of,
    start,
    wait_for_rows,
)

STEPS = 400
SAVES = "--config.execution.checkpoint_every_steps=20"  # a save takes as long as 50 steps


def train_arguments(folder, steps=STEPS, *more):
    config = ("-m", "lab.launch.train", "--config", "configs/elm.py:s2")
    return (*config, *TINY, SAVES, f"--config.train.duration={steps} steps", *place(folder), *more)


def record_of(folder):
    return only(folder, "runs/default/*/record.jsonl")


def steps_of(folder):
    checkpoints = only(folder, "runs/default/*/checkpoints")
    return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal())


def truncate_newest(folder):
    """Cut the largest file of the newest step in half; returns the step."""
    newest = steps_of(folder)[-1]
    files = only(folder, f"runs/default/*/checkpoints/{newest}").rglob("*")
    largest = max((p for p in files if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    return newest


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The record of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    result = command(*train_arguments(folder))
    assert result.returncode == ExitCode.DONE, result.stderr
    return rows_of(record_of(folder))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_and_the_run_ends_as_an_undisturbed_one(
    tmp_path, straight, number
):
    process = start(*train_arguments(tmp_path))
    wait_for_rows(tmp_path, 20)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED, err
    saved = steps_of(tmp_path)[-1]
    assert 0 < saved < STEPS
    assert f"interrupted: saved at step {saved}; the same command goes on" in out
    assert rows_of(record_of(tmp_path))[-1]["step"] == saved, "no row ahead of the save or behind"
    again = command(*train_arguments(tmp_path))
    assert again.returncode == ExitCode.DONE, again.stderr
    assert rows_of(record_of(tmp_path)) == straight
    assert straight[-1]["params_sha256"]


def test_a_damaged_checkpoint_and_half_a_line_end_as_an_undisturbed_run(tmp_path, straight):
    process = start(*train_arguments(tmp_path))
    wait_for_rows(tmp_path, 80)
    process.kill()
    process.communicate(timeout=30)
    before = steps_of(tmp_path)
    assert len(before) > 1
    newest = truncate_newest(tmp_path)
    with open(record_of(tmp_path), "a") as file:
        file.write('{"kind": "train", "step": 4')
    result = command(*train_arguments(tmp_path))
    assert result.returncode == ExitCode.DONE, result.stderr
    (warning,) = [line for line in result.stdout.splitlines() if line.startswith("warning")]
    assert f"checkpoints/{newest}" in warning and f"falling back to step {before[-2]}" in warning
    assert rows_of(record_of(tmp_path)) == straight


def test_a_second_signal_leaves_at_once_and_nothing_saved_is_lost(tmp_path):
    process = start(*train_arguments(tmp_path, 100000))
    wait_for_rows(tmp_path, 60)
    process.send_signal(signal.SIGSTOP)  # so that it cannot answer between the two
    before = steps_of(tmp_path)[-1]
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGTERM, -signal.SIGINT, ExitCode.INTERRUPTED)
    assert steps_of(tmp_path)[-1] >= before


@pytest.mark.parametrize("hook", ["None", "lambda: os.write(1, b'second')"])
def test_the_second_signal_does_not_wait_for_the_program(hook):
    """The program never looks whether a signal came."""
    script = (
        "import os, time; from lab.launch.signals import StopSignal\n"
        f"with StopSignal({hook}) as signals:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        time.sleep(0.02)\n"
        "        print('came' if signals.came else '', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    while process.stdout.readline() != "came\n":
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=5)
    assert process.returncode == -signal.SIGTERM
    assert ("second" in out) == (hook != "None")


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignal() as signals:
        assert signal.getsignal(signal.SIGTERM) != before[0]
        signals.stop()
    assert signals.came
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_signal_before_jax_is_imported_is_an_interruption_too(tmp_path):
    """Whatever the moment, a launcher reads "start me again"."""
    process = start("-X", "importtime", *train_arguments(tmp_path))
    for line in process.stderr:
        if "jax" in line:
            break
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "interrupted: before the first step" in out
    assert not list(tmp_path.glob("runs/*/*/checkpoints/*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_data_are_prepared_leaves_at_once_and_nothing_behind(tmp_path, number):
    """200,000 images take minutes; the draft appears when they are begun."""
    many = "--config.data.train_examples=200000"
    process = start(*train_arguments(tmp_path, STEPS, many))
    wait_for_draft(tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert "interrupted: before the first step; the same command goes on from there" in out
    assert err == ""
    assert [p.suffix for p in (tmp_path / "data" / ".preparing").iterdir()] == [".lock"]
    assert [p.suffix for p in (tmp_path / "data").rglob("*") if p.is_file()] == [".lock"]
    directory = only(tmp_path, "runs/default/*")
    assert json.loads((directory / "config.json").read_text())["identity"] == directory.name
    assert not list(directory.glob("*.tmp")) and not (directory / "checkpoints").exists()
    assert not (directory / "record.jsonl").exists() and not is_claimed(directory)


def test_a_signal_to_a_sweep_whose_workers_prepare_and_wait_leaves_at_once(tmp_path):
    """One worker makes the images, the other waits for them."""
    path = tmp_path / "sweep.py"
    path.write_text(
        "def sweep():\n"
        "    return [{'config': 'configs/elm.py:s1', 'name': n, 'seed': i}"
        " for i, n in enumerate('ab')]\n"
    )
    more = (*TINY, *place(tmp_path), "--config.data.train_examples=200000", "--workers", "2")
    process = start("-m", "lab.launch.sweep", path, *more)
    wait_for_draft(tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("runs/default/*/config.json"))) == 2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert out.count("interrupted") == 2, "each run says so"
    assert [p.suffix for p in (tmp_path / "data" / ".preparing").iterdir()] == [".lock"]
    assert not list(tmp_path.glob("runs/default/*/record.jsonl"))
    assert not list(tmp_path.glob("runs/default/*/failure.txt"))


def wait_for_draft(folder):
    """Wait until a data set is being made."""
    wait_until(lambda: any(p.is_dir() for p in folder.glob("data/.preparing/*")))


def wait_until(holds, *, seconds=60):
    for _ in range(seconds * 20):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"not so after {seconds} s")


def test_a_claim_is_exclusive_and_ends_with_its_block(tmp_path):
    assert not is_claimed(tmp_path / "run")
    with claimed(tmp_path / "run") as ours:
        assert ours and is_claimed(tmp_path / "run")
        with claimed(tmp_path / "run") as again:
            assert not again
        with claimed(tmp_path / "other") as other:
            assert other
        assert is_claimed(tmp_path / "run"), "the refused one must not free it"
    assert not is_claimed(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "run"):
        raise ZeroDivisionError
    assert not is_claimed(tmp_path / "run")


def test_looking_at_a_claim_does_not_take_it(tmp_path):
    """Many lookers: the one who claims still gets it."""
    looker = (
        "import pathlib, sys; from lab.launch.claim import is_claimed\n"
        "print('ready', flush=True)\n"
        "while True: is_claimed(pathlib.Path(sys.argv[1]))\n"
    )
    with claimed(tmp_path):
        pass
    arguments = [sys.executable, "-c", looker, str(tmp_path)]
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        taken = 0
        for _ in range(50):
            with claimed(tmp_path) as ours:
                taken += ours
                time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    assert taken == 50


def test_a_held_run_is_refused_and_a_dead_holder_holds_nothing(tmp_path):
    process = start(*train_arguments(tmp_path, 100000))
    wait_for_rows(tmp_path, 5)
    directory = record_of(tmp_path).parent
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


def test_a_divergence_has_its_own_code_one_line_and_no_later_checkpoint(tmp_path):
    wild = (
        "--config.optimizer.learning_rate=1e9",
        "--config.optimizer.clip_norm=0",
        "--config.train.explode_factor=1.2",
        "--config.execution.checkpoint_every_steps=1",
        "--config.execution.keep_every_steps=1",
    )
    for _ in range(2):  # starting it again says the same and trains nothing
        result = command(*train_arguments(tmp_path, 40, *wild))
        assert result.returncode == ExitCode.DIVERGED
        (line,) = result.stderr.strip().splitlines()
        for word in ("diverged at step ", "learning rate ", "gradient norm ", "good checkpoint"):
            assert word in line
        at = int(line.partition("diverged at step ")[2].partition(":")[0])
        good = int(line.rpartition(" ")[2])
        assert steps_of(tmp_path)[-1] == good < at
        end = rows_of(record_of(tmp_path))[-1]
        assert (end["kind"], end["status"]) == ("end", "diverged")
        assert json.dumps(end["reason"]).strip('"') in line
