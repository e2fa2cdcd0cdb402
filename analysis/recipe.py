"""What runs of one law must share: the config without its sizes, its length and its place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    import pandas as pd

# What a ladder varies (sizes, tokens, seed), and what changes no number (labels, places).
FREE = {"name", "study", "seed", "train.duration"}
_OF_A_SIZE = ("size", "depth", "width", "heads", "mlp_hidden")
_OF_A_SIZE += ("decoder_depth", "denoiser_depth", "denoiser_width")
FREE |= {f"model.{field}" for field in _OF_A_SIZE}
FREE |= {"data.manual_dir", "data.data_dir"}
FREE_SECTIONS = ("execution.",)
# Fields that came later, with the value that means what was done before they were there: so runs
# from before and after stand in one table.
LATER: dict[str, object] = {
    "data.augmentation": "none",
    "tokenizer.trained": "",
    "tokenizer.sampled": False,
    "model.backbone": "llama",
    "model.modulation": "none",
    "model.decoder_depth": 0,
    "model.buffer": 0,
    "model.patch": 1,
    "model.scan": "rows",
    "model.mask_schedule": "none",
    "model.mask_rates": 0,
    "model.label_smoothing": 0.0,
    "model.qk_norm": False,
    "model.z_loss": 0.0,
    "model.denoiser_depth": 0,
    "model.denoiser_width": 0,
    "model.denoiser_target": "none",
    "model.diffusion_steps": 0,
    "model.diffusion_schedule": "none",
    "model.diffusion_repeats": 1,
    "optimizer.depth_rule": "none",
    "optimizer.base_depth": 2,
    "train.bound_draws": 1,
    "train.guard.policy": "stop",
    "train.guard.window": 128,
    "train.guard.threshold": 10.0,
    "train.guard.most_skips": 8,
    "train.guard.rollback_steps": 100,
}


def recipe(config: Mapping[str, object]) -> dict[str, str]:
    """Field by dotted path, as JSON text; empty where the run has no config."""
    flat: dict[str, str] = {}

    def walk(section: Mapping[str, object], prefix: str) -> None:
        for name, value in section.items():
            path = f"{prefix}{name}"
            if isinstance(value, Mapping):
                walk(value, f"{path}.")
            elif path not in FREE and not path.startswith(FREE_SECTIONS):
                flat[path] = _text(value)

    walk(config, "")
    return {**{path: _text(value) for path, value in LATER.items()}, **flat} if flat else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def add_columns(runs: pd.DataFrame, recipes: Sequence[Mapping[str, str]]) -> list[str]:
    """Add a column for each field that differs between runs; returns their names."""
    paths = sorted({path for found in recipes for path in found})
    varied = [path for path in paths if len({found.get(path, "") for found in recipes}) > 1]
    for path in varied:
        runs[path] = [found.get(path, "") for found in recipes]
    return varied


def refuse_varied(runs: pd.DataFrame, columns: Sequence[str], source: str) -> None:
    """Refuse to mix recipes: a law is of runs that differ in size and data alone."""
    rule = "a law is of runs that share all but size, data and seed: "
    for column in columns:
        refuse_mixed(runs, column, source=source, problem=f"{column} differs", rule=rule)


def refuse_mixed(
    runs: pd.DataFrame, column: str, *, source: str, problem: str, rule: str = ""
) -> None:
    """Refuse runs that have more than one value in a column, and say how to choose one."""
    values = runs.groupby(column, sort=True)["name"].first()
    if len(values) > 1:
        found = ", ".join(f"{value} (as in {name})" for value, name in list(values.items())[:3])
        raise AnalysisError(
            f"{source}: {problem}: {found}; "
            f"{rule}choose one with where={{{column!r}: ...}} (--where {column}=...)"
        )
