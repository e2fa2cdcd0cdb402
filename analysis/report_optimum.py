"""The compute-optimal frontier in the report: three roads, their disagreement, isoFLOP bowls."""

from __future__ import annotations

from analysis import figures, figures_optimum, page
from analysis.errors import AnalysisError
from analysis.fit import Fit
from analysis.frontier import Road, Value
from analysis.optimum import Optimum, optimum
from analysis.table import COLUMN_OF, Table

HEAD = "<h2>Compute-optimal size</h2>"


def _row(road: Road) -> tuple:
    """Name, way, status, exponents."""
    first = (road.name.value, road.how, road.standing.value)
    numbers = (road.exponent_n, road.exponent_d) if road.frontier else ("", "")
    return (*first, *map(str, numbers))


def _roads(found: Optimum) -> str:
    """The three roads; the reasons of the refused ones and the notes of all below."""
    heads = ("road", "how", "status", "N* ~ C^x", "D* ~ C^x")
    reasons = [f"{road.name.value}: {road.reason}" for road in found.roads if not road.frontier]
    refused = "".join(f'<p class="bad">{page.text(f"Refused: {why}.")}</p>' for why in reasons)
    notes = "".join(
        f'<p class="warn">{page.text(f"{road.name.value}: {note}")}</p>'
        for road in found.roads
        for note in road.notes
    )
    return page.table(heads, map(_row, found.roads), left=3) + refused + notes


def _short(value: Value) -> str:
    return f"{value.value:.3g} [ {value.low:.3g}, {value.high:.3g} ]"


def _places(found: Optimum) -> str:
    """N*, D* and their ratio at the targets by each road that has numbers."""
    rows: list[tuple] = []
    for target in found.targets:
        for road in found.roads:
            place = road.place(target)
            if place is None:
                continue
            first = (f"{target:.3g}", road.name.value, f"{place.distance:.3g}")
            if place.found is None:
                rows.append((*first, f"{place.standing.value}: {place.reason}", "", ""))
                continue
            best = place.found
            rows.append(
                (*first, *map(_short, (best.parameters, best.tokens, best.tokens_per_parameter)))
            )
    heads = ("FLOPs", "road", "beyond", "N*", "D* tokens", "D*/N*")
    return page.table(heads, rows, left=2) if rows else ""


def _disagreement(found: Optimum) -> str:
    pairs = found.disagreements
    if not pairs:
        return page.muted("Fewer than two roads have numbers: their disagreement is not known.")
    rows = [
        (
            f"{pair.first.value} over {pair.second.value}",
            f"{pair.budget_flops:.3g}",
            f"{pair.ratio:.3g}",
            "yes" if pair.overlap else "NO",
        )
        for pair in pairs
    ]
    heads = ("N* of", "FLOPs", "ratio", "intervals overlap")
    return page.folded("Disagreement of the roads", page.table(heads, rows))


def _figures(found: Optimum) -> str:
    """The frontier where a road has numbers, the bowls where one has a minimum."""
    drawn = []
    if any(not one.standing.refused for one in found.isoflop.minima):
        bowls = figures_optimum.bowls(found.isoflop, found.table.loss_unit)
        caption = "isoFLOP bowls with their minima; a bowl without one has no red dot."
        drawn.append(page.figure(figures.svg(bowls, "bowls"), caption, figures.INK))
    if any(road.frontier for road in found.roads):
        frontier = figures.svg(figures_optimum.frontier(found), "frontier")
        caption = "N* against compute by each road, dotted beyond its data; bars at the targets."
        drawn.append(page.figure(frontier, caption, figures.INK))
    return page.halves(*drawn)


def section(table: Table, law: Fit | None, *, level: float) -> str:
    """The roads of a table with N and D; `law` is its L(N, D). Empty where N or D is not there."""
    if law is None or any(COLUMN_OF[name] not in table.runs for name in ("N", "D")):
        return ""
    try:
        found = optimum(table, law=law, level=level)
    except AnalysisError as error:
        return HEAD + page.muted(error)
    spread = f"C is {found.flops.value}; N counts {table.convention}; {level:.0%} intervals."
    about = page.muted(f"{spread} The largest budget of the table, and ten times as much.")
    body = _roads(found) + _places(found) + _disagreement(found) + _figures(found)
    return HEAD + page.card("", about + body)
