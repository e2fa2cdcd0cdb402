"""A launch as a Slurm batch script that puts itself back into the queue when it is asked to."""

import shlex
import string

from lab.core.errors import LabError
from lab.launch.door import ROOT
from lab.launch.render_launch import Launch

TEMPLATE = ROOT / "lab" / "launch" / "templates" / "slurm.sh"


def render_slurm(launch: Launch) -> str:
    """The script for sbatch; LabError where TPUs are asked for, or a bucket."""
    if launch.slices is not None:
        raise LabError(f"--topology {launch.slices.name}: --target slurm has --hosts and --gpus")
    if launch.bucket:
        raise LabError(f"--workdir gs://{launch.bucket}: --target slurm needs a path on every host")
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        directives="\n".join(f"#SBATCH {line}" for line in _directives(launch)),
        environment="\n".join(f"export {n}={shlex.quote(v)}" for n, v in launch.environment),
        again="|".join(map(str, launch.again)),
        never="|".join(map(str, launch.never)),
        most_restarts=launch.most_restarts,
        wait_s=launch.grace_s,
        command=launch.shell,
    )


def _directives(launch: Launch) -> list[str]:
    placement = launch.placement
    array = launch.jobs > 1
    return [
        f"--job-name={launch.name}",
        f"--nodes={launch.hosts}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={launch.chips_per_host}"] if launch.chips_per_host else []),
        *([f"--array=0-{launch.jobs - 1}"] if array else []),
        "--requeue",
        f"--signal=B:TERM@{launch.grace_s}",
        "--open-mode=append",
        f"--output={'%x-%A_%a.out' if array else '%x-%j.out'}",
        *([f"--account={placement.account}"] if placement.account else []),
        *([f"--partition={placement.partition}"] if placement.partition else []),
        *([f"--time={placement.time}"] if placement.time else []),
        *placement.sbatch,
    ]
