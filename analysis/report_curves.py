"""The law of whole curves in the report: every evaluation of every run, with its schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis import figures, figures_curves, page
from analysis.curve_fit import CurveFit, fit_curves
from analysis.errors import AnalysisError
from analysis.report_laws import KIND

if TYPE_CHECKING:
    from analysis.learning_curves import Curves

HEAD = "<h2>Whole curves</h2>"
CAPTION = (
    "Dots are evaluations, lines the law along each run; rates that fall take the loss down by C."
)
MEANING = (
    "S counts tokens, each as much as its rate is of the peak; R is the rate over its peak, "
    "averaged over about the last H updates."
)
ONE_SIZE = "annealing_S"


def _intervals(found: CurveFit) -> tuple[dict[str, str], str]:
    """Intervals by parameter as text, and why there are none."""
    try:
        made = found.intervals
    except AnalysisError as error:
        return {}, f"No intervals: {error}."
    return {name: f"[ {one.low:.5g}, {one.high:.5g} ]" for name, one in made.items()}, ""


def _card(found: CurveFit) -> str:
    rows = found.fit.table.runs
    counts = (
        f"{len(rows)} evaluations of {len(found.curves.names)} runs on {rows['path'].nunique()} "
        f"paths (size and seed); N counts {found.curves.convention}"
    )
    badge = page.badge(found.status.value, KIND.get(found.status, "bad"))
    head = page.title("Loss along every run", badge) + (
        f"<p><code>{page.text(found.form.formula)}</code>"
        f' <span class="muted small">{page.text(counts)}</span></p>'
    )
    if found.status.refused:
        return page.card(head, f"<p>{page.text(f'Refused: {found.reason}.')}</p>")
    said, problem = _intervals(found)
    notes = "".join(
        f'<p class="warn">{page.text(note)}</p>' for note in (found.reason, problem) if note
    )
    numbers = [(name, f"{value:.5g}", said.get(name, "")) for name, value in found.params.items()]
    heads = ("parameter", "value", f"{found.fit.level:.0%} interval")
    drawn = page.figure(figures.svg(figures_curves.curves(found), "whole"), CAPTION, figures.INK)
    foot = f"{found.fit.estimate.loss.name}; in-domain residual {100 * found.fit.residual_sd:.3f} %"
    body = notes + page.beside(drawn, page.table(heads, numbers)) + page.muted(MEANING)
    return page.card(head, body + page.muted(foot))


def section(curves: Curves | str | None, *, level: float) -> str:
    """The law of the curves; a text in their place says why there are none. Empty for None."""
    if curves is None:
        return ""
    if isinstance(curves, str):
        return HEAD + page.muted(curves)
    form = "annealing" if curves.points["N"].nunique() > 1 else ONE_SIZE
    return HEAD + _card(fit_curves(curves, form, level=level))
