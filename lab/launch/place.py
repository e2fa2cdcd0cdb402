"""The flags that name a process among several; read before jax is imported."""

import argparse
import dataclasses

from lab.core.errors import LabError


@dataclasses.dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and where they meet."""

    coordinator: str
    processes: int
    process: int


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that several processes may run together."""
    add = parser.add_argument
    add("--coordinator", metavar="HOST:PORT", help="where process 0 of several listens")
    add("--processes", type=int, metavar="N", help="how many processes train together")
    add("--process", type=int, metavar="I", help="which of them this is, from 0")
    add(
        "--hang-timeout-s",
        type=float,
        default=90.0,
        metavar="S",
        help="of several processes: leave after so long without progress, and ten times as long "
        "without any while compiling, restoring or saving (90)",
    )


def asked_place(flags: argparse.Namespace) -> Place | None:
    """What the flags say; None where they say nothing. Raises LabError for what does not fit."""
    given = {
        "--coordinator": flags.coordinator,
        "--processes": flags.processes,
        "--process": flags.process,
    }
    if flags.hang_timeout_s <= 0:
        raise LabError(f"--hang-timeout-s {flags.hang_timeout_s:g}: more than 0 is expected")
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise LabError(f"{missing[0]}: missing; {', '.join(given)} go together")
    host, _, port = flags.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise LabError(f"--coordinator {flags.coordinator}: HOST:PORT is expected")
    if flags.processes < 1:
        raise LabError(f"--processes {flags.processes}: at least 1")
    if not 0 <= flags.process < flags.processes:
        raise LabError(f"--process {flags.process}: allowed: 0 to {flags.processes - 1}")
    return Place(flags.coordinator, flags.processes, flags.process)
