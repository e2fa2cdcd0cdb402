"""Where the blocks of a generator attend: task "attention"."""

import dataclasses
from typing import Any

import jax

from lab.launch.evaluate_inside import Inside
from lab.launch.evaluate_task import Task, Tools
from lab.metrics.attention import (
    AttentionNumbers,
    AttentionTally,
    BlockAttention,
    attention_sites,
    generator_attention,
)

UNITS = {
    "distance_cells": "cells",
    "entropy_nats": "nats",
    "sink_mass": "share",
    "first_mass": "share",
}
EVENLY = "attending evenly to all visible keys; exact"


def attention(task: Task, tools: Tools) -> list[dict[str, Any]]:
    """Distances, entropies and sinks of every block, for images with their classes.

    Raises Stopped between batches where a signal has come.
    """
    inside, time, total = Inside(task, tools), task.settings["time"], len(task.reference)
    read = jax.jit(
        lambda model, tokens, label: generator_attention(model, tokens, label, time=time)
    )
    tally, told, done = AttentionTally(attention_sites(inside.model)), tools.told("attention"), 0
    told(0, total)
    for batch in inside.batches(task.reference):
        numbers = read(inside.model, batch.tokens_BTS, batch.label_B)
        tally.add([of_images(of_block, batch.count) for of_block in numbers])
        done += batch.count
        told(done, total)
    blocks = tally.blocks(level=task.settings["level"])
    return [value for block in blocks for value in block_values(block, task.settings["level"])]


def of_images(numbers: AttentionNumbers, count: int) -> AttentionNumbers:
    """Without what fills the last batch up."""
    return AttentionNumbers(*(each[:count] for each in numbers))


def block_values(block: BlockAttention, level: float) -> list[dict[str, Any]]:
    """A block's numbers as a row holds them, and what attending evenly would give."""
    at = {"samples": block.images, "layer": block.layer, "stack": block.stack, "better": None}
    found = []
    for name, unit in UNITS.items():
        measured = getattr(block, name)
        found.append(
            {
                "metric": f"attention_{name}",
                **dataclasses.asdict(measured.mean),
                "unit": unit,
                "per_head": list(measured.per_head),
                "per_head_se": list(measured.standard_error_per_head),
                **at,
            }
        )
    for name in ("distance_cells", "entropy_nats"):
        evenly = getattr(block, f"uniform_{name}")
        exact = {"value": evenly, "low": evenly, "high": evenly, "level": level, "method": EVENLY}
        found.append({"metric": f"attention_uniform_{name}", **exact, "unit": UNITS[name], **at})
    return found
