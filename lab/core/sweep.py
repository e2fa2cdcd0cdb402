"""The algebra of sweeps: lists of flat overrides, made of axes.

    product(axis("model.size", ["s1", "s2"]), zipped(axis("seed", [0, 1]), axis("name", "ab")))

A sweep is a plain list of dicts from a config path to a value. Two keys are no paths: "config" is
the config's own file ("configs/elm.py:s3"), and "rung" a label of runs that are of use only
together (lab/core/designs.py). Names that meet are joined: "s3" and "seed1" are "s3-seed1".
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from lab.core.errors import LabError

Override = dict[str, Any]
CONFIG, RUNG, NAME = "config", "rung", "name"


def axis(path: str, values: Iterable[Any]) -> list[Override]:
    """One override a value."""
    return [{path: value} for value in values]


def product(*sweeps: Sequence[Override]) -> list[Override]:
    """Every combination, the last sweep fastest; a path may stand in one of them only."""
    return [_merge(parts) for parts in itertools.product(*sweeps)]


def zipped(*sweeps: Sequence[Override]) -> list[Override]:
    """The i-th of each, together; all must be of one length."""
    lengths = [len(sweep) for sweep in sweeps]
    if len(set(lengths)) > 1:
        raise LabError(f"zipped sweeps differ in length: {lengths}")
    return [_merge(parts) for parts in zip(*sweeps, strict=True)]


def chain(*sweeps: Sequence[Override]) -> list[Override]:
    """One sweep after the other."""
    return [dict(override) for sweep in sweeps for override in sweep]


def _merge(parts: Iterable[Override]) -> Override:
    merged: Override = {}
    for part in parts:
        for path, value in part.items():
            if path == NAME and NAME in merged:
                value = f"{merged[NAME]}-{value}"
            elif path in merged:
                raise LabError(f'sweep sets "{path}" twice: {merged[path]!r} and {value!r}')
            merged[path] = value
    return merged
