"""Write a sweep's job file for a scheduler: a JobSet, a SkyPilot task, a Slurm script, TPU VMs.

python -m lab.launch.render --target jobset experiments/01_first_ladder/sweep.py \\
    --topology v5p:4x4x8 --image IMAGE --workdir /runs --nfs 10.0.0.2:/lab --out ladder.yaml
"""

import argparse
import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence

from lab.core.chips import Slices, parse_slices
from lab.core.errors import ExitCode, LabError
from lab.launch.door import ROOT, Parser, leave, parse
from lab.launch.gke import chips_of_host, chips_of_vm
from lab.launch.render_jobset import render_jobset
from lab.launch.render_launch import (
    Launch,
    Placement,
    check_name,
    check_object,
    check_text,
    check_word,
    mounted,
)
from lab.launch.render_skypilot import render_skypilot
from lab.launch.render_slurm import render_slurm
from lab.launch.render_tpu_vm import render_tpu_vm

EPILOG = """examples:
  python -m lab.launch.render --target jobset experiments/01_first_ladder/sweep.py \\
      --topology v5p:4x4x8 --image IMAGE --workdir /runs --nfs 10.0.0.2:/lab --queue tpus \\
      --out ladder.yaml
  python -m lab.launch.render --target slurm experiments/01_first_ladder/sweep.py \\
      --hosts 2 --gpus 8 --workdir /shared/runs --partition gpu --time 12:00:00 --jobs 4

The sweep is admitted first, so that what is wrong with it is said here and not on a pod. Any
--config.PATH=VALUE goes into the command. Leaving with 75 (saved) starts a job again however
often, 1 (a defect, or some run of the sweep failed or diverged), 2 and 3 never, anything else
--most-restarts times. docs/pods.md has the whole way."""

RENDER: dict[str, Callable[[Launch], str]] = {
    "jobset": render_jobset,
    "skypilot": render_skypilot,
    "slurm": render_slurm,
    "tpu-vm": render_tpu_vm,
}
TPU = ("jobset", "skypilot", "tpu-vm")
ONLY = {  # flags that other targets have no use for
    "topology": TPU,
    "slices": ("jobset",),
    "chips_per_host": ("jobset",),
    "spot": TPU,
    "image": ("jobset", "skypilot"),
    "queue": ("jobset",),
    "namespace": ("jobset",),
    "volume_claim": ("jobset",),
    "nfs": TPU,
    "zone": ("skypilot", "tpu-vm"),
    "project": ("tpu-vm",),
    "hosts": ("slurm",),
    "gpus": ("slurm",),
    "account": ("slurm",),
    "partition": ("slurm",),
    "time": ("slurm",),
    "sbatch": ("slurm",),
    "grace_s": ("jobset", "slurm"),
}


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.render",
        description="Write the job file of a sweep for a scheduler.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("sweep", metavar="FILE:ARG", help="a Python file with sweep()")
    add("--target", required=True, choices=RENDER, help="whose file")
    add("--workdir", required=True, metavar="PLACE", help="of the runs: gs://BUCKET/PATH or a path")
    add("--name", metavar="NAME", help="of the job; the folder of the sweep unless given")
    add("--jobs", type=int, default=1, metavar="N", help="jobs that serve the sweep side by side")
    add("--out", metavar="FILE", help="write there and say what to type next")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="for every host")
    add("--most-restarts", type=int, default=3, metavar="N", help="after a dead host, a full disk")
    add("--grace-s", type=int, metavar="S", help="from SIGTERM to the end: a save fits (300)")
    _add_placement(made)
    add("--config.PATH", dest="unused", metavar="VALUE", help="a field of every run")
    return made


