"""One offline HTML page of a study: the sentence that matters, laws, runs, provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import (
    figures,
    page,
    report_compare,
    report_curves,
    report_laws,
    report_optimum,
    report_runs,
)
from analysis.errors import AnalysisError
from analysis.fit import Fit
from analysis.forecast import Forecast, Verdict, judge, read_frozen
from analysis.laws import Law, law_of_forecast, standard_laws
from analysis.losses import Huber, Loss
from analysis.quality_metric import about
from analysis.table import Table

if TYPE_CHECKING:
    from analysis.learning_curves import Curves

LARGEST_BYTES = 5_000_000


@dataclass(frozen=True)
class Judged:
    """A frozen forecast with its verdict, or why it has none yet."""

    frozen: Forecast
    verdict: Verdict | None
    problem: str = ""


def _judged(path: Path | None, table: Table) -> Judged | None:
    if path is None:
        return None
    frozen = read_frozen(path)
    try:
        return Judged(frozen, judge(frozen, table))
    except AnalysisError as error:
        return Judged(frozen, None, str(error))


def _headline(judged: Judged | None, laws: tuple[Law, ...]) -> str:
    if judged and judged.verdict:
        kind = "inside" if judged.verdict.inside else "outside"
        return f'<p class="headline {kind}">{page.text(judged.verdict.sentence)}</p>'
    if judged:
        return (
            f'<p class="headline">{page.text(judged.frozen.sentence)}; not yet measured</p>'
            f"{page.muted(judged.problem)}"
        )
    for law in laws:
        if law.fit and not law.fit.status.refused:
            values = ", ".join(f"{name} = {value:.4g}" for name, value in law.fit.params.items())
            said = f"{law.fit.form.formula}; {values} [{law.fit.status.value}]"
            return f'<p class="headline">{page.text(said)}</p>'
    return '<p class="headline">No law is determined by these runs; the reasons are below.</p>'


def _about(table: Table) -> str:
    if "record" not in table.runs:
        facts = f"{len(table)} runs, losses in {table.loss_unit}; N counts {table.convention}."
        return f"<h1>{page.text(_name(table))}</h1><p class='muted'>{page.text(facts)}</p>"
    first = table.runs.iloc[0]
    facts = (
        f"{len(table)} runs of {first['data']} with tokenizer {first['tokenizer']}, "
        f"{first['likelihood']} likelihood of {first['examples']:,} validation images; "
        f"N counts {table.convention}."
    )
    if table.quantity != "loss":
        facts += f" {about(table.runs, table.loss_unit)}."
    return f"<h1>{page.text(_name(table))}</h1><p class='muted'>{page.text(facts)}</p>"


def _name(table: Table) -> str:
    """The studies of the table, else the file it comes from."""
    if "study" in table.runs:
        return ", ".join(sorted(set(table.runs["study"].astype(str))))
    return Path(table.source).name


def _cards(table: Table, laws: tuple[Law, ...], judged: Judged | None, loss: Loss) -> str:
    """The law that made the forecast first, then the standard ones."""
    cards = [report_laws.card(law, f"law{index}") for index, law in enumerate(laws)]
    if judged:
        made = law_of_forecast(judged.frozen, table, loss=loss, level=judged.frozen.level)
        measured = judged.verdict.measured if judged.verdict else None
        if made:
            point = figures.point_of(judged.frozen, measured)
            cards.insert(0, report_laws.card(made, "made", point))
    return "<h2>Laws</h2>" + "".join(cards)


def _paired(table: Table) -> bool:
    """Neighbours are compared image by image in nats: not where a metric is fitted."""
    return "record" in table.runs and table.quantity == "loss"


def _surface(laws: tuple[Law, ...]) -> Fit | None:
    """The fit of N and D among the laws, or None."""
    fits = [law.fit for law in laws if law.fit and law.fit.form.variables == ("N", "D")]
    return fits[0] if fits else None


def render(
    table: Table,
    *,
    frozen: Path | None = None,
    loss: Loss | None = None,
    level: float = 0.9,
    curves: Curves | str | None = None,
) -> str:
    """The page as text; `frozen` is the path of a frozen forecast.

    `curves` are those of the runs, for their law, or why there are none.
    """
    loss = loss or Huber()
    judged = _judged(frozen, table)
    laws = tuple(map(report_laws.lighter, standard_laws(table, loss=loss, level=level)))
    body = (
        _about(table)
        + _headline(judged, laws)
        + _cards(table, laws, judged, loss)
        + report_compare.section(table, level=level)
        + report_optimum.section(table, _surface(laws), level=level)
        + f"<h2>Runs</h2>{report_runs.runs(table)}{report_runs.left_out(table)}"
        + (report_runs.differences(table) if _paired(table) else "")
        + report_runs.learning_curves(table)
        + report_curves.section(curves, level=level)
        + report_runs.provenance(table, judged.frozen if judged else None)
    )
    return page.page(f"Scaling report: {_name(table)}", body)


def write_report(
    table: Table,
    path: str | Path,
    *,
    frozen: str | Path | None = None,
    loss: Loss | None = None,
    level: float = 0.9,
    curves: Curves | str | None = None,
) -> Path:
    """Write the page; an AnalysisError where it would pass 5 MB."""
    found = render(
        table, frozen=Path(frozen) if frozen else None, loss=loss, level=level, curves=curves
    )
    data = found.encode()
    if len(data) > LARGEST_BYTES:
        raise AnalysisError(f"{path}: {len(data):,} bytes; at most {LARGEST_BYTES:,} are allowed")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
