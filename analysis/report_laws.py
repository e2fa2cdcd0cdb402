"""The cards of the report: one law with its parameters, figures, forward errors, certificate."""

from __future__ import annotations

from dataclasses import replace

from analysis import figures, page
from analysis.estimate import Status
from analysis.fit import Fit
from analysis.laws import Law

KIND = {Status.CONVERGED: "good", Status.AT_BOUND: "warn"}
REFITS_OF_MANY = 300  # of a law of N and D; a thousand take most of the time of a page
MOST_FORWARD_ROWS = 12


def lighter(law: Law) -> Law:
    """The law with fewer refits where it has several variables; the card says how many."""
    fit = law.fit
    if fit is None or len(fit.form.variables) == 1:
        return law
    return replace(law, fit=replace(fit, draws_asked=min(fit.draws_asked, REFITS_OF_MANY)))


def _parameters(fit: Fit) -> str:
    intervals = fit.intervals
    rows = [
        (
            name,
            f"{value:.5g}",
            f"[ {intervals[name].low:.5g}, {intervals[name].high:.5g} ]"
            if name in intervals
            else "pinned",
        )
        for name, value in fit.params.items()
    ]
    return page.table(("parameter", "value", f"{fit.level:.0%} interval"), rows)


def _forward_rows(fit: Fit) -> str:
    """A row per held-out run, or per origin where there are many."""
    if len(fit.forward_errors) <= MOST_FORWARD_ROWS:
        heads = ("held out", "runs used", "factor ahead", "error (%)", "expected sd (%)")
        rows = [
            (
                error.label,
                error.points_used,
                f"{error.distance:.2f}",
                f"{100 * error.log_error:+.3f}",
                f"{100 * error.expected_sd:.3f}",
            )
            for error in fit.forward_errors
        ]
        return page.table(heads, rows)
    heads = ("held out", "runs used", "factor ahead, up to", "error rms (%)", "expected (%)")
    rows = [
        (
            f"the largest {origin.held_out}",
            origin.points_used,
            f"{origin.distance:.2f}",
            f"{100 * origin.rms_log_error:.3f}",
            f"{100 * origin.rms_expected_sd:.3f}",
        )
        for origin in fit.origins
    ]
    return page.table(heads, rows)


def _forward(fit: Fit) -> str:
    """Rolling-origin errors."""
    if not fit.forward_errors:
        return page.muted("No rolling-origin check: too few sizes to hold any out.")
    return (
        "<p><b>Forward errors</b> (the largest runs forecast by the smaller ones); "
        f"in-domain residual {100 * fit.residual_sd:.3f} %; "
        f"widening of the intervals ahead of the data {fit.widening:.2f}.</p>"
        f"{_forward_rows(fit)}"
    )


def _certificate(fit: Fit) -> str:
    found, draws = fit.estimate, fit.draws
    return (
        f"{found.loss.name}; gradient cosine {found.certificate:.0e}; "
        f"{found.agreeing_starts:.0%} of starts agree; {draws.certified} of {draws.asked} refits "
        f"certified ({draws.method.value} bootstrap); condition {found.condition:.3g}"
    )


def _law_figures(fit: Fit, name: str, point: figures.Point | None) -> str:
    """Parameters and residuals, beside the law where it can be drawn over one variable."""
    drawn = figures.svg(figures.residuals(fit), f"{name}-residuals")
    rest = page.figure(drawn, "Residuals; the band is the in-domain residual.", figures.INK)
    if len(fit.form.variables) > 1:
        return page.beside(rest, _parameters(fit))
    caption = (
        "The law; dark band: the law itself, light band: a new run, widened ahead of the data."
    )
    law = figures.svg(figures.law(fit, point), f"{name}-law")
    return page.beside(page.figure(law, caption, figures.INK), _parameters(fit) + rest)


def card(law: Law, name: str, point: figures.Point | None = None) -> str:
    """One law; a refused one has its status and reason and no numbers. `name` marks its figures."""
    fit = law.fit
    if fit is None:
        head = page.title(law.title, page.badge("not fitted", "bad"))
        return page.card(head, f"<p>{page.text(law.problem)}</p>")
    held = "".join(f", {key} = {value:,.0f}" for key, value in fit.table.held.items())
    runs = f"{len(fit.table)} runs{held}; N counts {fit.table.convention}"
    head = page.title(law.title, page.badge(fit.status.value, KIND.get(fit.status, "bad"))) + (
        f"<p><code>{page.text(fit.form.formula)}</code>"
        f' <span class="muted small">{page.text(runs)}</span></p>'
    )
    if fit.status.refused:
        return page.card(head, f"<p>{page.text(f'Refused: {fit.reason}.')}</p>")
    notes = "".join(f'<p class="warn">{page.text(note)}</p>' for note in fit.notes)
    body = notes + _law_figures(fit, name, point) + _forward(fit)
    return page.card(head, body + page.muted(_certificate(fit)))
