"""One offline HTML page of a study: the sentence that matters, laws, runs, provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis import figures, page
from analysis.differences import Difference, neighbours
from analysis.errors import AnalysisError
from analysis.estimate import Status
from analysis.fit import Fit
from analysis.forecast import Forecast, Verdict, code_digest, judge, read_frozen
from analysis.laws import Law, law_of_forecast, standard_laws
from analysis.losses import Huber, Loss
from analysis.table import Table

LARGEST_BYTES = 5_000_000
KIND = {Status.CONVERGED: "good", Status.AT_BOUND: "warn"}


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
            f'<p class="muted small">{page.text(judged.problem)}</p>'
        )
    for law in laws:
        if law.fit and not law.fit.status.refused:
            values = ", ".join(f"{name} = {value:.4g}" for name, value in law.fit.params.items())
            return f'<p class="headline">{page.text(f"{law.fit.form.formula}; {values}")}</p>'
    return '<p class="headline">No law is determined by these runs; the reasons are below.</p>'


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


def _forward(fit: Fit) -> str:
    """Rolling-origin errors, a row per held-out run, or per origin where there are many."""
    if not fit.forward_errors:
        return '<p class="muted small">No rolling-origin check: too few sizes to hold any out.</p>'
    if len(fit.forward_errors) <= 12:
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
    else:
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
    return (
        "<p><b>Forward errors</b> (the largest runs forecast by the smaller ones); "
        f"in-domain residual {100 * fit.residual_sd:.3f} %; "
        f"widening of the intervals ahead of the data {fit.widening:.2f}.</p>"
        f"{page.table(heads, rows)}"
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


def _card(law: Law, name: str, point: figures.Point | None = None) -> str:
    fit = law.fit
    if fit is None:
        tag = page.badge("not fitted", "bad")
        return (
            f'<section class="card"><h3>{page.text(law.title)}{tag}</h3>'
            f"<p>{page.text(law.problem)}</p></section>"
        )
    tag = page.badge(fit.status.value, KIND.get(fit.status, "bad"))
    held = "".join(f", {key} = {value:,.0f}" for key, value in fit.table.held.items())
    runs = f"{len(fit.table)} runs{held}; N counts {fit.table.convention}"
    head = (
        f"<h3>{page.text(law.title)}{tag}</h3><p><code>{page.text(fit.form.formula)}</code>"
        f' <span class="muted small">{page.text(runs)}</span></p>'
    )
    if fit.status.refused:
        return (
            f'<section class="card">{head}<p>{page.text(f"Refused: {fit.reason}.")}</p></section>'
        )
    notes = "".join(f'<p class="warn">{page.text(note)}</p>' for note in fit.notes)
    body = _law_figures(fit, name, point) + _forward(fit)
    foot = f'<p class="muted small">{page.text(_certificate(fit))}</p>'
    return f'<section class="card">{head}{notes}{body}{foot}</section>'


def _runs(table: Table) -> str:
    heads = (
        "run", "N embedding", "N blocks", "N head", "N total", "D tokens", "C FLOPs",
        "nats/token", "± SE", "nats/image", "bits/dim", "seed",
    )  # fmt: skip
    rows = [
        (
            run.name,
            *(f"{value:,.0f}" for value in
              (run.params_embedding, run.params_blocks, run.params_head, run.params_total,
               run.D_tokens)),
            f"{run.C_flops:.3e}",
            f"{run.loss_nats_per_token:.4f}",
            f"{run.loss_se_nats_per_token:.4f}",
            f"{run.loss_nats_per_image:.2f}",
            f"{run.bits_per_dim:.4f}",
            run.seed,
        )
        for run in table.runs.itertuples()
    ]  # fmt: skip
    return page.table(heads, rows)


def _differences(table: Table) -> str:
    try:
        found: tuple[Difference, ...] = neighbours(table)
    except AnalysisError as error:
        return f'<p class="muted">{page.text(error)}</p>'
    if not found:
        return '<p class="muted">No two sizes were trained on equally many tokens.</p>'
    rows = [
        (
            f"{pair.first} − {pair.second}",
            f"{pair.difference_nats_per_token:+.5f}",
            f"{pair.se_nats_per_token:.5f}",
            f"{pair.z:.1f}",
            f"{pair.images:,}",
        )
        for pair in found
    ]
    heads = ("runs", "difference (nats/token)", "± SE", "z", "images")
    drawn = figures.svg(figures.differences(found), "differences")
    caption = "Paired over the same validation images; above zero the larger model is better."
    return page.figure(drawn, caption, figures.INK) + page.table(heads, rows)


def _provenance(table: Table, judged: Judged | None) -> str:
    heads = ("run", "identity", "record", "data", "tokenizer", "step", "weights", "commit")
    names = ("name", "identity", "record", "data", "tokenizer", "step", "weights", "commit")
    rows = table.runs[list(names)].itertuples(index=False)
    lines = [f"table sha256 {table.digest}", f"analysis code sha256 {code_digest()}"]
    if judged:
        date = judged.frozen.date
        lines.append(f"forecast of {date}, from table sha256 {judged.frozen.table_sha256}")
    foot = "".join(f'<p class="small"><code>{page.text(line)}</code></p>' for line in lines)
    return page.table(heads, rows, left=len(heads)) + foot


def _left_out(table: Table) -> str:
    if not table.left_out:
        return ""
    rows = [(run.name, run.identity[:16], run.reason) for run in table.left_out]
    return "<h2>Left out</h2>" + page.table(("run", "identity", "reason"), rows, left=3)


def _about(table: Table) -> str:
    first = table.runs.iloc[0]
    studies = ", ".join(sorted(set(table.runs["study"])))
    facts = (
        f"{len(table)} runs of {first['data']} with tokenizer {first['tokenizer']}, "
        f"{first['likelihood']} likelihood of {first['examples']:,} validation images; "
        f"N counts {table.convention}."
    )
    return f"<h1>{page.text(studies)}</h1><p class='muted'>{page.text(facts)}</p>"


def render(
    table: Table, *, frozen: Path | None = None, loss: Loss | None = None, level: float = 0.9
) -> str:
    """The page as text; `frozen` is the path of a frozen forecast."""
    if "record" not in table.runs:
        raise AnalysisError(f"{table.source}: a report needs run directories")
    loss = loss or Huber()
    judged = _judged(frozen, table)
    laws = standard_laws(table, loss=loss, level=level)
    cards = [_card(law, f"law{index}") for index, law in enumerate(laws)]
    if judged:
        made = law_of_forecast(judged.frozen, table, loss=loss, level=judged.frozen.level)
        measured = judged.verdict.measured if judged.verdict else None
        if made:
            cards.insert(0, _card(made, "made", figures.point_of(judged.frozen, measured)))
    curves = figures.svg(figures.learning_curves(table), "curves")
    body = (
        _about(table)
        + _headline(judged, laws)
        + f"<h2>Laws</h2>{''.join(cards)}"
        + f"<h2>Runs</h2>{_runs(table)}{_left_out(table)}"
        + "<h2>Neighbours of the ladder</h2>"
        + _differences(table)
        + "<h2>Learning curves</h2>"
        + page.figure(curves, "Validation loss during training", figures.INK)
        + f"<h2>Provenance</h2>{_provenance(table, judged)}"
    )
    return page.page(f"Scaling report: {table.runs['study'].iloc[0]}", body)


def write_report(
    table: Table,
    path: str | Path,
    *,
    frozen: str | Path | None = None,
    loss: Loss | None = None,
    level: float = 0.9,
) -> Path:
    """Write the page; an AnalysisError where it would pass 5 MB."""
    found = render(table, frozen=Path(frozen) if frozen else None, loss=loss, level=level)
    data = found.encode()
    if len(data) > LARGEST_BYTES:
        raise AnalysisError(f"{path}: {len(data):,} bytes; at most {LARGEST_BYTES:,} are allowed")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
