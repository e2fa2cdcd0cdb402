"""Figures of quality.jsonl: metrics against samples used, parameters and compute; and their files.

What is measured inside a model is in figures_inside.py, sampler settings in figures_settings.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import figures
from analysis.figures import BLUE, GREEN, INK, ORANGE, RED, WORDS, dress, log_x
from analysis.quality import REAL
from analysis.quality_table import (
    RANDOMNESS,
    Column,
    Evaluated,
    by_settings,
    columns_of,
    headline,
    last_name,
    run_word,
    shown_settings,
)

if TYPE_CHECKING:
    import pandas as pd

FAMILY_COLORS = (BLUE, ORANGE, GREEN, RED, "#8e6bbf", "#b07d3c", "#3aa6a6", "#c75a9b")
MARKERS = "osD^vP*X"
PALEST = 0.45
EACH = 3.3  # inches of one panel
MOST_NAMED = 14
MOST_INSIDE = 4  # entries of a legend that leave room for the curves
LONGEST_WORD = 30
Drawn = tuple[str, Figure, str]  # name, figure, caption


def family_styles(families: pd.Series) -> dict[str, tuple[str, str]]:
    """Colour and marker of each family, by the order of their names."""
    names = sorted(set(families.astype(str)))
    return {
        name: (FAMILY_COLORS[index % len(FAMILY_COLORS)], MARKERS[index % len(MARKERS)])
        for index, name in enumerate(names)
    }


def shades(rows: pd.DataFrame) -> dict[str, float]:
    """Opacity of each run: the larger in its family, the darker."""
    out: dict[str, float] = {}
    for _, group in rows.groupby("family"):
        sizes = np.unique(group["N"])
        for identity, n in group.groupby("identity")["N"].first().items():
            place = np.searchsorted(sizes, n) / max(len(sizes) - 1, 1)
            out[str(identity)] = PALEST + (1 - PALEST) * (place if len(sizes) > 1 else 1.0)
    return out


def panels(rows: int, columns: int, height: float = 2.6) -> tuple[Figure, np.ndarray]:
    """A grid of dressed axes, (rows, columns)."""
    figure = Figure(figsize=(max(EACH * columns, 4.6), height * rows), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0.0)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        dress(axes)
    return figure, grid


def bars(rows: pd.DataFrame) -> np.ndarray:
    """(2, n) lengths of the intervals below and above; nothing where none was stated."""
    value = rows["value"].to_numpy(dtype=float)
    low, high = rows["low"].to_numpy(dtype=float), rows["high"].to_numpy(dtype=float)
    return np.nan_to_num(np.maximum(np.stack([value - low, high - value]), 0.0))


def axis_word(column: Column) -> str:
    """The metric and its unit, on two lines where they are long."""
    unit = column.same["unit"]
    gap = "\n" if len(f"{column.metric} {unit}") > LONGEST_WORD else " "
    return f"{column.metric}{gap}({unit})" if unit else column.metric


def legend_beside(axes: Axes) -> None:
    """The legend right of the axes where it is long, else inside."""
    if len(axes.get_legend_handles_labels()[0]) > MOST_INSIDE:
        figures._legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        figures._legend(axes)


def against_samples(values: pd.DataFrame, column: Column) -> Figure:
    """A metric by the number of samples it was computed from; real images dashed."""
    figure, axes = figures._axes(width=7.4)
    styles, dark = family_styles(column.rows["family"]), shades(column.rows)
    runs = column.rows.sort_values(["family", "N", "seed"]).to_dict("records")
    named, shown = len(runs) <= MOST_NAMED, set()
    for row in runs:
        label = run_word(row) if named else row["family"]  # too many runs: a family, once
        curve = _curve(values, row, column.metric)
        color, marker = styles[row["family"]]
        axes.errorbar(
            curve["samples"], curve["value"], yerr=bars(curve), fmt=f"{marker}-", color=color,
            alpha=dark[row["identity"]], markersize=4, linewidth=1.2, capsize=2,
            label=None if label in shown else label,
        )  # fmt: skip
        shown.add(label)
    _real(axes, values, column)
    log_x(axes)
    figures._label(axes, "samples used", axis_word(column))
    legend_beside(axes)
    return figure


def _curve(values: pd.DataFrame, row: Mapping, metric: str) -> pd.DataFrame:
    found = values[(values["key"] == row["key"]) & (values["identity"] == row["identity"])]
    return found[found["metric"] == metric].sort_values("samples")


def _real(axes: Axes, values: pd.DataFrame, column: Column) -> None:
    """What real images get, once for each different curve."""
    seen: set[str] = set()
    for row in column.rows.to_dict("records"):
        curve = _curve(values, row, column.metric + REAL)
        text = curve[["samples", "value"]].to_json()
        if not len(curve) or text in seen:
            continue
        axes.errorbar(
            curve["samples"], curve["value"], yerr=bars(curve), fmt=".--", color=INK,
            linewidth=1.2, capsize=2, label=None if seen else "real images",
        )  # fmt: skip
        seen.add(text)


def against_size(column: Column, values: pd.DataFrame) -> Figure:
    """A metric against N at the end of training, and against C with earlier steps as a line."""
    figure, ((left, right),) = panels(1, 2, height=3.4)
    for family, (color, marker) in family_styles(column.rows["family"]).items():
        rows = column.rows[column.rows["family"] == family]
        last = rows[rows["last_step"]]
        for axes, name in ((left, "N"), (right, "C_flops")):
            axes.errorbar(
                last[name], last["value"], yerr=bars(last), fmt=marker, color=color, markersize=5,
                capsize=2, label=family,
            )  # fmt: skip
        for _, run in rows[rows["C_flops"] > 0].groupby("identity"):
            run = run.sort_values("step")
            right.plot(run["C_flops"], run["value"], "-", color=color, alpha=0.45, linewidth=1)
    floor = _floor(column, values)
    for axes, word in ((left, WORDS["N"]), (right, WORDS["C"])):
        if floor is not None:
            axes.axhline(floor, color=INK, linestyle="--", linewidth=1.2, label="real images")
        log_x(axes)
        axes.yaxis.set_major_locator(MaxNLocator(6))
        figures._label(axes, word, axis_word(column) if axes is left else "")
    figures._legend(left)
    return figure


def _floor(column: Column, values: pd.DataFrame) -> float | None:
    """What real images get, where all tasks of the column say the same."""
    found = values[values["key"].isin(column.rows["key"])]
    found = found[found["metric"] == column.metric + REAL]
    found = found[found["samples"] == column.same["samples"]]["value"].unique()
    return float(found[0]) if len(found) == 1 else None


def _figures_of(column: Column, values: pd.DataFrame) -> Iterator[Drawn]:
    from analysis import figures_inside

    about = f"{column.title}; {shown_settings(column)}"
    if column.varied:
        about += f"; runs differ in {', '.join(map(last_name, column.varied))}"
    if column.layered:
        if column.metric.startswith(figures_inside.UNIFORM):
            return  # drawn beside the heads
        made = figures_inside.layers(column, values)
        yield f"{column.metric}-layers", made, f"{about}. Band or bars: intervals."
        return
    counted = values[(values["metric"] == column.metric) & values["key"].isin(column.rows["key"])]
    if counted["samples"].nunique() > 1:
        last = column.rows[column.rows["last_step"]]
        yield (
            f"{column.metric}-samples",
            against_samples(values, Column(column.same, last, (), column.settings)),
            f"{about}. By samples used, at the last step; darker: larger.",
        )
    yield (
        f"{column.metric}-size",
        against_size(column, values),
        f"{about}. Left: last step. Right: thin lines are earlier steps.",
    )


def drawn(found: Evaluated) -> list[Drawn]:
    """Every figure of the study with its caption.

    A name is of the metric and, where that is not enough, of the extractor, and then of a digest.
    """
    from analysis import figures_settings

    columns = columns_of(headline(found.values))
    out: list[tuple[str, Figure, str, Column]] = []
    for column in columns:
        if column.same["what"] == RANDOMNESS:
            for name, figure, caption in figures_settings.drawn(column):
                out.append((name, figure, caption, column))
            continue
        for one in by_settings(column):
            out += [(*made, one) for made in _figures_of(one, found.values)]
    names = [name for name, *_ in out]
    for more in (_extractor, _digest):
        names = [
            f"{name}-{more(column)}" if names.count(name) > 1 else name
            for name, (*_, column) in zip(names, out, strict=True)
        ]
    return [(name, *drawn[1:3]) for name, drawn in zip(names, out, strict=True)]


def _extractor(column: Column) -> str:
    return str(column.same["extractor"]).partition("@")[0] or "model"


def _digest(column: Column) -> str:
    text = json.dumps([dict(column.same), dict(column.settings)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def write_figures(found: Evaluated, out: Path) -> list[tuple[Path, str]]:
    """Write NAME.svg of each figure and captions.md into the folder; path and caption of each."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure, caption in drawn(found):
        path = out / f"{name}.svg"
        path.write_text(figures.svg(figure, name))
        written.append((path, caption))
    parts = [f"![{path.stem}]({path.name})\n\n{caption}\n" for path, caption in written]
    (out / "captions.md").write_text("\n".join(parts))
    return written
