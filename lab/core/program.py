"""Which runs share a compiled program: those that differ in numbers only.

Rates, decay, seeds and durations are arguments of a step and not constants of it, so a sweep over
them compiles once, trains in packs (lab/train/pack.py), and is as fast in all its runs.
"""

from typing import Any

from lab.core.canonical import json_sha256
from lab.core.config import AnyRun, RunConfig, TokenizerRunConfig
from lab.core.fields import defining, plain

# What a step has as an argument, and what only the loop knows.
NUMBERS = {
    "": ("seed",),
    "optimizer": (
        "learning_rate",
        "weight_decay",
        "schedule",
        "warmup",
        "cooldown_fraction",
        "final_fraction",
    ),
    "train": ("duration", "log_every_steps", "evaluate_every_steps"),
}
# Of the execution: what changes the program.
COMPILED = (
    "layout",
    "devices",
    "tensor",
    "replicas",
    "accumulation",
    "steps_per_dispatch",
    "head_chunks",
    "remat",
    "unroll_layers",
    "compute_dtype",
)


def program(run: AnyRun) -> str:
    """Twelve hex digits: equal for runs whose steps are one compiled program."""
    rest: dict[str, Any] = defining(run)
    for section, names in NUMBERS.items():
        within = rest[section] if section else rest
        for name in names:
            within.pop(name, None)
    execution = {name: plain(getattr(run.execution, name)) for name in COMPILED}
    # What a step takes beside the batch, and what a batch is made of.
    if isinstance(run, TokenizerRunConfig) and run.losses.perceptual:
        execution["perceptual_file"] = run.losses.perceptual_file
    if isinstance(run, RunConfig) and run.tokenizer.codes:
        execution["codes"] = run.tokenizer.codes
    return json_sha256({"kind": type(run).__name__, **rest, "execution": execution})[:12]
