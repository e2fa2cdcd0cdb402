"""A metric of quality.jsonl in the place of the loss: its value, standard error and unit.

What is better higher is fitted as the error 1 - value. A metric of layers names one: METRIC:3,
METRIC:last or METRIC:best, the best layer of each run, which is the default where one is better.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError
from analysis.quality import REAL, Task, Value, flat, read_quality
from analysis.recipe import add_columns, refuse_mixed
from analysis.records import LeftOut, Run, number
from analysis.units import suffix

if TYPE_CHECKING:
    import pandas as pd

BEST, LAST = "best", "last"
RANDOMNESS = "randomness"  # points of a grid; a metric is of the other tasks unless it is asked for
SETTING = "settings."
# What runs of one law must share beside their recipe; a frozen forecast names it too.
MEASURED = {
    "what": "tasks",
    "extractor": "extractors",
    "reference": "references",
    "samples": "numbers of samples",
    "weights": "evaluated weights",
}


@dataclass(frozen=True)
class Metric:
    """A metric as it is asked for; `layer` is empty, best, last or a number."""

    name: str
    layer: str = ""

    @classmethod
    def parse(cls, text: str) -> Metric:
        """METRIC or METRIC:LAYER."""
        name, colon, layer = text.partition(":")
        if not name or (colon and layer not in (BEST, LAST) and not layer.isdecimal()):
            raise AnalysisError(
                f"--metric {text!r}: allowed is METRIC, or METRIC:LAYER with a layer's number, "
                f"{LAST} or {BEST}"
            )
        return cls(name, layer)

    def value_of(self, task: Task) -> Value | None:
        """The value of the task from the most samples, at the layer; None where there is none."""
        found = [value for value in task.values if value.metric == self.name]
        most = max((value.samples for value in found), default=0)
        found = [value for value in found if value.samples == most]
        layered = [value for value in found if value.layer is not None]
        if not layered:
            if found and self.layer:
                raise AnalysisError(f"--metric {self.name}:{self.layer}: it is not of layers")
            return found[0] if found else None
        return self._at_layer(layered)

    def _at_layer(self, values: list[Value]) -> Value | None:
        better = values[0].better
        if (self.layer or BEST) == BEST:
            if better is None:
                raise AnalysisError(
                    f"--metric {self.name}: of layers, and none is better; name one, "
                    f"such as {self.name}:{LAST} or {self.name}:0"
                )
            finite = [value for value in values if math.isfinite(value.value)]
            chosen = max if better == "higher" else min
            return chosen(finite, key=lambda value: value.value) if finite else None
        if self.layer == LAST:
            return max(values, key=lambda value: (value.stack != "encoder", value.layer or 0))
        found = [value for value in values if value.layer == int(self.layer)]
        if len(found) > 1:
            raise AnalysisError(
                f"--metric {self.name}:{self.layer}: encoder and decoder have such a layer; "
                f"allowed are {self.name}:{LAST} and {self.name}:{BEST}"
            )
        return found[0] if found else None

    def unit(self, value: Value) -> str:
        """What stands for the unit of the loss: fd_eurosat, 1 - probe_top1 at the best layer."""
        where = ""
        if value.layer is not None:
            chosen = self.layer or BEST
            where = f" at layer {chosen}" if chosen.isdecimal() else f" at the {chosen} layer"
        return ("1 - " if value.better == "higher" else "") + self.name + where


@dataclass(frozen=True)
class Measured:
    """Rows of the metric at each step of the runs, the runs without it, and its unit."""

    rows: pd.DataFrame
    left_out: tuple[LeftOut, ...]
    unit: str
    varied: tuple[str, ...]


def measure(
    runs: Sequence[tuple[Run, dict]], text: str, source: str, where: Mapping[str, object]
) -> Measured:
    """The metric of runs whose other columns are given, a row a task; D and C are of its step."""
    import pandas as pd

    metric = Metric.parse(text)
    rows, units, left_out, have = [], {}, [], set()
    for run, about in runs:
        tasks = read_quality(run.path.parent)
        have |= {value.metric for task in tasks for value in task.values}
        found = [(task, value) for task in tasks if (value := metric.value_of(task)) is not None]
        if where.get("what") != RANDOMNESS:
            found = [pair for pair in found if pair[0].what != RANDOMNESS]
        if not any(task.step == about["step"] for task, _ in found):
            left_out.append(_without(run, text, about, [task.step for task, _ in found]))
            continue
        for task, value in found:
            units.setdefault(metric.unit(value), about["name"])
            rows.append((run, about, task, value))
    if not rows:
        _refuse_unknown(text, source, have, [about["name"] for _, about in runs])
    if len(units) > 1:
        both = ", ".join(f"{unit} (as in {name})" for unit, name in units.items())
        raise AnalysisError(f"{source}: runs disagree about what {text} is: {both}")
    unit = next(iter(units))
    frame = pd.DataFrame([_row(run, about, task, value, unit) for run, about, task, value in rows])
    settings = [flat(task.settings, SETTING) for _, _, task, _ in rows]
    return Measured(frame, tuple(left_out), unit, tuple(add_columns(frame, settings)))


def _without(run: Run, metric: str, about: Mapping, steps: list[int]) -> LeftOut:
    reason = f"no {metric} in quality.jsonl"
    if steps:
        at = ", ".join(str(step) for step in sorted(set(steps)))
        reason = f"{metric} at step {at} only; the last is {about['step']}"
    return LeftOut(str(about["name"]), str(about["identity"]), run.path, reason)


def _refuse_unknown(metric: str, source: str, have: set[str], names: Sequence[str]) -> None:
    known = sorted(name for name in have if not name.endswith(REAL))
    there = f"there are {', '.join(known)}" if known else "no run has a quality.jsonl with values"
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    raise AnalysisError(f"{source}: no metric {metric!r} at the last step of {shown}; {there}")


def _row(run: Run, about: dict, task: Task, value: Value, unit: str) -> dict:
    part = task.step / number(run.header, "steps", run.path)
    key = suffix(unit)
    return {
        **about,
        "D_tokens": about["D_tokens"] * part,
        "C_flops": about["C_flops"] * part,
        f"loss_{key}": _fitted(value, run, unit),
        f"loss_se_{key}": value.se,
        "step": task.step,
        "last_step": task.step == about["step"],
        "what": task.what,
        "weights": task.weights,
        "extractor": task.extractor_name,
        "reference": task.reference_name,
        "samples": value.samples,
        "settings": json.dumps(dict(task.settings), sort_keys=True),
    }


def _fitted(value: Value, run: Run, unit: str) -> float:
    """The value, or 1 - value; what is not above zero has no logarithm and is refused."""
    name = f"{run.path.parent}: {value.metric} = {value.value:.6g}"
    if value.better == "higher" and value.value > 1:
        raise AnalysisError(f"{name}: higher is better and it is no share; 1 - it is no error")
    fitted = 1.0 - value.value if value.better == "higher" else value.value
    if not (math.isfinite(fitted) and fitted > 0):
        raise AnalysisError(f"{name}: a law is of numbers above zero, and {unit} is {fitted:.6g}")
    return fitted


def refuse_ways(runs: pd.DataFrame, found: Measured, metric: str, source: str) -> None:
    """Refuse values that were measured in more than one way, naming the ways."""
    for column, what in MEASURED.items():
        refuse_mixed(runs, column, source=source, problem=f"{what} of {metric} differ")
    for column in found.varied:
        refuse_mixed(runs, column, source=source, problem=f"{column} of {metric} differs")


def about(runs: pd.DataFrame, unit: str) -> str:
    """How the metric of these runs was measured, in one line."""
    first = runs.iloc[0]
    words = [f"L is {unit}", f"{first['samples']:,} samples"]
    words += [f"{name} {first[name]}" for name in ("extractor", "reference") if first[name]]
    words.append(f"{first['weights']} weights")
    if unit.endswith(f" at the {BEST} layer"):
        words.append("the layer was chosen on the same images, so the value is a little too good")
    return "; ".join(words)


def evaluations(found: Measured, runs: pd.DataFrame) -> pd.DataFrame:
    """The metric at every step of the runs that are kept, measured as at their last."""
    ways = ["identity", *MEASURED, "settings"]
    kept = found.rows.merge(runs[ways], on=ways)
    losses = [f"{key}_{suffix(found.unit)}" for key in ("loss", "loss_se")]
    out = kept.rename(columns={"D_tokens": "tokens", "C_flops": "flops"})
    return out[["identity", "name", "step", "tokens", "flops", "weights", *losses]]
