"""Training by several processes on this machine, over the loopback."""

import contextlib
import json
import socket
import time

from lab.launch.door import ROOT
from tests.launch.commands import TINY, place, start

STEPS = 24
ARGUMENTS = (
    "--config",
    "configs/elm.py:s2",
    *TINY,
    f"--config.train.duration={STEPS} steps",
    "--config.train.batch_size=16",
    "--config.train.evaluate_every_steps=10",
    "--config.data.validation_examples=40",  # no multiple of a batch
    "--config.execution.checkpoint_every_steps=6",
    "--config.execution.keep_last=9",
)
PROGRAM = ("-m", "lab.launch.train")


def free_port():
    """One that nobody listens at now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_together(processes, folder, *more, devices=8, programs=None, **environment):
    """Processes that train one run in `folder`; `programs` replace the command of some."""
    port, started = free_port(), []
    for index in range(processes):
        program = (programs or {}).get(index, PROGRAM)
        named = () if processes == 1 else ("--coordinator", f"127.0.0.1:{port}")
        named += () if processes == 1 else ("--processes", processes, "--process", index)
        count = f"--config.execution.devices={devices}"
        where = place(folder)
        started.append(start(*program, *ARGUMENTS, count, *where, *named, *more, **environment))
    return started


def ended(started, *, timeout_s=300):
    """(exit code, stdout, stderr) of each process."""
    texts = [process.communicate(timeout=timeout_s) for process in started]
    return [(p.returncode, out, err) for p, (out, err) in zip(started, texts, strict=True)]


def train_together(processes, folder, *more, **options):
    """Train to the end; asserts that all say it went well."""
    found = ended(start_together(processes, folder, *more, **options))
    assert [code for code, _, _ in found] == [0] * processes, found
    return found


def wait_for_end(process, *, seconds):
    """Seconds until a process has left; fails after so many."""
    began_s = time.monotonic()
    while process.poll() is None:
        assert time.monotonic() - began_s < seconds, f"still there after {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began_s


def run_folder(folder):
    """The one run directory."""
    (found,) = folder.glob("runs/default/*")
    return found


def rows(folder):
    """The rows of the record without the clock."""
    lines = (run_folder(folder) / "record.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "clock"} for line in lines]


def saved_steps(folder):
    """The steps that are committed."""
    return sorted(int(p.name) for p in run_folder(folder).glob("checkpoints/[0-9]*"))


def script(path, text):
    """A program that changes something and then trains: the arguments to start it."""
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    tail = "\nfrom lab.launch.door import leave\nfrom lab.launch.train import main\nleave(main)\n"
    path.write_text(head + text + tail)
    return (path,)
