"""Several processes as one job: how they find each other, train together and leave.

On Cloud TPU, GKE and Slurm jax finds them; elsewhere three flags name them (place.py). Process 0
claims the run, writes what one process writes and shows progress; the others are silent but for
errors.
"""

import contextlib
import os
import pathlib
import socket
import sys
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax

from lab.core.errors import ExitCode, LabError
from lab.core.peers import Peers
from lab.launch.door import error_code, error_line
from lab.launch.place import Place
from lab.launch.watchdog import Verdict, Watchdog
from lab.train.loop import Doing

# jax ends the others so long after a process is silent (its default is 100 s), or after half of it
# where that is process 0. The watchdog is faster and names it, where it can read the run directory.
HEARTBEAT_S = 28
JOIN_S = 300
WHY_S = 5.0  # for the lock of a dead process to fall, after its connections
LEAVE_S = 60  # for the slowest process to come to the end of the same run


_LEAVING = threading.Lock()
Beat = Callable[[Doing, int], None]


def join(place: Place | None) -> None:
    """Start jax.distributed where flags or a cluster say so; before any device is asked for.

    Raises LabError where the others cannot be reached.
    """
    if place is None and not in_cluster():
        return
    # jax would take SIGTERM for itself, and the wish to stop would never reach us.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    named: dict[str, Any] = {}
    if place is not None:
        _find_coordinator(place)
        named = {
            "coordinator_address": place.coordinator,
            "num_processes": place.processes,
            "process_id": place.process,
            "cluster_detection_method": "deactivate",
        }
    _keep_stdout_for_python()
    try:
        jax.distributed.initialize(
            **named,
            initialization_timeout=JOIN_S,
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=LEAVE_S,
        )
    except (RuntimeError, ValueError) as error:
        where = place.coordinator if place else "this cluster"
        reason = " ".join(str(error).split())[:200]
        raise LabError(f"{where}: the other processes cannot be reached: {reason}") from error


def _find_coordinator(place: Place) -> None:
    """Wait until process 0 listens, or see that nobody else does where this is process 0.

    jax would abort after its own wait, with a stack trace and no code of ours.
    """
    host, _, port = place.coordinator.rpartition(":")
    end_s = time.monotonic() + (JOIN_S if place.process else 0)
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            if not place.process:
                return
            reason = error.strerror or str(error)
        else:
            if place.process:
                return
            raise LabError(f"--coordinator {place.coordinator}: somebody listens there already")
        if time.monotonic() > end_s:
            raise LabError(f"--coordinator {place.coordinator}: nobody answers: {reason}")
        time.sleep(0.2)


def _keep_stdout_for_python() -> None:
    """Gloo prints a line a connection on standard output, which is the launcher's."""
    sys.stdout.flush()
    ours = os.dup(sys.stdout.fileno())
    sys.stdout = open(ours, "w", encoding=sys.stdout.encoding, buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def in_cluster() -> bool:
    """Whether jax would find the other processes by itself; it has no public question for that."""
    from jax._src.clusters import ClusterEnv

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Kubernetes without its package, where we run alone
        kinds = [kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method]
        return any(kind.is_env_present() for kind in kinds)


def alone_or_together(
    train: Callable[[Beat], ExitCode], directory: pathlib.Path, *, hang_timeout_s: float
) -> ExitCode:
    """Train into a run directory; of several processes each is watched by all.

    Raises LabError in all of them where one cannot begin to watch.
    """
    if jax.process_count() == 1:
        return train(lambda doing, step: None)
    try:
        with watched(directory, Peers.of_jax(), hang_timeout_s=hang_timeout_s) as dog:
            return together(dog, lambda: train(dog.beat))
    except LabError:
        _shut_down()  # waits for all, who hear of it from process 0
        raise


@contextlib.contextmanager
def watched(directory: pathlib.Path, peers: Peers, *, hang_timeout_s: float) -> Iterator[Watchdog]:
    """A watchdog over the processes of this job, while they train into a run directory.

    Raises LabError in all of them where one has the command of another run or no place to watch
    from: no beat tells the others of it there, and they would take it for lost.
    """
    session = _session(directory, peers)

    def leave(verdict: Verdict) -> None:
        dog.left(verdict.code)
        _leave(verdict, dog, leads=peers.leads)

    dog = Watchdog(
        directory / "hosts",
        process=peers.index,
        processes=peers.count,
        session=session,
        hang_timeout_s=hang_timeout_s,
        leave=leave,
    )
    with contextlib.ExitStack() as stack:
        problem = ""
        try:
            stack.enter_context(dog)
        except (LabError, OSError) as error:
            problem = error_line(error)
        _raise_on_all(peers.gather("hosts", problem), peers)
        yield dog


def _session(directory: pathlib.Path, peers: Peers) -> str:
    """A name for this time, which tells its beats from older ones; all must be of one run.

    The rest of their commands is compared when process 0 holds the run (runner.follow).
    """
    run = "/".join(directory.parts[-2:])  # study and identity; one work folder may have two names
    first, *others = peers.gather("run", run)
    need = f"process 0 trains {first}; all processes of a run need the same command"
    problems = ["" if other == first else f"the run {other}: {need}" for other in others]
    _raise_on_all(["", *problems], peers)
    return peers.gather("session", uuid.uuid4().hex)[0]


def _raise_on_all(problems: Sequence[str], peers: Peers) -> None:
    """Raises LabError for this process's own problem, or else for the first one of another."""
    own = problems[peers.index]
    if own:
        raise LabError(own)
    for process, problem in enumerate(problems):
        if problem:
            raise LabError(f"process {process}: {problem}")


def together(dog: Watchdog, train: Callable[[], ExitCode]) -> ExitCode:
    """Train, and leave so that no process waits for another for ever.

    An error ends this process at once, with one line and a code, and through its beat all others.
    Python's ordinary end would wait there for the processes that wait for this one.
    """
    leads = Peers.of_jax().leads
    try:
        code = train()
    except (LabError, OSError) as error:
        _end(Verdict(error_code(error), error_line(error)), dog, leads=leads)
    except Exception as error:  # noqa: BLE001 what a dead process causes here has many types
        text = traceback.format_exc()
        verdict = dog.why(wait_s=WHY_S)
        if verdict is None:
            print(text, file=sys.stderr, end="")
            verdict = Verdict(ExitCode.FAILURE, f"{type(error).__name__}: a defect, see above")
        _end(verdict, dog, leads=leads)
    dog.left(code)
    _shut_down()
    return code


def _shut_down() -> None:
    with contextlib.suppress(RuntimeError):  # another is gone: this one is at its end all the same
        jax.distributed.shutdown()


def _end(verdict: Verdict, dog: Watchdog, *, leads: bool) -> NoReturn:
    dog.left(verdict.code)
    _leave(verdict, dog, leads=leads)
    os._exit(int(verdict.code))


def _leave(verdict: Verdict, dog: Watchdog, *, leads: bool) -> None:
    """Process 0 leaves last: jax aborts the others as soon as its service is gone."""
    if not _LEAVING.acquire(blocking=False):
        threading.Event().wait()  # the other thread is at it
    print(f"error: {verdict.line}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    if leads:
        dog.wait_for_others()
    os._exit(int(verdict.code))
