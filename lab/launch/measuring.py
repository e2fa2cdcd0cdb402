"""Measuring programs on several workers at once, as a sweep will run them."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import IO

from lab.core.errors import LabError
from lab.launch.calibration import Measured, merged
from lab.launch.pool import shares


def measure_on_workers(
    argv: Sequence[str], names: Sequence[str], *, workers: int
) -> list[Measured]:
    """Every run's program, measured by every worker; each worker begins at another one.

    Raises LabError with the line of a worker that failed.
    """
    with contextlib.ExitStack() as stack:
        # What they say in errors goes to files: a pipe that nobody reads fills up.
        told = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(workers)]
        children = []
        for at, (cores, errors) in enumerate(zip(shares(workers), told, strict=True)):
            turned = [*names[at % len(names) :], *names[: at % len(names)]]
            children.append(stack.enter_context(_start(argv, turned, cores, errors)))
        parts = _heard(children, total=len(names) * workers)
        for child, errors in zip(children, told, strict=True):
            if child.wait():
                errors.seek(0)
                raise LabError(f"--calibrate: {_last_line(errors.read())}")
    return [merged(each) for each in parts.values()]


def _heard(children: Sequence[subprocess.Popen[str]], *, total: int) -> dict[str, list[Measured]]:
    """What the workers measure, by program; none of them is left when this ends."""
    from rich.progress import Progress

    lines: queue.Queue[str] = queue.Queue()
    listeners = [threading.Thread(target=_listen, args=(child, lines)) for child in children]
    found: dict[str, list[Measured]] = {}
    for listener in listeners:
        listener.start()
    try:
        with Progress(transient=True) as bar:
            task = bar.add_task("measuring", total=total)
            while any(listener.is_alive() for listener in listeners) or not lines.empty():
                try:
                    each = Measured(**json.loads(lines.get(timeout=0.2)))
                except queue.Empty:
                    continue
                found.setdefault(each.program, []).append(each)
                bar.advance(task)
    except BaseException:
        for child in children:
            child.kill()
        raise
    finally:
        for listener in listeners:
            listener.join()
    return found


def machine_of_workers() -> str:
    """This machine as calibration.machine says it, by a process that ends.

    Who looks at an accelerator holds it, and the workers need it.
    """
    program = "from lab.launch.calibration import machine; print(machine())"
    return output_of(["-c", program]).strip().splitlines()[-1]


def output_of(arguments: Sequence[str]) -> str:
    """What a Python process prints; raises LabError with its last line where it fails."""
    command = [sys.executable, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise LabError(_last_line(found.stderr))
    return found.stdout


def _last_line(told: str) -> str:
    lines = told.strip().splitlines() or ["a process was killed"]
    return lines[-1].removeprefix("error: ")


def _start(
    argv: Sequence[str], names: Sequence[str], cores: Sequence[int], errors: IO[str]
) -> subprocess.Popen[str]:
    given = [word for word in argv if word not in ("--calibrate", "--json")]
    command = [sys.executable, "-m", "lab.launch.plan", *given, "--measure", json.dumps(names)]
    command += ["--cores", ",".join(str(core) for core in cores)]
    pipe = subprocess.PIPE  # standard input: its end is that of this process
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True)


def _listen(child: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    for line in child.stdout or ():
        if line.startswith("{"):
            lines.put(line)
