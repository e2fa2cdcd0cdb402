"""Several processes: the numbers of one, checkpoints for any number, and every way to lose one."""

import json
import re
import shutil
import signal
import socket

import numpy as np
import pytest

from lab.core.errors import ExitCode
from tests.core.checkpoints import damage
from tests.launch.commands import command, refused, wait_for_rows
from tests.launch.several import (
    ARGUMENTS,
    STEPS,
    ended,
    rows,
    run_folder,
    saved_steps,
    script,
    start_together,
    train_together,
    wait_for_end,
)

FSDP = "--config.execution.layout=fsdp"
LONG = "--config.train.duration=100000 steps"
# Sums over devices are in another order: what 24 steps at float32 made of it was below 3e-7.
TOLERANCE = 2e-6


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--processes", 2), ("--coordinator", "missing", "go together")),
        (("--coordinator", "h:1", "--process", 0), ("--processes", "missing")),
        (("--coordinator", "h", "--processes", 2, "--process", 0), ("HOST:PORT",)),
        (("--coordinator", "h:1", "--processes", 2, "--process", 2), ("--process 2", "0 to 1")),
        (("--coordinator", "h:1", "--processes", 0, "--process", 0), ("--processes 0",)),
        (("--hang-timeout-s", 0), ("--hang-timeout-s 0", "more than 0")),
    ],
)
def test_places_that_do_not_fit_are_refused(flags, words):
    from lab.core.errors import LabError
    from lab.launch.place import asked_place
    from lab.launch.train import parser

    given = parser().parse_args(["--config", "x", *map(str, flags)])
    with pytest.raises(LabError) as refusal:
        asked_place(given)
    assert all(word in str(refusal.value) for word in words)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with eight devices."""
    folder = tmp_path_factory.mktemp("alone")
    train_together(1, folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes with four devices each, every weight in eight parts."""
    folder = tmp_path_factory.mktemp("two")
    outputs = train_together(2, folder, FSDP)
    assert f"({STEPS} steps done)" in outputs[0][1]
    assert [text for _, *texts in outputs[1:] for text in texts] == ["", ""], "silent"
    return folder


def assert_same_run(found, expected):
    """The same rows, their losses to rounding."""
    assert [(r["kind"], r.get("step")) for r in found] == [
        (r["kind"], r.get("step")) for r in expected
    ]
    for row, other in zip(found, expected, strict=True):
        assert set(row) == set(other)
        for name in ("loss_nats_per_token", "loss_se_nats_per_token"):
            if name in row:
                wanted = pytest.approx(other[name], rel=TOLERANCE, abs=1e-8)
                assert row[name] == wanted, (row["step"], name)


@pytest.mark.slow
def test_two_processes_train_as_one_does(alone, two):
    assert_same_run(rows(two), rows(alone))
    assert saved_steps(two) == saved_steps(alone)
    assert rows(two)[0] == rows(alone)[0], "the header, data and counts included"
    nats = [np.load(run_folder(f) / "validation.npz")["nats_per_image"] for f in (two, alone)]
    np.testing.assert_allclose(nats[0], nats[1], rtol=1e-5)  # in the order of the split
    config = json.loads((run_folder(two) / "config.json").read_text())
    assert (config["environment"]["processes"], config["environment"]["devices"]) == (2, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "layout", "most"),
    [(4, 8, "ddp", 1), (2, 2, "fsdp_tp", 3)],  # in the second both processes hold every row
)
def test_other_numbers_and_layouts_train_as_one_does(
    tmp_path, alone, processes, devices, layout, most
):
    flags = (
        f"--config.execution.layout={layout}",
        f"--config.execution.steps_per_dispatch={most}",
    )
    train_together(processes, tmp_path, *flags, devices=devices)
    assert_same_run(rows(tmp_path), rows(alone))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, two):
    """A run of two processes, of which one got SIGTERM."""
    folder = tmp_path_factory.mktemp("stopped")
    started = start_together(2, folder, FSDP)
    wait_for_rows(folder, 9, seconds=200)
    started[1].send_signal(signal.SIGTERM)
    found = ended(started)
    assert [code for code, _, _ in found] == [ExitCode.INTERRUPTED] * 2, found
    step = saved_steps(folder)[-1]
    assert f"interrupted: saved at step {step};" in found[0][1]
    assert rows(folder)[-1]["step"] == step < STEPS
    return folder


@pytest.mark.slow
def test_all_stop_at_one_step_and_go_on_as_if_nothing_had_been(tmp_path, stopped, two):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    train_together(2, tmp_path, FSDP)
    assert rows(tmp_path) == rows(two), "bit for bit"
    assert rows(tmp_path)[-1]["params_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "layout"), [(1, 1, "ddp"), (4, 4, "fsdp"), (1, 8, "fsdp_tp")]
)
def test_a_checkpoint_of_two_processes_is_for_any_number(
    tmp_path, stopped, two, processes, devices, layout
):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    flag = f"--config.execution.layout={layout}"
    train_together(processes, tmp_path, flag, devices=devices)
    assert_same_run(rows(tmp_path), rows(two))


