"""A launch as a SkyPilot managed job: it recovers from lost machines, and from exit codes it knows.

SkyPilot does not tell codes that may be tried again from those that never should
(`max_restarts_on_errors` counts all of them), so that is 0, and the codes of a machine's fault are
listed in `recover_on_exit_codes` beside the one that asks for it. `run` is run by every host.
"""

from typing import Any

import yaml

from lab.core.chips import shape_text
from lab.core.errors import ExitCode, LabError
from lab.launch.gke import NAMES, usual_shape, vm_type_of
from lab.launch.render_launch import ABORTED, Launch

MACHINE_FAULTS = (int(ExitCode.HANG), int(ExitCode.HOST_LOST), ABORTED)
SETUP = """\
set -e
python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --allow-existing --python 3.11 .venv
python3 -m uv pip install --quiet --python .venv -r requirements.lock 'jax[tpu]'
"""


def render_skypilot(launch: Launch) -> str:
    """One YAML document; LabError where there is no topology, several slices or a rare shape."""
    slices = launch.slices
    if slices is None:
        raise LabError("--topology: is needed by --target skypilot, like --topology v5p:4x4x8")
    if slices.count > 1:
        raise LabError(f"--slices {slices.count}: several slices are --target jobset's")
    vm_type, usual = vm_type_of(slices), usual_shape(slices)
    if slices.shape != usual:
        raise LabError(
            f"--topology {slices.name}: SkyPilot's tpu-{vm_type} is {shape_text(usual)}; other "
            "shapes are --target tpu-vm's or jobset's"
        )
    resources: dict[str, Any] = {
        "infra": _infra(launch.placement.zone),
        "accelerators": f"tpu-{vm_type}",
        "accelerator_args": {"runtime_version": NAMES[slices.chip.name].runtime},
        "use_spot": launch.spot,
        "job_recovery": {
            "max_restarts_on_errors": 0,
            "recover_on_exit_codes": sorted({*launch.again, *MACHINE_FAULTS}),
        },
    }
    if launch.placement.image:
        resources["image_id"] = f"docker:{launch.placement.image}"
    task: dict[str, Any] = {
        "name": launch.name,
        "resources": resources,
        "workdir": ".",
        "envs": dict(launch.environment),
    }
    lines = [launch.mount_line, launch.shell]
    if not launch.placement.image:
        task["setup"] = SETUP
        lines.insert(0, "export PATH=$PWD/.venv/bin:$PATH")
    task["run"] = "\n".join(line for line in lines if line) + "\n"
    if launch.bucket:
        source = {"source": f"gs://{launch.bucket}", "mode": "MOUNT"}
        task["file_mounts"] = {launch.mount: source}
    return yaml.safe_dump(task, sort_keys=False, width=100)


def _infra(zone: str) -> str:
    """ "gcp", or "gcp/REGION/ZONE" of a zone like us-east5-a."""
    return f"gcp/{zone.rpartition('-')[0]}/{zone}" if zone else "gcp"
