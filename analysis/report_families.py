"""The page of a study of several families: their laws in one plot, a table, the runs of each."""

from __future__ import annotations

from pathlib import Path

from analysis import figures, figures_families, page
from analysis.families import Families, FamilyLaw, place_of

CAPTION = (
    "Runs (± SE) of each family; where it has a law, the law and the interval of the law. "
    "Both axes are logarithmic."
)


def render(found: Families) -> str:
    """The page as text."""
    table = found.table
    name = Path(table.source).name
    facts = (
        f"{len(table.runs)} runs, a law for each {', '.join(found.by)}: {found.form.formula}; "
        f"{table.loss_word}; N counts {table.convention}."
    )
    drawn = figures.svg(figures_families.laws(found), "families")
    body = f"<h1>{page.text(name)}</h1>{page.muted(facts)}"
    body += "".join(f'<p class="warn">{page.text(note)}</p>' for note in found.notes)
    body += page.figure(drawn, CAPTION, figures.INK) + "<h2>Laws</h2>" + _laws(found)
    body += "<h2>Runs</h2>" + "".join(_runs(law, found) for law in found.laws)
    if table.left_out:
        rows = [(run.name, run.identity[:16], run.reason) for run in table.left_out]
        body += "<h2>Left out</h2>" + page.table(("run", "identity", "reason"), rows, left=3)
    return page.page(f"Families: {name}", body)


def _laws(found: Families) -> str:
    heads = list(dict.fromkeys(head for row in found.rows for head in row if head != "status"))
    heads.append("status")
    return page.table(heads, [[row.get(head, "") for head in heads] for row in found.rows])


def _runs(law: FamilyLaw, found: Families) -> str:
    x, loss, se = place_of(law.runs, found)
    rows = [
        (
            run["name"],
            f"{run['N']:,.0f}",
            f"{at:.4g}",
            f"{value:.5g}",
            f"{error:.2g}",
            run["record"],
        )
        for run, at, value, error in zip(law.runs.to_dict("records"), x, loss, se, strict=True)
    ]  # fmt: skip
    heads = ("run", "N", found.form.variables[0], found.table.loss_unit, "± SE", "record")
    return page.folded(f"{law.label}: {len(rows)} runs", page.table(heads, rows))


def write(found: Families, path: Path) -> Path:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(found))
    return path