@pytest.mark.slow
def test_one_processs_checkpoint_is_for_two_and_damage_is_passed_over_by_both(tmp_path, alone, two):
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    as_if_killed_before_the_end(tmp_path)
    newest = saved_steps(tmp_path)[-1]
    damage(run_folder(tmp_path) / "checkpoints", newest)
    outputs = train_together(2, tmp_path, FSDP)
    (warning,) = [line for line in outputs[0][1].splitlines() if line.startswith("warning")]
    assert f"checkpoints/{newest}" in warning and "falling back to step" in warning
    assert_same_run(rows(tmp_path), rows(alone))


def as_if_killed_before_the_end(folder):
    """Drop the end of the record."""
    path = run_folder(folder) / "record.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2, 4, 16])
def test_what_eight_devices_saved_goes_on_with_others(tmp_path, tmp_path_factory, devices):
    """The same batches: another one would change the loss by a hundredth, not by 1e-6."""
    more = ("--config.train.duration=40 steps", "--config.execution.checkpoint_every_steps=20")
    base = tmp_path_factory.getbasetemp() / "eight"
    if not base.exists():
        train_together(1, base, *more, FSDP)
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    as_if_killed_before_the_end(tmp_path)
    shutil.rmtree(run_folder(tmp_path) / "checkpoints" / "40")
    train_together(1, tmp_path, *more, FSDP, devices=devices)
    losses = [
        np.array([r["loss_nats_per_token"] for r in rows(f) if r["kind"] == "train"])[20:]
        for f in (tmp_path, base)
    ]
    assert len(losses[0]) == 20
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_process_takes_the_others_along_within_half_a_minute(tmp_path, victim):
    started = start_together(2, tmp_path, FSDP, LONG)
    wait_for_rows(tmp_path, 9, seconds=200)
    started[victim].kill()
    started[victim].communicate()
    other = started[1 - victim]
    wait_for_end(other, seconds=30)
    _, err = other.communicate()
    if victim == 0:  # jax aborts where its service is gone, before Python hears of it
        assert other.returncode in (-signal.SIGABRT, ExitCode.HOST_LOST), err
        return
    assert other.returncode == ExitCode.HOST_LOST, err
    (line,) = errors(err)
    assert f"process 1 (pid {started[1].pid} on " in line and " died at step " in line


