"""The three roads to the optimum as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.frontier import Place, Road

if TYPE_CHECKING:
    from analysis.optimum import Disagreement, Optimum


def _place(place: Place) -> str:
    best = place.found
    if best is None:
        return f"    at {place.budget_flops:.3g} FLOPs: {place.standing.value}: {place.reason}"
    far = f"   ({place.reason})" if place.reason else ""
    return (
        f"    at {place.budget_flops:.3g} FLOPs: N* = {best.parameters}, D* = {best.tokens} "
        f"tokens, D*/N* = {best.tokens_per_parameter}{far}"
    )


def _road(road: Road) -> list[str]:
    head = f"{road.name.value} ({road.how})   [{road.standing.value}]"
    notes = [f"    note: {note}" for note in road.notes]
    if road.frontier is None:
        return [head, f"    {road.reason}", *notes]
    lines = [head, f"    N* ~ C^{road.exponent_n}, D* ~ C^{road.exponent_d}"]
    return lines + [_place(place) for place in road.places] + notes


def _disagreement(pair: Disagreement) -> str:
    meet = "intervals overlap" if pair.overlap else "INTERVALS DO NOT OVERLAP"
    return (
        f"  at {pair.budget_flops:.3g} FLOPs: N* by {pair.first.value} is {pair.ratio:.3g} times "
        f"that by {pair.second.value}; {meet}"
    )


def summary(found: Optimum) -> str:
    """Roads, places, the interpolants side by side, disagreements."""
    lines = [
        f"Compute-optimal frontier of {found.table.source}: C is {found.flops.value}; N counts "
        f"{found.table.convention}; {found.level:.0%} intervals"
    ]
    if found.cost_misfit > 0:
        lines.append(f"  counted FLOPs are a + b N^-1/2 within {found.cost_misfit:.2%}")
    for road in found.roads:
        lines += _road(road)
    compared = found.isoflop.compared.items()
    if any(not isinstance(value, str) for _, value in compared):
        values = [f"{name} {value}" for name, value in compared if not isinstance(value, str)]
        lines.append(f"isoFLOP exponent of N by interpolant: {'; '.join(values)}")
    pairs = found.disagreements
    lines.append("disagreement:" if pairs else "disagreement: fewer than two roads have numbers")
    return "\n".join(lines + [_disagreement(pair) for pair in pairs])
