"""Measuring programs on several workers at once, as a sweep will run them."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence

from lab.core.errors import LabError
from lab.launch.calibration import Measured, merged
from lab.launch.pool import shares


def measure_on_workers(
    argv: Sequence[str], names: Sequence[str], *, workers: int
) -> list[Measured]:
    """Every run's program, measured by every worker; each worker begins at another one.

    Raises LabError with the line of a worker that failed.
    """
    from rich.progress import Progress

    children = [
        _start(argv, [*names[at % len(names) :], *names[: at % len(names)]], cores)
        for at, cores in enumerate(shares(workers))
    ]
    lines: queue.Queue[str] = queue.Queue()
    listeners = [threading.Thread(target=_listen, args=(child, lines)) for child in children]
    found: dict[str, list[Measured]] = {}
    try:
        for listener in listeners:
            listener.start()
        with Progress(transient=True) as bar:
            task = bar.add_task("measuring", total=len(names) * workers)
            while any(listener.is_alive() for listener in listeners) or not lines.empty():
                try:
                    each = Measured(**json.loads(lines.get(timeout=0.2)))
                except queue.Empty:
                    continue
                found.setdefault(each.program, []).append(each)
                bar.advance(task)
    finally:
        for child in children:
            child.kill() if child.poll() is None else None
    for child in children:
        if child.wait():
            assert child.stderr is not None  # it is a pipe
            told = child.stderr.read().strip().splitlines()
            raise LabError(f"--calibrate: {(told or ['a worker was killed'])[-1]}")
    return [merged(parts) for parts in found.values()]


def _start(
    argv: Sequence[str], names: Sequence[str], cores: Sequence[int]
) -> subprocess.Popen[str]:
    given = [word for word in argv if word not in ("--calibrate", "--json")]
    command = [sys.executable, "-m", "lab.launch.plan", *given, "--measure", ",".join(names)]
    command += ["--cores", ",".join(str(core) for core in cores)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _listen(child: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    for line in child.stdout or ():
        if line.startswith("{"):
            lines.put(line)