def errors(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_a_stopped_process_is_named_and_left(tmp_path, victim):
    started = start_together(2, tmp_path, FSDP, LONG)
    wait_for_rows(tmp_path, 9, seconds=200)
    started[victim].send_signal(signal.SIGSTOP)
    other = started[1 - victim]
    wait_for_end(other, seconds=120)
    started[victim].kill()
    started[victim].communicate()
    _, err = other.communicate()
    assert other.returncode == ExitCode.HANG, err
    (line,) = errors(err)
    assert f"process {victim} (pid {started[victim].pid} on " in line and "it is stopped" in line


HANGS = """
import threading
from lab.data.batches import Batches
real = Batches._batch
def hangs(self, step):
    if step == 9:
        threading.Event().wait()
    return real(self, step)
Batches._batch = hangs
"""


@pytest.mark.slow
def test_a_process_whose_data_never_come_is_named_by_all(tmp_path):
    """It is alive, its watchdog beats: it is the one that did the fewest steps."""
    hanging = {1: script(tmp_path / "hangs.py", HANGS)}
    started = start_together(2, tmp_path, "--hang-timeout-s", 6, programs=hanging)
    found = ended(started)
    assert [code for code, _, _ in found] == [ExitCode.HANG] * 2, found
    for _, _, err in found:
        (line,) = errors(err)
        assert f"process 1 (pid {started[1].pid} on " in line
        assert re.search(r"no progress for \d+ s: all wait for .*at step 9 \(reading", line)


FULL_DISK = """
import resource, signal
from lab.core import shared_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
real = shared_store.start_writing
def full(*given, **more):
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, resource.RLIM_INFINITY))
    return real(*given, **more)
shared_store.start_writing = full
"""


@pytest.mark.slow
def test_a_save_that_fails_on_one_process_fails_on_all(tmp_path):
    """Its parts do not fit on its disk: the same limit that a full one is to Orbax."""
    full = {1: script(tmp_path / "full.py", FULL_DISK)}
    found = ended(start_together(2, tmp_path, FSDP, programs=full))
    assert [code for code, _, _ in found] == [ExitCode.NOT_SAVED] * 2, found
    for _, _, err in found:
        assert "checkpoints/6: not saved: File too large" in errors(err)[0], err
    assert saved_steps(tmp_path) == []
    train_together(2, tmp_path, FSDP)
    assert saved_steps(tmp_path)[-1] == STEPS


@pytest.mark.slow
def test_devices_that_do_not_go_into_the_processes_are_refused():
    port_flags = ("--coordinator", "127.0.0.1:1", "--processes", 3, "--process", 0)
    odd = command("-m", "lab.launch.train", *ARGUMENTS, "--config.execution.devices=8", *port_flags)
    refused(odd, "config.execution.devices = 8", "multiple of --processes 3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "word"),
    [  # another run, which has another directory, and the same one with another layout
        ("--config.seed=5", "all processes of a run need the same command"),
        ("--config.execution.layout=ddp", "config.execution.layout = ddp: process 0 has fsdp"),
    ],
)
def test_processes_with_other_commands_are_refused(tmp_path, flag, word):
    """By all of them, so that no launcher starts them again."""
    other = {1: ("-c", WITH_ANOTHER.format(flag=flag))}
    found = ended(start_together(2, tmp_path, FSDP, programs=other))
    assert [code for code, _, _ in found] == [ExitCode.BAD_INPUT] * 2, found
    lines = [line for _, _, err in found for line in errors(err)]
    assert len(lines) == 2 and word in lines[1], found
    assert not list(tmp_path.glob("runs/*/*/checkpoints")), "nobody trains"


WITH_ANOTHER = """
import sys
from lab.launch.door import leave
from lab.launch.train import main
leave(lambda argv: main([*argv, {flag!r}]))
"""

NO_FOLDER = """
import pathlib
real = pathlib.Path.mkdir
def mkdir(path, *given, **more):
    if path.name == "hosts":
        raise PermissionError(13, "Permission denied", str(path))
    return real(path, *given, **more)
pathlib.Path.mkdir = mkdir
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_where_one_cannot_watch_all_leave_with_its_reason(tmp_path, victim):
    denied = {victim: script(tmp_path / "denied.py", NO_FOLDER)}
    found = ended(start_together(2, tmp_path, FSDP, programs=denied))
    assert [code for code, _, _ in found] == [ExitCode.BAD_INPUT] * 2, found
    for index, (_, _, err) in enumerate(found):
        (line,) = errors(err)
        who = "" if index == victim else f"process {victim}: "
        assert line.startswith(f"error: {who}{tmp_path}") and "hosts: Permission denied" in line


@pytest.mark.slow
def test_a_run_that_another_job_trains_is_refused_by_all_and_goes_on(tmp_path):
    first = start_together(2, tmp_path, FSDP, LONG)
    wait_for_rows(tmp_path, 9, seconds=200)
    found = ended(start_together(2, tmp_path, FSDP, LONG), timeout_s=120)
    assert [code for code, _, _ in found] == [ExitCode.BAD_INPUT] * 2, found
    for index, (_, _, err) in enumerate(found):
        (line,) = errors(err)
        assert f"hosts/{index}: process {index} (pid {first[index].pid} on " in line
    assert [process.poll() for process in first] == [None, None]
    first[0].send_signal(signal.SIGTERM)
    assert [code for code, _, _ in ended(first)] == [ExitCode.INTERRUPTED] * 2


def test_a_coordinator_that_nobody_is_or_another_is_one_line(monkeypatch):
    from lab.core.errors import LabError
    from lab.launch import hosts
    from lab.launch.place import Place

    monkeypatch.setattr(hosts, "JOIN_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(LabError, match=f"--coordinator {taken}: somebody listens there"):
            hosts.join(Place(taken, processes=2, process=0))
    with pytest.raises(LabError, match=f"--coordinator {taken}: nobody answers: Connection ref"):
        hosts.join(Place(taken, processes=2, process=1))


def test_a_cluster_is_joined_where_there_is_one(monkeypatch):
    """By jax's own rule; elsewhere jax.distributed is not started."""
    from jax._src.clusters import slurm_cluster

    from lab.launch import hosts

    joined = []
    monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda **given: joined.append(given))
    monkeypatch.setattr(hosts, "_keep_stdout_for_python", lambda: None)
    monkeypatch.setattr(hosts.jax.config, "update", lambda name, value: None)
    for name in vars(slurm_cluster):
        if name.startswith("_") and name.isupper():
            monkeypatch.delenv(getattr(slurm_cluster, name), raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    hosts.join(None)
    assert joined == []
    for name in ("_JOBID_PARAM", "_NODE_LIST", "_PROCESS_COUNT", "_PROCESS_ID"):
        monkeypatch.setenv(getattr(slurm_cluster, name), "1")
    monkeypatch.setenv(slurm_cluster._LOCAL_PROCESS_ID, "0")
    hosts.join(None)
    (given,) = joined
    assert given["heartbeat_timeout_seconds"] < 30 and "coordinator_address" not in given
