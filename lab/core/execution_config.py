"""Where and how a run is carried out: the section `execution` of a config."""

import dataclasses

from lab.core.errors import LabError
from lab.core.fields import allow, count

# "none" and the policies of lab/layers/stack.py, which says what each keeps.
REMAT = ("none", "full", "attention_out", "block_outputs", "projections", "dots", "offload")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """Where and how; never part of the identity."""

    workdir: str
    layout: str
    devices: int = count(0)
    tensor: int = allow(at_least=0, before=0)
    replicas: int = allow(at_least=0, before=0)
    accumulation: int = allow(at_least=1, before=1)
    steps_per_dispatch: int = allow(at_least=1, before=1)
    head_chunks: int = allow(at_least=0, before=0)
    remat: str = allow(choices=REMAT)
    unroll_layers: bool
    compute_dtype: str = allow(choices=("auto", "float32", "bfloat16"))
    checkpoint_every_steps: int = count()
    checkpoint_every_minutes: float = allow(at_least=0.0, before=0.0)
    local_checkpoints: str = allow(before="")
    local_checkpoint_every_steps: int = allow(at_least=0, before=0)
    keep_last: int = count()
    keep_every_steps: int = count(0)
    branches: str = allow(before="")
    trunk: str = allow(before="")
    tensorboard: bool
    attention_spectra: bool = allow(before=False)


def check_execution(execution: ExecutionConfig) -> None:
    """Refuse a place for near checkpoints without an interval, and the other way round.

    Raises LabError.
    """
    folder, every = execution.local_checkpoints, execution.local_checkpoint_every_steps
    if bool(folder) != bool(every):
        raise LabError(
            f'config.execution.local_checkpoints = "{folder}": together with '
            f"config.execution.local_checkpoint_every_steps = {every}; both are expected, or none"
        )