def _add_placement(made: argparse.ArgumentParser) -> None:
    """Flags that only some targets take (ONLY)."""
    texts = {
        "topology": "TPU slice, like v5p:4x4x8",
        "image": "container with this repository and its packages",
        "queue": "Kueue's LocalQueue: it admits the job",
        "namespace": "Kubernetes namespace",
        "nfs": "SERVER:/EXPORT mounted at --workdir",
        "volume_claim": "PersistentVolumeClaim mounted at --workdir",
        "zone": "Google Cloud zone",
        "project": "Google Cloud project",
        "account": "Slurm account",
        "partition": "Slurm partition",
        "time": "Slurm time limit",
    }
    for name, text in texts.items():
        made.add_argument(f"--{name.replace('_', '-')}", metavar=name.upper(), help=text)
    for name, text in {
        "slices": "slices of one job",
        "chips_per_host": "of the machine type, where it is not the usual one",
        "hosts": "hosts of one job",
        "gpus": "GPUs of one host",
    }.items():
        made.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=text)
    made.add_argument("--spot", action="store_true", default=None, help="capacity that can be lost")
    made.add_argument(
        "--sbatch", action="append", metavar="OPTION", help="one more directive: --sbatch=--qos=low"
    )


def main(argv: Sequence[str]) -> ExitCode:
    """Admit the sweep, render, write."""
    flags, overrides = parse(parser(), argv)
    _refuse_foreign(flags)
    _refuse_control_characters(flags, overrides)
    launch = launch_of(flags, overrides)
    text = RENDER[flags.target](launch)
    _admit(flags.sweep, {**overrides, "execution.workdir": launch.workdir})
    if flags.out is None:
        print(text, end="")
        return ExitCode.DONE
    path = pathlib.Path(flags.out)
    path.write_text(text, encoding="utf-8")
    print(f"written: {path}: {flags.target}, {_size(launch)}")
    print(f"next: {_next(flags.target, launch, path)}")
    return ExitCode.DONE


def launch_of(flags: argparse.Namespace, overrides: dict[str, str]) -> Launch:
    """The description that the flags ask for. Raises LabError naming a flag."""
    for name, least in {"jobs": 1, "slices": 1, "hosts": 1, "gpus": 0, "most_restarts": 0}.items():
        value = getattr(flags, name)
        if value is not None and value < least:
            raise LabError(f"--{name.replace('_', '-')} {value}: at least {least}")
    if flags.grace_s is not None and not 0 < flags.grace_s < 65536:
        raise LabError(f"--grace-s {flags.grace_s}: 1 to 65535 seconds")
    bucket, workdir = mounted(flags.workdir)
    slices = parse_slices(flags.topology, count=flags.slices or 1) if flags.topology else None
    chips = _chips_of_host(flags, slices) if slices else flags.gpus or 0
    launch = Launch(
        name=check_name(flags.name or _name_of(flags.sweep)),
        workdir=workdir,
        environment=tuple(_variable(text) for text in flags.env),
        slices=slices,
        hosts=slices.chips // slices.count // chips if slices else flags.hosts or 1,
        chips_per_host=chips,
        jobs=flags.jobs,
        bucket=bucket,
        nfs=flags.nfs or "",
        most_restarts=flags.most_restarts,
        grace_s=flags.grace_s or 300,
        spot=bool(flags.spot),
        placement=_placement(flags),
    )
    _check_storage(launch)
    settings = {**overrides, "execution.workdir": workdir}
    command = command_of(flags.sweep, settings, together=launch.together)
    return dataclasses.replace(launch, command=command)


def _chips_of_host(flags: argparse.Namespace, slices: Slices) -> int:
    """GKE's machine types leave a choice, TPU VMs do not."""
    if flags.target == "jobset":
        return chips_of_host(slices, flags.chips_per_host)
    return chips_of_vm(slices)


def _check_storage(launch: Launch) -> None:
    """A bucket carries no file locks between hosts, which several that train together need."""
    if launch.bucket and launch.together:
        raise LabError(
            f"--workdir gs://{launch.bucket}: several hosts that train together need a file system "
            "with locks: --workdir PATH with --nfs SERVER:/EXPORT or --volume-claim"
        )
    if launch.nfs and not re.fullmatch(r"[\w.-]+:/\S*", launch.nfs):
        raise LabError(f"--nfs {launch.nfs}: SERVER:/EXPORT is expected")
    mounts = [
        flag
        for flag, value in {
            "--workdir gs://": launch.bucket,
            "--nfs": launch.nfs,
            "--volume-claim": launch.placement.volume_claim,
        }.items()
        if value
    ]
    if len(mounts) > 1:
        raise LabError(f"{mounts[0]}: of no use with {mounts[1]}; a job has one work directory")


