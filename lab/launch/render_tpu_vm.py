"""A launch on TPU VMs: lab/launch/tpu.sh with its settings written into it."""

import shlex

from lab.core.chips import shape_text
from lab.core.errors import LabError
from lab.launch.door import ROOT
from lab.launch.gke import NAMES, usual_shape, vm_type_of
from lab.launch.render_launch import Launch

SCRIPT = ROOT / "lab" / "launch" / "tpu.sh"
SHEBANG = "#!/usr/bin/env bash\n"


def render_tpu_vm(launch: Launch) -> str:
    """A script with create, run, status, logs, stop, delete; LabError without --topology, --zone.

    A TPU VM's type has only the number of chips: a shape that is not the usual one is named.
    """
    if launch.slices is None:
        raise LabError("--topology: is needed by --target tpu-vm, like --topology v5p:4x4x8")
    if launch.slices.count > 1:
        raise LabError(f"--slices {launch.slices.count}: several slices are --target jobset's")
    if not launch.placement.zone:
        raise LabError("--zone: is needed by --target tpu-vm, like --zone us-east5-a")
    slices, names = launch.slices, NAMES[launch.slices.chip.name]
    usual = slices.shape == usual_shape(slices)
    settings = {
        "NAME": launch.name,
        "ZONE": launch.placement.zone,
        "PROJECT": launch.placement.project,
        "ACCELERATOR_TYPE": vm_type_of(slices),
        "TYPE": "" if usual else names.vm_type,
        "TOPOLOGY": "" if usual else shape_text(slices.shape),
        "RUNTIME_VERSION": names.runtime,
        "COMMAND": " ".join(
            [*(f"{n}={shlex.quote(v)}" for n, v in launch.environment), launch.shell]
        ),
        "BUCKET": launch.bucket,
        "MOUNT": launch.mount_line,
        "SPOT": "yes" if launch.spot else "",
        "AGAIN": " ".join(map(str, launch.again)),
        "NEVER": " ".join(map(str, launch.never)),
        "MOST_RESTARTS": str(launch.most_restarts),
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return (
        SHEBANG
        + "\n".join(lines)
        + "\n\n"
        + SCRIPT.read_text(encoding="utf-8").removeprefix(SHEBANG)
    )
