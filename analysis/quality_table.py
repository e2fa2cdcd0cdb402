"""quality.jsonl of many runs as one frame, and as columns in which one thing was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError
from analysis.quality import REAL, Task, Value, flat, read_quality
from analysis.records import LeftOut, Run, number, read_run, record_paths
from analysis.table import CONVENTIONS, filtered

if TYPE_CHECKING:
    import pandas as pd

SETTING = "settings."
# What makes two values those of one column; settings that differ stand beside them, a column each.
SAME = ("what", "metric", "unit", "likelihood", "extractor", "reference", "samples")
SAME += ("level", "weights")
SAID = ("level", "samples", "counts", "kid_counts")  # settings that stand beside every value
RANDOMNESS = "randomness"
ORDER = (
    "fd",
    "reconstruction",
    RANDOMNESS,
    "likelihood",
    "probe",
    "attention",
)  # others after these


@dataclass(frozen=True)
class Evaluated:
    """All values of the finished runs, a row each; what was left out, and runs without a file."""

    values: pd.DataFrame
    source: str
    convention: str
    left_out: tuple[LeftOut, ...]
    without: tuple[str, ...]

    @property
    def settings(self) -> list[str]:
        """Columns of the settings, as text."""
        return settings_of(self.values)

    @property
    def metrics(self) -> list[str]:
        """Names of what was measured of samples or models; floors of real images left out."""
        names = set(self.values["metric"]) if len(self.values) else set()
        return sorted(name for name in names if not name.endswith(REAL))


@dataclass(frozen=True)
class Column:
    """Values of one metric by one extractor, reference, number of samples and level.

    `varied` are the settings in which its rows differ; `settings` those they share, or that only
    some families have.
    """

    same: Mapping[str, object]
    rows: pd.DataFrame
    varied: tuple[str, ...]
    settings: Mapping[str, str]

    @property
    def metric(self) -> str:
        return str(self.same["metric"])

    @property
    def layered(self) -> bool:
        return bool(self.rows["layer"].notna().any())

    @property
    def title(self) -> str:
        """Metric, unit, direction, samples, extractor, reference, level: all that a reader needs.

        A part that does not apply is left out.
        """
        better = set(self.rows["better"].dropna())
        words = [f"{self.metric} ({self.same['unit']})" if self.same["unit"] else self.metric]
        words += [f"{one} is better" for one in sorted(better)]
        words += [str(self.same["likelihood"])] if self.same["likelihood"] else []
        words.append(f"{self.same['samples']:,} samples")
        words += [f"{name} {self.same[name]}" for name in ("extractor", "reference") if
                  self.same[name]]  # fmt: skip
        words.append(f"{self.same['weights']} weights")
        words.append(f"{self.same['level']:.0%} intervals: {' or '.join(self.methods)}")
        return "; ".join(words)

    @property
    def not_of_all(self) -> dict[str, list[str]]:
        """Shared settings that some families do not have, with the families that do."""
        out = {}
        for name in self.settings:
            has = self.rows[name] != ""
            if not has.all():
                out[name] = sorted(set(self.rows["family"][has].astype(str)))
        return out

    @property
    def methods(self) -> list[str]:
        return sorted(set(self.rows["method"]))


def read_evaluated(
    sources: Sequence[str | Path],
    *,
    convention: str = "blocks",
    metric: str | None = None,
    where: Mapping[str, object] | None = None,
) -> Evaluated:
    """Every value of every finished run at or below the directories.

    An AnalysisError where no run has a quality.jsonl, where none has the metric (it names those
    that exist), or where a run is there twice.
    """
    import pandas as pd

    paths = [(Path(source), path) for source in sources for path in record_paths(Path(source))]
    read = [(source, read_run(path)) for source, path in paths]
    runs = [(source, run) for source, run in read if isinstance(run, Run)]
    left_out = tuple(run for _, run in read if isinstance(run, LeftOut))
    _refuse_twice([run for _, run in runs])
    tasks = [(run, read_quality(run.path.parent)) for _, run in runs]
    without = tuple(str(run.header["name"]) for run, found in tasks if not found)
    name = ", ".join(str(source) for source in sources)
    rows = [row for run, found in tasks for task in found for row in _rows(run, task, convention)]
    if not rows:
        raise AnalysisError(
            f"{name}: {len(runs)} finished runs, none with values in a quality.jsonl; "
            f"make them: python -m lab.launch.evaluate {name}"
        )
    frame = pd.DataFrame(rows)
    frame = frame.fillna(dict.fromkeys(settings_of(frame), ""))
    frame = filtered(frame, where or {}, name)
    found = Evaluated(_sorted(frame), name, convention, left_out, without)
    if metric is None:
        return found
    refuse_unknown(metric, found)
    keep = frame["metric"].isin((metric, metric + REAL))
    return Evaluated(_sorted(frame[keep]), name, convention, left_out, without)


def refuse_unknown(metric: str, found: Evaluated) -> None:
    """Refuse a metric that no run has, naming those that exist."""
    if metric not in found.metrics:
        runs = found.values["identity"].nunique()
        have = ", ".join(found.metrics)
        raise AnalysisError(f"{found.source}: no {metric!r} in {runs} runs; there are {have}")


def _refuse_twice(runs: Sequence[Run]) -> None:
    places: dict[str, Path] = {}
    for run in runs:
        identity = str(run.header["identity"])
        if identity in places:
            raise AnalysisError(f"{run.path}: run {identity} is also {places[identity]}")
        places[identity] = run.path


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    by = ["family", "N", "seed", "identity", "step", "key", "metric", "samples"]
    return frame.sort_values([*by, "stack", "layer"], kind="stable").reset_index(drop=True)


def size_of(run: Run, convention: str) -> float:
    """N by the convention."""
    if convention not in CONVENTIONS:
        raise AnalysisError(f"convention {convention!r}: allowed are {', '.join(CONVENTIONS)}")
    roles = [role.replace("params_", "params.") for role in CONVENTIONS[convention]]
    return sum(number(run.header, role, run.path) for role in roles)


def _rows(run: Run, task: Task, convention: str) -> list[dict]:
    steps = number(run.header, "steps", run.path)
    part = task.step / steps
    about = {
        "run": str(run.header["name"]),
        "identity": str(run.header["identity"]),
        "family": str(run.header["family"]),
        "size": str(run.header["size"]),
        "seed": int(number(run.header, "seed", run.path)),
        "N": size_of(run, convention),
        "D_tokens": number(run.final, "tokens", run.path) * part,
        "C_flops": number(run.final, "flops", run.path) * part,
        "step": task.step,
        "last_step": task.step == steps,
        "weights": task.weights,
        "what": task.what,
        "key": task.key,
        "extractor": task.extractor_name,
        "reference": task.reference_name,
        "record": str(run.path),
    }
    settings = {SETTING + name: text for name, text in flat(task.settings).items()}
    return [about | settings | _cells(value) for value in task.values]


def _cells(value: Value) -> dict:
    layer = float("nan") if value.layer is None else float(value.layer)
    return {**vars(value), "layer": layer, "se": value.se}


def settings_of(values: pd.DataFrame) -> list[str]:
    """Columns of the settings, as text."""
    return [column for column in map(str, values.columns) if column.startswith(SETTING)]


def headline(values: pd.DataFrame) -> pd.DataFrame:
    """Of each task, metric and layer the value from the most samples; real images left out."""
    kept = values[~values["metric"].str.endswith(REAL)]
    by = ["identity", "key", "metric", "stack", "layer"]
    most = kept.groupby(by, dropna=False)["samples"].transform("max")
    return kept[kept["samples"] == most]


def columns_of(values: pd.DataFrame) -> list[Column]:
    """The values by all that must be equal in one column, in the order of their titles."""
    settings = settings_of(values)
    out = []
    for key, rows in values.groupby(list(SAME), dropna=False, sort=True):
        varied = tuple(name for name in settings if _varies(rows, name))
        shared = {name: _given(rows[name]) for name in settings if name not in varied}
        out.append(
            Column(
                dict(zip(SAME, key, strict=True)),
                _by_settings(rows, varied),
                varied,
                {name: texts[0] for name, texts in shared.items() if texts},
            )
        )
    place = {what: index for index, what in enumerate(ORDER)}
    return sorted(out, key=lambda column: place.get(str(column.same["what"]), len(ORDER)))


def _varies(rows: pd.DataFrame, name: str) -> bool:
    """Two values, or one that a run has in one task and not in another of before it was stated."""
    if len(_given(rows[name])) > 1:
        return True
    return bool((rows.groupby(["identity", "step"])[name].nunique() > 1).any())


def _given(texts: pd.Series) -> list[str]:
    """Values of a setting; families without it (rounds of a raster order) are no other value."""
    return sorted(set(texts) - {""})


def _by_settings(rows: pd.DataFrame, varied: Sequence[str]) -> pd.DataFrame:
    """Rows of a run and step by their settings, numbers as numbers."""
    import pandas as pd

    if not varied:
        return rows.reset_index(drop=True)

    def number(texts: pd.Series) -> pd.Series:
        found = pd.to_numeric(texts, errors="coerce")
        return texts if found.isna().any() else found

    rows = rows.sort_values(list(varied), key=number, kind="stable")
    by = ["family", "N", "seed", "identity", "step"]
    return rows.sort_values(by, kind="stable").reset_index(drop=True)


def by_settings(column: Column) -> list[Column]:
    """The column cut where settings differ, so that each piece has one value of each.

    A column in which every run has one setting stays whole: families have their own (rounds of a
    masked one, steps of a chain), and are to be seen together.
    """
    settings = column.rows[["identity", "step", *column.varied]].drop_duplicates()
    if not settings.duplicated(["identity", "step"]).any():
        return [column]
    out = []
    for key, rows in column.rows.groupby(list(column.varied), sort=True):
        texts = key if isinstance(key, tuple) else (key,)
        own = dict(zip(column.varied, map(str, texts), strict=True))
        out.append(Column(column.same, rows.reset_index(drop=True), (), {**column.settings, **own}))
    return out


def floor_of(row: Mapping[str, object], values: pd.DataFrame) -> pd.DataFrame:
    """What the same task measured of real images: by as many samples, else by the most."""
    found = values[(values["key"] == row["key"]) & (values["identity"] == row["identity"])]
    found = found[found["metric"] == f"{row['metric']}{REAL}"]
    equal = found[found["samples"] == row["samples"]]
    return (equal if len(equal) else found.nlargest(1, "samples")).head(1)


def run_word(row: Mapping | pd.Series) -> str:
    """NAME, N = 12,000: a run in a legend or a sentence."""
    return f"{row['run']}, N = {row['N']:,.0f}"


def last_name(name: str) -> str:
    """temperature, guidance.scale: the setting without the sections that all share."""
    return name.removeprefix(SETTING).removeprefix("sampler.").removeprefix("drawing.")


def shown_settings(column: Column) -> str:
    """temperature 1, seed 0, unmasking.rounds 12 (mlm): what is not said elsewhere."""
    partly, words = column.not_of_all, []
    for name, text in column.settings.items():
        bare = name.removeprefix(SETTING)
        if bare.startswith("real.") or bare in SAID:
            continue
        of = f" ({', '.join(partly[name])})" if name in partly else ""
        words.append(f"{last_name(name)} {text}{of}")
    return ", ".join(words)


def as_rows(values: pd.DataFrame) -> list[dict]:
    """The frame as JSON rows: null where there is no number."""
    return json.loads(values.to_json(orient="records"))
