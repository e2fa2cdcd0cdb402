"""Branching cooldowns: one run at a constant rate, and runs of several lengths that begin in it.

Up to its cooldown a run under "wsd" is the constant-rate run of the same seed, update for update:
batches, keys and rates are functions of the step. So one trunk serves the cooldowns of many lengths
(Hägele et al. 2024), and each of them is, bit for bit, the run that it would be alone. Where a run
begins is therefore a matter of its execution, and no part of its identity:

    trunk:   optimizer.schedule = "constant", execution.branches = "1e6 tokens, 2e6 tokens"
    branch:  optimizer.schedule = "wsd",      execution.trunk = "1.4e6 tokens"

with all else alike. `execution.branches` are the durations of the branches, whose cooldowns are the
`optimizer.cooldown_fraction` of trunk and branches; `execution.trunk` is the duration of the trunk.
"""

import dataclasses

from lab.core.config import AnyRun, cooldown_steps
from lab.core.units import Duration, StepSize, parse_duration, to_steps


def trunk_of(run: AnyRun) -> AnyRun:
    """The constant-rate run in which a branch begins."""
    duration = parse_duration(run.execution.trunk, path="config.execution.trunk")
    return dataclasses.replace(
        run,
        optimizer=dataclasses.replace(run.optimizer, schedule="constant"),
        train=dataclasses.replace(run.train, duration=duration),
    )


def durations_of_branches(run: AnyRun) -> list[Duration]:
    """The durations for whose cooldowns a trunk keeps checkpoints."""
    texts = [text.strip() for text in run.execution.branches.split(",")]
    return [parse_duration(text, path="config.execution.branches") for text in texts if text]


def first_step_of_cooldown(run: AnyRun, duration: Duration, size: StepSize) -> int:
    """The updates before the cooldown of a run of this duration."""
    total = to_steps(duration, size)
    cooling = dataclasses.replace(run.optimizer, schedule="wsd")
    return total - cooldown_steps(cooling, total)
