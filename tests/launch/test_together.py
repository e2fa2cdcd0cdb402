"""A sweep whose runs several hosts train as one: order, exit codes, signals; and the real thing."""

import contextlib
import signal
import socket
import sys

import psutil
import pytest

from lab.core.errors import ExitCode, LabError
from lab.launch import together
from lab.launch.door import load_config
from lab.launch.sweep import main
from tests.launch.commands import (
    TINY,
    command,
    ends,
    place,
    refused,
    rows_of,
    start,
    wait_for_rows,
)

NAMES = ("a", "b", "c")


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """sweep(*codes): the exit code of a sweep whose runs leave with these, as they are tried."""
    path = tmp_path / "sweep.py"
    path.write_text(
        "def sweep():\n"
        "    return [{'config': 'configs/elm.py:s1', 'name': n, 'seed': i,\n"
        "             'data.augmentation': 'none', 'optimizer.learning_rate': 3e-4}\n"
        "            for i, n in enumerate('abc')]\n"
    )
    tried = []

    def run(*codes, flags=()):
        waiting = list(codes)

        def train(arguments, signals):
            name = next(a for a in arguments if a.startswith("--config.name="))
            tried.append((name.partition("=")[2], arguments))
            return waiting.pop(0)

        monkeypatch.setattr(together, "_train", train)
        workdir = f"--config.execution.workdir={tmp_path}"
        code = main([str(path), "--together", workdir, *flags])
        assert not waiting, "fewer runs than codes"
        return code

    run.tried, run.path = tried, path
    return run


@pytest.mark.parametrize(
    "codes, code, tried",
    [
        ((0, 0, 0), ExitCode.DONE, "abc"),
        ((0, 1, 3), ExitCode.FAILURE, "abc"),
        ((2, 0, 0, 0), ExitCode.DONE, "abca"),  # held by another job at first
        ((0, 2, 0, 2), ExitCode.FAILURE, "abcb"),
        ((1, 2, 0, 0), ExitCode.FAILURE, "abcb"),  # what failed at first stays failed
        ((2, 0, 1, 0), ExitCode.FAILURE, "abca"),
        ((0, 75), ExitCode.INTERRUPTED, "ab"),
        ((4,), ExitCode.NOT_SAVED, "a"),
        ((5,), ExitCode.HANG, "a"),
        ((0, 6), ExitCode.HOST_LOST, "ab"),
        ((-signal.SIGABRT,), ExitCode.HOST_LOST, "a"),  # jax's own way to leave
        ((-signal.SIGKILL,), ExitCode.HOST_LOST, "a"),
    ],
)
def test_the_exit_code_of_a_run_decides_what_is_next(sweep, codes, code, tried):
    assert sweep(*codes) == code
    assert "".join(name for name, _ in sweep.tried) == tried


def test_each_run_gets_its_own_values_and_the_place_of_this_process(sweep):
    where = ("--coordinator=10.0.0.1:99", "--processes=2", "--process=1", "--hang-timeout-s=7")
    assert sweep(0, flags=(*where, "--only", "b")) == ExitCode.DONE
    ((_, arguments),) = sweep.tried
    assert arguments[:2] == ["--config", "configs/elm.py:s1"]
    assert {"--config.seed=1", "--config.optimizer.learning_rate=0.0003"} <= set(arguments)
    assert arguments[-4:-1] == list(where[:3]) and arguments[-1].startswith("--hang-timeout-s=7")


def test_a_run_that_another_job_holds_at_the_end_is_left_to_it(sweep, monkeypatch):
    monkeypatch.setattr(together, "is_claimed", lambda directory: True)
    assert sweep(0, 2, 0, 2) == ExitCode.DONE


def test_a_value_that_is_another_as_text_is_refused():
    run = load_config("configs/elm.py:s1", {"seed": 1})
    with pytest.raises(LabError) as error:
        together.arguments_of(run, {"config": "configs/elm.py:s1", "seed": 2})
    assert "another one on a command line" in str(error.value)


def test_flags_that_do_not_fit_are_refused(sweep):
    refused(command("-m", "lab.launch.sweep", sweep.path, "--together", "--workers=2"), "--workers")
    alone = ("--coordinator=a:1", "--processes=2", "--process=0")
    refused(command("-m", "lab.launch.sweep", sweep.path, *alone), "--together")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def both(folder, path, *more):
    """Two processes on this machine in the place of two hosts."""
    port = free_port()
    where = [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
    tiny = (*TINY, "--config.execution.devices=2", "--config.execution.layout=ddp", *place(folder))
    arguments = ("-m", "lab.launch.sweep", path, "--together", *tiny, *where, *more)
    return [start(*arguments, f"--process={index}") for index in (0, 1)]


@pytest.mark.slow
def test_a_run_whose_sweep_is_killed_saves_and_leaves(tmp_path):
    """No orphan goes on holding it, and a kill in between is no second signal to it."""
    steps = "--config.train.duration=100000 steps"
    path = tmp_path / "sweep.py"
    path.write_text("def sweep():\n    return [{'config': 'configs/elm.py:s1'}]\n")
    host = start("-m", "lab.launch.sweep", path, "--together", *TINY, steps, *place(tmp_path))
    wait_for_rows(tmp_path, 30, seconds=120)
    (child,) = psutil.Process(host.pid).children()
    host.kill()
    host.wait(timeout=30)
    try:
        assert not psutil.wait_procs([child], timeout=60)[1], "an orphan trains on"
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
        host.communicate(timeout=30)
    (record,) = tmp_path.glob("runs/*/*/record.jsonl")
    saved = max(int(p.name) for p in (record.parent / "checkpoints").iterdir())
    assert rows_of(record)[-1]["step"] == saved < 100000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes")
def test_two_hosts_train_a_sweep_stop_together_and_finish_it(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(
        "def sweep():\n"
        "    return [{'config': 'configs/elm.py:s1', 'name': n, 'study': 'tiny', 'seed': i}"
        " for i, n in enumerate('ab')]\n"
    )
    steps = "--config.train.duration=300 steps"
    hosts = both(tmp_path, path, steps)
    wait_for_rows(tmp_path, 50, seconds=120)
    hosts[1].send_signal(signal.SIGTERM)
    for host in hosts:
        out, err = host.communicate(timeout=120)
        assert host.returncode == ExitCode.INTERRUPTED, out + err
    for host in both(tmp_path, path, steps):
        out, err = host.communicate(timeout=300)
        assert host.returncode == ExitCode.DONE, out + err
    found = ends(tmp_path)
    assert {name: [row["status"] for row in rows] for name, rows in found.items()} == {
        "a": ["finished"],
        "b": ["finished"],
    }