def _placement(flags: argparse.Namespace) -> Placement:
    names = ("image", "namespace", "queue", "volume_claim", "zone", "project")
    texts = {name: getattr(flags, name) or "" for name in (*names, "account", "partition", "time")}
    for name in ("account", "partition", "time"):
        check_word(f"--{name}", texts[name])
    for name in ("namespace", "queue", "volume_claim"):
        check_object(f"--{name.replace('_', '-')}", texts[name], label=name == "namespace")
    for option in flags.sbatch or ():
        if not option.startswith("-"):
            raise LabError(f"--sbatch {option}: an option of sbatch, like --sbatch=--qos=low")
    return Placement(**texts, sbatch=tuple(flags.sbatch or ()))


def command_of(sweep: str, overrides: dict[str, str], *, together: bool) -> tuple[str, ...]:
    """What every host runs, from the repository's root; several train each run `together`."""
    path, colon, argument = sweep.partition(":")
    found = pathlib.Path(path).resolve()
    where = found.relative_to(ROOT) if found.is_relative_to(ROOT) else pathlib.Path(path)
    settings = [f"--config.{name}={value}" for name, value in overrides.items()]
    mode = ["--together"] if together else []
    return ("python", "-m", "lab.launch.sweep", f"{where}{colon}{argument}", *mode, *settings)


def _refuse_foreign(flags: argparse.Namespace) -> None:
    for name, targets in ONLY.items():
        if getattr(flags, name) is not None and flags.target not in targets:
            raise LabError(
                f"--{name.replace('_', '-')}: of no use to --target {flags.target}; it is for "
                f"{', '.join(targets)}"
            )


def _refuse_control_characters(flags: argparse.Namespace, overrides: dict[str, str]) -> None:
    """In a script a line break begins another command."""
    for name, value in vars(flags).items():
        for text in value if isinstance(value, list) else [value]:
            check_text(name if name == "sweep" else f"--{name.replace('_', '-')}", text)
    for name, text in overrides.items():
        check_text("--config.", name)
        check_text(f"--config.{name}", text)


def _admit(sweep: str, overrides: dict[str, str]) -> None:
    from lab.launch.sweep import load_sweep

    load_sweep(sweep, overrides)


def _name_of(sweep: str) -> str:
    """ "01_first_ladder/sweep.py" -> "first-ladder"."""
    path = pathlib.Path(sweep.partition(":")[0])
    folder = path.resolve().parent.name if path.stem == "sweep" else path.stem
    words = "".join(c if c.isalnum() else "-" for c in folder.lower())
    return words.strip("-0123456789")[:40].rstrip("-") or "sweep"


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise LabError(
            f"--env {text}: NAME=VALUE is expected, NAME of A-Z, a-z, 0-9 and _, no digit first"
        )
    return name, value


def _size(launch: Launch) -> str:
    each = f"{launch.hosts} hosts x {launch.chips_per_host} chips"
    slices = f"{launch.slices.count} slices of {each}" if launch.slices else each
    return f"{launch.jobs} jobs of {slices}"


def _next(target: str, launch: Launch, path: pathlib.Path) -> str:
    if target == "jobset":
        return f"kubectl apply -f {path} && kubectl get jobsets --watch"
    if target == "slurm":
        return f"sbatch {path} && squeue --me"
    if target == "skypilot":
        if launch.jobs == 1:
            return f"sky jobs launch --detach-run {path} && sky jobs queue"
        names = " ".join(launch.names())
        return (
            f"for name in {names}; do sky jobs launch --yes --detach-run --name $name {path}; done"
        )
    job = "JOB=0 " if launch.jobs > 1 else ""
    return f"{job}bash {path} create && {job}bash {path} run"


if __name__ == "__main__":
    leave(main)
