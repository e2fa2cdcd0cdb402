"""Laws side by side in the report: weights, in-domain and forward errors, the coverage history."""

from __future__ import annotations

from analysis import figures, figures_compare, page, report_figures
from analysis.compare import Comparison, Member, Past, compare, curves, default_forms
from analysis.errors import AnalysisError
from analysis.ladder import ladder_of
from analysis.table import Table

WHY = (
    "Every law is fitted to the smaller runs and forecasts the larger ones, from several origins. "
    "Its weight follows from those forward errors and not from how well it fits. "
    "A run weighs as much as its size."
)
CAPTION = (
    "Left: weight of each law (bar), its in-domain error (dot) and its forward errors, one bar an "
    "origin. Right: errors of the average by distance, and the interval that is stated now."
)
HISTORY = (
    "Coverage history. A dot is a run that was forecast by smaller ones; its place is the level of "
    "the narrowest interval that would have held it. Left of the line: inside. Where intervals are "
    "right the dots are spread evenly."
)


def _percent(value: float) -> str:
    return "none" if value != value else f"{100 * value:.3f}"


def _laws(found: Comparison) -> str:
    """A row per law; the refused ones with their status and their reason."""
    heads = ["law", "status", "weight", "in-domain"]
    heads += [f"from {window.kept.sum()}" for window in found.windows]
    kept = [member for member in found.members if not member.status.refused]
    gone = [member for member in found.members if member.status.refused]
    out = ""
    if kept:
        about = "Errors are rms in %; those from a number of runs are of the larger runs forecast."
        out += page.table(heads, map(_numbers, kept), left=2) + page.muted(about)
    if gone:
        rows = [(one.form.name, one.status.value, one.reason) for one in gone]
        out += page.table(("refused", "status", "reason"), rows, left=3)
    return out


def _numbers(member: Member) -> tuple:
    first = (member.form.name, member.status.value, f"{member.weight:.3f}")
    return (*first, *map(_percent, (member.residual_rms_log, *member.forward_rms_log)))


def _inside(past: Past) -> str:
    if past.inside is None:
        return "none could be stated"
    return f"{round(past.inside * past.runs_ahead)} of {past.runs_ahead}"


def _history(found: Comparison, name: str) -> str:
    if not found.past:
        return page.muted("No coverage history: too few runs before and after any origin.")
    heads = ("runs used", "ahead", "factor, up to", "rms (%)", f"inside the {found.level:.0%}")
    rows = [
        (past.runs_used, past.runs_ahead, f"{past.distance_factor:.2f}",
         _percent(past.rms_log_error), _inside(past))
        for past in found.past
    ]  # fmt: skip
    table = page.table(heads, rows, left=0)
    if all(past.inside is None for past in found.past):
        return table
    drawn = figures.svg(report_figures.history(found), f"{name}-history")
    return page.beside(page.figure(drawn, HISTORY, figures.INK), table)


def _parameters(found: Comparison) -> str:
    rows = [
        (
            member.form.name,
            member.form.formula,
            ", ".join(f"{key} = {value:.4g}" for key, value in member.params.items()),
        )
        for member in found.members
        if not member.status.refused
    ]
    table = page.table(("law", "formula", "parameters"), rows, left=3)
    return page.folded("Formulas and parameters", table)


def _foot(found: Comparison) -> str:
    known = found.calibration
    if known is None:
        return ""
    return page.muted(
        f"{found.loss.name}; in-domain residual {100 * known.noise_log:.3f} %, drift "
        f"{100 * known.drift_log:.3f} % per square root of an e-fold in size, from "
        f"{known.origins} origin{'s' * (known.origins != 1)} (Student's t of as many degrees)"
    )


def card(found: Comparison, title: str, name: str) -> str:
    """One comparison; without numbers where every law was refused."""
    tag = page.badge(found.status.value, "bad" if found.status.refused else "good")
    held = "".join(f", {key} = {value:,.0f}" for key, value in found.table.held.items())
    runs = f"{len(found.table)} runs{held}; N counts {found.table.convention}"
    head = page.title(title, tag) + page.muted(runs)
    if found.calibration is None:
        return page.card(head, _laws(found))
    drawn = figures.svg(figures_compare.comparison(found), f"{name}-comparison")
    notes = "".join(f'<p class="warn">{page.text(note)}</p>' for note in found.notes)
    body = _laws(found) + notes + page.figure(drawn, CAPTION, figures.INK)
    return page.card(head, body + _history(found, name) + _parameters(found) + _foot(found))


def _tables(table: Table) -> list[tuple[str, Table, tuple]]:
    """What is compared: laws of all that varies, and of N alone where D varies as well."""
    forms = default_forms(table)
    names = forms[0].variables
    out = [(f"L({', '.join(names)}) on all runs", table, forms)]
    if len(names) > 1 and len(ladder := ladder_of(table)) < len(table):
        out.insert(0, ("L(N) at one D", ladder, curves("N")))
    return out


def section(table: Table, *, level: float) -> str:
    """All comparisons of a table, or the reason why there is none."""
    head = f"<h2>Laws side by side</h2><p>{page.text(WHY)}</p>"
    try:
        cards = [
            card(compare(chosen, forms, level=level), title, f"compare{index}")
            for index, (title, chosen, forms) in enumerate(_tables(table))
        ]
    except AnalysisError as error:
        return head + page.muted(error)
    return head + "".join(cards)
