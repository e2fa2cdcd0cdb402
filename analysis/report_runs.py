"""The runs of the report: numbers, what was left out, paired differences, provenance."""

from __future__ import annotations

from analysis import figures, page
from analysis.differences import Difference, neighbours
from analysis.errors import AnalysisError
from analysis.forecast import Forecast, code_digest
from analysis.table import Table, column_of

MOST_OPEN_ROWS = 30
HEADS = {
    "name": "run",
    "params_embedding": "N embedding",
    "params_blocks": "N blocks",
    "params_head": "N head",
    "params_total": "N total",
    "N": "N",
    "D_tokens": "D tokens",
    "U_tokens": "U unique tokens",
    "C_flops": "C FLOPs",
    "loss": "",
    "loss_se": "± SE",
    "loss_nats_per_image": "nats/image",
    "bits_per_dim": "bits/dim",
    "seed": "seed",
}
FORMATS = {
    "C_flops": ".3e",
    "loss": ".4f",
    "loss_se": ".4f",
    "loss_nats_per_image": ".2f",
    "bits_per_dim": ".4f",
    "seed": "d",
}
WHERE = {
    "name": "run",
    "identity": "identity",
    "record": "record",
    "source": "source",
    "data": "data",
    "tokenizer": "tokenizer",
    "step": "step",
    "weights": "weights",
    "commit": "commit",
}


def _long(count: int, what: str, table: str) -> str:
    return table if count <= MOST_OPEN_ROWS else page.folded(f"{count} {what}", table)


def _cell(value: object, form: str) -> str:
    if isinstance(value, str):
        return value
    return "" if value != value else format(value, form)


def runs(table: Table) -> str:
    """Every run that a law may use, with its sizes, tokens, compute and losses."""
    columns = {key: column_of(key, table.loss_unit) for key in ("loss", "loss_se")}
    by_role = "params_blocks" in table.runs
    found = {
        key: columns.get(key, key)
        for key in HEADS
        if columns.get(key, key) in table.runs and not (by_role and key == "N")
    }
    heads = [HEADS[key] or table.loss_unit for key in found]
    rows = [
        [_cell(run[column], FORMATS.get(key, ",.0f")) for key, column in found.items()]
        for run in table.runs.to_dict("records")
    ]
    return _long(len(rows), "runs", page.table(heads, rows))


def left_out(table: Table) -> str:
    """Runs that no law uses, each with its reason; empty where there are none."""
    if not table.left_out:
        return ""
    rows = [(run.name, run.identity[:16], run.reason) for run in table.left_out]
    found = page.table(("run", "identity", "reason"), rows, left=3)
    return "<h2>Left out</h2>" + _long(len(rows), "runs", found)


def differences(table: Table) -> str:
    """Neighbours of the ladder, image by image; the reason where that cannot be."""
    head = "<h2>Neighbours of the ladder</h2>"
    try:
        found: tuple[Difference, ...] = neighbours(table)
    except AnalysisError as error:
        return head + f'<p class="muted">{page.text(error)}</p>'
    if not found:
        return head + '<p class="muted">No two sizes were trained on equally many tokens.</p>'
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
    numbers = page.folded("Numbers", page.table(heads, rows))
    return head + page.figure(drawn, caption, figures.INK) + numbers


def learning_curves(table: Table) -> str:
    """Validation loss (or the metric) during training, where the table has it."""
    if not len(table.evaluations) or table.loss_column not in table.evaluations:
        return ""
    curves = figures.svg(figures.learning_curves(table), "curves")
    caption = f"Validation {table.quantity} during training."
    if table.spikes:
        caption += " Crosses: updates left out; triangles: spikes from which a run went back."
    return "<h2>Learning curves</h2>" + page.figure(curves, caption, figures.INK)


def provenance(table: Table, frozen: Forecast | None) -> str:
    """Where each point comes from, and the digests of table, code and forecast."""
    found = {column: head for column, head in WHERE.items() if column in table.runs}
    rows = [[run[column] for column in found] for run in table.runs.to_dict("records")]
    every = page.table(tuple(found.values()), rows, left=len(found))
    lines = [f"table sha256 {table.digest}", f"analysis code sha256 {code_digest()}"]
    lines.insert(0, f"points from {table.source}")
    if frozen:
        lines.append(f"forecast of {frozen.date}, from table sha256 {frozen.table_sha256}")
    foot = "".join(f'<p class="small"><code>{page.text(line)}</code></p>' for line in lines)
    where = "record.jsonl" if "record" in found else "file and line" if "source" in found else "row"
    return "<h2>Provenance</h2>" + page.folded(f"Each point by its {where}", every) + foot
