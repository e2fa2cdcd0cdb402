"""Machines of one sweep that live on this one: started, killed, stopped and woken up.

Each has a name of its own and takes leases as if it were alone on it: file locks, which die with
their holder, tell it nothing of the others. Leases are short, so that a round takes a minute.
"""

import dataclasses
import os
import pathlib
import random
import subprocess
import sys
from collections.abc import Callable, Sequence

import psutil

ROOT = pathlib.Path(__file__).resolve().parents[1]
RENEW_S, EXPIRY_S = 0.3, 3.0
GONE_S = 30.0  # for processes to leave
PATCH = f"""
import os
from lab.launch import claim, lease, timesheet
claim.machine = lease.machine = lambda: os.environ["CHAOS_MACHINE"]
claim._lock = lambda file: True
claim.RENEW_S, claim.EXPIRY_S, claim._LOOK_S = {RENEW_S}, {EXPIRY_S}, 0.05
timesheet.EVERY_S, timesheet.SHARE = 0.2, 0.0
"""


@dataclasses.dataclass
class Machine:
    """A sweep command with one worker on one core."""

    name: str
    process: subprocess.Popen[bytes]
    wakes_s: float | None = None  # when one that stands still goes on, by the caller's clock

    @property
    def is_alive(self) -> bool:
        """Whether its command runs, or stands still."""
        return self.process.poll() is None

    def tree(self) -> list[psutil.Process]:
        """The command and its worker."""
        try:
            command = psutil.Process(self.process.pid)
            return [command, *command.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        """Its worker, where it has begun."""
        return self.tree()[1:]

    def works_as(self, pids: set[int]) -> bool:
        """Whether its worker is one of these processes."""
        return any(worker.pid in pids for worker in self.workers())


def each_of(processes: Sequence[psutil.Process], call: Callable[[psutil.Process], None]) -> None:
    """Do it to all that are there."""
    for process in processes:
        try:
            call(process)
        except psutil.NoSuchProcess:
            continue  # it has left by itself


def dies(machine: Machine, chance: random.Random) -> float:
    """Power fails: SIGKILL to all of it."""
    tree = machine.tree()
    each_of(tree[:1], lambda process: process.suspend())  # so that it starts nothing more
    each_of([*tree, *machine.workers()], lambda process: process.kill())
    return 0.0


def loses_worker(machine: Machine, chance: random.Random) -> float:
    """SIGKILL to the process that trains."""
    each_of(machine.workers(), lambda process: process.kill())
    return 0.0


def loses_launcher(machine: Machine, chance: random.Random) -> float:
    """SIGKILL to the command: its worker must save and leave."""
    each_of(machine.tree()[:1], lambda process: process.kill())
    return 0.0


def is_told(machine: Machine, chance: random.Random) -> float:
    """SIGTERM, as before a preemption."""
    each_of(machine.tree()[:1], lambda process: process.terminate())
    return 0.0


def stands_still(machine: Machine, chance: random.Random) -> float:
    """SIGSTOP for longer than its lease lasts, then SIGCONT; for how many seconds."""
    each_of(machine.tree(), lambda process: process.suspend())
    return EXPIRY_S * chance.uniform(1.2, 3.0)


def wakes(machine: Machine) -> None:
    """It goes on where it stood."""
    machine.wakes_s = None
    each_of(machine.tree(), lambda process: process.resume())


DISTURBANCES: dict[str, Callable[[Machine, random.Random], float]] = {
    "kill-machine": dies,
    "kill-worker": loses_worker,
    "kill-launcher": loses_launcher,
    "sigterm": is_told,
    "stall": stands_still,
}


class Site:
    """Where the machines of one round are started, and found again."""

    def __init__(self, folder: pathlib.Path, arguments: Sequence[str]) -> None:
        """`arguments` are those of the sweep command; `folder` is the round's own."""
        self.token = f"{os.getpid()} {folder}"
        self._arguments = arguments
        self._said = folder / "said"
        self._patch = folder / "patch"
        for made in (self._said, self._patch):
            made.mkdir(parents=True, exist_ok=True)
        (self._patch / "sitecustomize.py").write_text(PATCH, encoding="utf-8")
        self._begun = 0

    def start(self) -> Machine:
        """A machine that was never there before."""
        name, cores = f"m{self._begun}", sorted(os.sched_getaffinity(0))
        core = cores[self._begun % len(cores)]
        self._begun += 1
        kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "TFDS_DATA_DIR")}
        with open(self._said / name, "w", encoding="utf-8") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "lab.launch.sweep", *self._arguments],
                cwd=ROOT,
                env={
                    **kept,
                    "JAX_PLATFORMS": "cpu",
                    "PYTHONPATH": f"{self._patch}{os.pathsep}{ROOT}",
                    "CHAOS_MACHINE": name,
                    "CHAOS_ROUND": self.token,
                },
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # where one of ours is stopped, a shell hangs it up
                preexec_fn=lambda: os.sched_setaffinity(0, [core]),  # one number of threads
            )
        return Machine(name, process)

    def processes(self) -> list[psutil.Process]:
        """All that a machine of this round started and that still is there."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("CHAOS_ROUND") == self.token:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue  # not ours, or no more
        return found

    def end(self) -> None:
        """End all at once."""
        each_of(self.processes(), lambda process: process.kill())

    def orphans(self) -> list[str]:
        """What does not leave by itself, and is ended now."""
        _, alive = psutil.wait_procs(self.processes(), timeout=GONE_S)
        lines = []
        for process in alive:
            try:
                lines.append(f"process {process.pid}: {' '.join(process.cmdline()[1:4])}")
            except psutil.NoSuchProcess:
                continue
        each_of(alive, lambda process: process.kill())
        return lines
