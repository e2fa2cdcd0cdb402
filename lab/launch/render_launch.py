"""One description of a launch, which four functions render for four schedulers.

Every host runs the same command. How it left decides what happens next, on every scheduler alike:
0 is the end, 75 starts it again however often, 1, 2 and 3 never do, all else does a few times.
"""

import dataclasses
import re
import shlex
import unicodedata

from lab.core.chips import Slices
from lab.core.errors import ExitCode, LabError

AGAIN = (ExitCode.INTERRUPTED,)  # saved: start again, however often
NEVER = (ExitCode.FAILURE, ExitCode.BAD_INPUT, ExitCode.DIVERGED)  # the same would come of it
MOUNT_ROOT = "/gcs"
BREAKING = ("Cc", "Zl", "Zp")  # categories of Unicode: control, line and paragraph separator
ABORTED = 134  # SIGABRT: jax, where process 0 of several died


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """What runs, on what, and when it runs again."""

    name: str
    workdir: str  # where every host finds it
    command: tuple[str, ...] = ()  # of every host
    environment: tuple[tuple[str, str], ...] = ()
    slices: Slices | None = None  # None: no TPU
    hosts: int = 1  # of one slice, or of one job without TPUs
    chips_per_host: int = 0  # TPU chips, or GPUs
    jobs: int = 1  # that serve one sweep side by side
    bucket: str = ""  # gs:// name to mount under /gcs; of one host only: it carries no locks
    nfs: str = ""  # SERVER:/EXPORT to mount at the work directory
    again: tuple[int, ...] = tuple(map(int, AGAIN))
    never: tuple[int, ...] = tuple(map(int, NEVER))
    most_restarts: int = 3  # for what is in neither
    grace_s: int = 300  # from SIGTERM to SIGKILL: a save must fit
    spot: bool = False
    placement: "Placement" = dataclasses.field(default_factory=lambda: Placement())

    @property
    def shell(self) -> str:
        """The command as one line of a shell."""
        return shlex.join(self.command)

    @property
    def mount(self) -> str:
        """Where the bucket lies; "" where there is none."""
        return f"{MOUNT_ROOT}/{self.bucket}" if self.bucket else ""

    @property
    def together(self) -> bool:
        """Whether several hosts train each run."""
        return self.hosts * (self.slices.count if self.slices else 1) > 1

    @property
    def mount_line(self) -> str:
        """What a virtual machine does to have the work directory; "" where that is nothing."""
        if not self.nfs:
            return ""
        where, what = shlex.quote(self.workdir), shlex.quote(self.nfs)
        return (
            f"mountpoint -q {where} || {{ sudo apt-get install -qq nfs-common >/dev/null; "
            f"sudo mkdir -p {where} && sudo mount -t nfs -o hard {what} {where}; }} || exit 1"
        )

    def names(self) -> list[str]:
        """The name of each job."""
        return [self.name] if self.jobs == 1 else [f"{self.name}-{i}" for i in range(self.jobs)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """What only some schedulers know; "" leaves it to them."""

    image: str = ""
    namespace: str = ""
    queue: str = ""  # Kueue's LocalQueue
    volume_claim: str = ""  # a PersistentVolumeClaim at the work directory
    zone: str = ""
    project: str = ""
    account: str = ""
    partition: str = ""
    time: str = ""
    sbatch: tuple[str, ...] = ()  # more directives


def check_name(name: str, *, longest: int = 40) -> str:
    """A name that all of them take: RFC 1123, short enough for what they append to it."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) or len(name) > longest:
        raise LabError(
            f"--name {name}: lower-case letters, digits and -, a letter first and no - last, "
            f"{longest} characters at most"
        )
    return name


def check_object(flag: str, name: str, *, label: bool) -> None:
    """The name of an object of Kubernetes: RFC 1123, a label or a subdomain; "" is none."""
    part = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
    pattern, longest = (part, 63) if label else (rf"{part}(\.{part})*", 253)
    if name and (not re.fullmatch(pattern, name) or len(name) > longest):
        raise LabError(
            f"{flag} {name}: lower-case letters, digits and -{'' if label else ' and .'}, a letter "
            f"or digit first and last, {longest} characters at most"
        )


def check_word(flag: str, text: str) -> None:
    """A value of a directive: sbatch splits it at white space and stops at #."""
    if re.search(r"[\s#'\"]", text):
        raise LabError(f"{flag} {text}: one word without quotes or # is expected")


def check_text(flag: str, value: object) -> None:
    """A value that goes into a script: of one line. Others than text are let through."""
    if isinstance(value, str) and any(unicodedata.category(c) in BREAKING for c in value):
        raise LabError(f"{flag} {value!r}: control characters and line breaks are not allowed")


def mounted(workdir: str) -> tuple[str, str]:
    """The bucket (or "") and the path on every host of "gs://bucket/path" or of a path."""
    if not workdir.startswith("gs://"):
        if not workdir.startswith("/"):
            raise LabError(f"--workdir {workdir}: gs://BUCKET/PATH or an absolute path is expected")
        return "", workdir
    bucket, _, path = workdir.removeprefix("gs://").partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", bucket):
        raise LabError(f"--workdir {workdir}: {bucket or 'nothing'} is no name of a bucket")
    return bucket, f"{MOUNT_ROOT}/{bucket}/{path}".rstrip("/")
