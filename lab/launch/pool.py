"""A sweep's workers as processes, and the live table of what they do."""

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console

from lab.core.config import AnyRun
from lab.core.cores import usable_cores
from lab.launch.live import SweepView
from lab.launch.signals import StopSignal


def run_pool(
    runs: Sequence[AnyRun],
    argv: Sequence[str],
    *,
    workers: int,
    title: str,
    progress_on_stderr: bool,
) -> bool:
    """Run the sweep on `workers` processes and show it; True where a signal stopped it.

    Each worker gets its own share of the cores: small models do not fill two cores, and two runs
    side by side do. After a first signal the workers save; a second one kills them.
    """
    console = Console(stderr=progress_on_stderr)
    children: list[subprocess.Popen[str]] = []
    with StopSignal(at_second=lambda: _kill(children)) as signals:
        children += [_start(argv, cores) for cores in shares(workers)]
        try:
            with SweepView(console, runs, title=title) as view:
                _watch(children, view, signals)
                for child in children:
                    if child.wait() < 0 and not signals.came:
                        view.say(f"[yellow]warning:[/] a worker was killed by {_signal(child)}")
        finally:
            _kill(children)
            for child in children:
                child.wait()
                for pipe in (child.stdin, child.stdout):
                    if pipe is not None:
                        pipe.close()
        return signals.came


def _kill(children: Sequence[subprocess.Popen[str]]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()


def _signal(child: subprocess.Popen[str]) -> str:
    return signal.Signals(-child.returncode).name


def _watch(children: Sequence[subprocess.Popen[str]], view: SweepView, signals: StopSignal) -> None:
    """Show all that the workers say, to the last line of the last of them."""
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    listeners = [
        threading.Thread(target=_listen, args=(child.stdout, messages), daemon=True)
        for child in children
    ]
    for listener in listeners:
        listener.start()
    told = False
    while any(listener.is_alive() for listener in listeners) or not messages.empty():
        if signals.came and not told:
            told = True
            view.say("stopping: each run saves first (a second Ctrl-C leaves at once)")
            for child in children:  # no signal: a second one, where a launcher tells all, kills
                if child.stdin is not None:
                    child.stdin.close()
        try:
            view.hear(messages.get(timeout=0.2))
        except queue.Empty:
            view.refresh()


def _start(argv: Sequence[str], cores: Sequence[int]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lab.launch.sweep", *argv, "--worker"]
    command += ["--cores", ",".join(str(core) for core in cores)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the parent only, which passes it on
    )


def shares(workers: int) -> list[list[int]]:
    """The cores of this process dealt to the workers; none where there are too few to share."""
    here = usable_cores()
    if workers > len(here):
        return [[] for _ in range(workers)]
    return [here[i::workers] for i in range(workers)]


def _listen(pipe: TextIO | None, messages: queue.Queue[dict[str, Any]]) -> None:
    for line in pipe or ():
        try:
            message = json.loads(line)
        except ValueError:
            continue  # a library's own print
        if isinstance(message, dict) and "run" in message:
            messages.put(message)
