"""Laws of several families of one study, a law each, in one unit of the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError
from analysis.fit import Fit, fit
from analysis.form import Form
from analysis.forms import form_named
from analysis.groups import COMPARABLE, FAMILY, differing, refuse_incomparable
from analysis.ladder import runs_for
from analysis.losses import Loss, Squares
from analysis.quality_metric import MEASURED
from analysis.study import Study
from analysis.table import COLUMN_OF, PER_TOKEN, Table, column_of, filtered

if TYPE_CHECKING:
    import pandas as pd

OF_IMAGES = "bits/image"
DEFAULT_FORM = "power_floor_N"
# What losses of images must share to lie in one plot; tokenizers may differ, and are then named.
SAME_IMAGES = {
    "data": "data",
    "data_digest": "data digests",
    "dims_per_image": "dimensions of an image",
    "examples": "numbers of validation examples",
}
SAME_WAY = {name: what for name, what in MEASURED.items() if name != "weights"}
CODES = (
    "tokenizers differ ({}): nats of codes are a rate, comparable between tokenizers only beside "
    "the distortion that their decoders leave"
)
BOUNDS = "some losses are bounds, which lie above the exact ones of the same model: {}"


@dataclass(frozen=True)
class FamilyLaw:
    """One family: its runs, and its law or why there is none."""

    label: str
    runs: pd.DataFrame
    law: Fit | None
    problem: str

    @property
    def fitted(self) -> Fit | None:
        """The law where it has numbers."""
        return self.law if self.law and not self.law.status.refused else None

    @property
    def said(self) -> str:
        """The status, or the reason why there is no law."""
        if self.law is None:
            return self.problem
        reason = f": {self.law.reason}" if self.law.reason else ""
        return f"{self.law.status.value}{reason}"


@dataclass(frozen=True)
class Families:
    """A law a family in one unit; `table` has all runs and cannot be fitted as a whole."""

    laws: tuple[FamilyLaw, ...]
    form: Form
    table: Table
    by: tuple[str, ...]
    level: float
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[dict[str, str]]:
        """A row a family as text: runs, sizes, parameters with intervals, status."""
        return [self._row(law) for law in self.laws]

    def _row(self, law: FamilyLaw) -> dict[str, str]:
        n = law.runs["N"]
        out = {
            ", ".join(self.by): law.label,
            "runs": str(len(law.runs)),
            "N": f"{n.min():,.0f} to {n.max():,.0f}" if n.nunique() > 1 else f"{n.min():,.0f}",
            f"lowest {self.table.loss_unit}": f"{law.runs[self.table.loss_column].min():.4g}",
        }
        if fitted := law.fitted:
            for name, value in fitted.params.items():
                low, high = fitted.intervals[name].low, fitted.intervals[name].high
                out[name] = f"{value:.4g} [ {low:.4g}, {high:.4g} ]"
        return out | {"status": law.said}

    def as_json(self) -> dict:
        """Everything said, units in the keys."""
        return {
            "form": self.form.name,
            "formula": self.form.formula,
            "by": list(self.by),
            "loss_unit": self.table.loss_unit,
            "convention_of_N": self.table.convention,
            "families": [
                {"label": law.label, "runs": len(law.runs)}
                | (law.law.as_json() if law.law else {"problem": law.problem})
                for law in self.laws
            ],
            "notes": list(self.notes),
        }


def families(
    study: Study,
    by: Sequence[str],
    *,
    where: Mapping[str, object] | None = None,
    form: str = DEFAULT_FORM,
    loss: Loss | None = None,
    level: float = 0.9,
) -> Families:
    """A law of one variable for each value of the columns `by`, all in the unit of the study.

    Refuses losses of different images, and metrics that were measured in different ways.
    """
    law = form_named(form)
    if len(law.variables) != 1:
        raise AnalysisError(f"form {form!r}: laws of families are of one variable, N, D or C")
    if study.metric is None and study.unit == PER_TOKEN:
        raise AnalysisError(
            f"unit {PER_TOKEN}: a token is another thing in every family; give a unit of images, "
            f"such as {OF_IMAGES} or bits/dim"
        )
    runs = filtered(study.runs, where or {}, study.source)
    for column in by:
        if column not in runs:
            raise AnalysisError(f"--by {column!r}: allowed are {', '.join(runs.columns)}")
    refuse_incomparable(runs, study.source, SAME_WAY if study.metric else SAME_IMAGES)
    groups = runs.groupby(list(by), sort=True)
    laws = tuple(
        _law(study, rows, _label(key), form, loss or Squares(), level) for key, rows in groups
    )
    about = Table(
        runs, runs.iloc[:0], study.convention, study.source, study.left_out, study.unit,
        quantity=study.metric or "loss",
    )  # fmt: skip
    return Families(laws, law, about, tuple(by), level, _notes(runs, study))


def _label(key: object) -> str:
    return ", ".join(map(str, key if isinstance(key, tuple) else (key,)))


def _law(
    study: Study, runs: pd.DataFrame, label: str, form: str, loss: Loss, level: float
) -> FamilyLaw:
    if "likelihood" in runs and not study.metric and (runs["likelihood"] == "bound").all():
        label += " (bound)"
    if differ := differing(runs, COMPARABLE | FAMILY):
        words, columns = ", ".join(differ.values()), " or ".join(f"--by {name}" for name in differ)
        return FamilyLaw(label, runs, None, f"{words} differ; add {columns}, or choose by --where")
    try:
        table = replace(study, runs=runs.reset_index(drop=True)).table()
        made = fit(form, runs_for(form_named(form).variables, table), loss=loss, level=level)
    except AnalysisError as error:
        said = str(error).removeprefix(f"{study.source}: ").partition("; a law is of runs")[0]
        return FamilyLaw(label, runs, None, said)
    return FamilyLaw(label, runs, made, "")


def _notes(runs: pd.DataFrame, study: Study) -> tuple[str, ...]:
    if study.metric:
        ways = [name for name in (study.measured.varied if study.measured else ()) if
                runs[name].nunique() > 1]  # fmt: skip
        return (f"families were measured with different {', '.join(ways)}",) if ways else ()
    notes = []
    if differing(runs, {"tokenizer_identity": ""}):
        notes.append(CODES.format(", ".join(sorted(set(runs["tokenizer"].astype(str))))))
    if differing(runs, {"likelihood": ""}):
        bounds = runs[runs["likelihood"] == "bound"]["family"]
        notes.append(BOUNDS.format(", ".join(sorted(set(bounds.astype(str))))))
    return tuple(notes)


def place_of(runs: pd.DataFrame, found: Families) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Variable, loss and standard error of runs."""
    unit = found.table.loss_unit
    se = column_of("loss_se", unit)
    x = runs[COLUMN_OF[found.form.variables[0]]]
    loss = runs[found.table.loss_column]
    return x, loss, runs[se] if se in runs else loss * float("nan")
