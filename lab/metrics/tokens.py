"""Everything that is told of the tokens of one source, as a record of plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lab.core.errors import LabError
from lab.metrics.bigram import (
    Neighbour,
    Pairs,
    entropy_of,
    estimate_pairs,
    kl_from_uniform,
    neighbours,
    token_draws,
)
from lab.metrics.bits import bit_statistics
from lab.metrics.draws import draws_of
from lab.metrics.estimate import TOLERANCE_NATS, Estimate, estimate
from lab.metrics.grids import TokenGrids
from lab.metrics.mutual import COARSE_GROUPS, Offset, information_against_distance
from lab.metrics.usage import expected_distinct

FEWEST_UNITS = 16  # half of them choose groups, and errors over the other half need eight

# KL of single tokens from uniform in nats: ELM (arXiv 2410.16257), Table 1.
PUBLISHED_UNIGRAM_KL_NATS = {"BAE": 0.24, "VQGAN": 1.00, "OpenWebText": 3.25}


def token_statistics(
    grids: TokenGrids,
    *,
    split_bits: int | None = None,
    sampled_bit_entropy_nats: float | None = None,
    tolerance_nats: float = TOLERANCE_NATS,
    progress: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """The record of one source.

    `sampled_bit_entropy_nats` (a position) is known to whoever holds the probabilities of the bits:
    it is only passed on.
    """
    if grids.units < FEWEST_UNITS:
        raise LabError(f"{grids.name}: {grids.units} {grids.unit}; at least {FEWEST_UNITS}")
    progress("tokens")
    unigram = estimate(token_draws(grids), tolerance_nats=tolerance_nats)
    record = {**_facts(grids), **_usage(grids, unigram), "unigram": _unigram(unigram)}
    progress("distance")
    offsets = information_against_distance(grids)
    record["information_against_distance"] = [offset.as_json() for offset in offsets]
    record["bigram"] = {}
    for which in Neighbour:
        progress(f"{which} pairs")
        pairs = _pairs(grids, which, _shared_nats(offsets, which), tolerance_nats=tolerance_nats)
        record["bigram"][str(which)] = None if pairs is None else _bigram(pairs)
    record["coarse_groups"] = COARSE_GROUPS
    record["sampled_bit_entropy_nats_per_position"] = sampled_bit_entropy_nats
    progress("bits")
    record["bits"] = None if grids.bits_UVHWD is None else bit_statistics(grids.bits_UVHWD, unigram)
    record["subcodes"] = _subcodes(grids, split_bits, tolerance_nats=tolerance_nats)
    return record


def _facts(grids: TokenGrids) -> dict[str, Any]:
    views, height, width = grids.ids_UVHW.shape[1:]
    return {
        "name": grids.name,
        "unit": grids.unit,
        "units": grids.units,
        "views": views,
        "grid": [height, width],
        "alphabet": grids.alphabet,
        "tokens": grids.ids_UVHW.size,
        "note": grids.note,
    }


def _usage(grids: TokenGrids, unigram: Estimate) -> dict[str, Any]:
    by_chance = expected_distinct(grids.alphabet, unigram.draws)
    return {
        "distinct": unigram.distinct,
        "distinct_share": unigram.distinct / grids.alphabet,
        "distinct_share_of_uniform": unigram.distinct / by_chance,
        "perplexity": math.exp(unigram.nats) if unigram.converged else None,
        "perplexity_at_least": math.exp(unigram.least_nats),
    }


def _unigram(unigram: Estimate) -> dict[str, Any]:
    return {
        "entropy": entropy_of(unigram).as_json(),
        "kl_from_uniform": kl_from_uniform(unigram).as_json(),
        **unigram.as_json(),
    }


def _shared_nats(offsets: list[Offset], which: Neighbour) -> float:
    """What coarse groups of neighbours share: less than what the tokens do."""
    place = {Neighbour.HORIZONTAL: (0, 1), Neighbour.VERTICAL: (1, 0)}.get(which)
    found = [o.coarse_interval_nats[0] for o in offsets if (o.rows, o.columns) == place]
    return max([0.0, *found])


def _pairs(
    grids: TokenGrids, which: Neighbour, shared_nats: float, *, tolerance_nats: float
) -> Pairs | None:
    if which is Neighbour.RASTER and grids.ids_UVHW.shape[2] == 1:
        return None  # the same as horizontal
    found = neighbours(grids.ids_UVHW, which)
    if found is None:
        return None
    first, second = (draws_of(side, alphabet=grids.alphabet) for side in found)
    return estimate_pairs(first, second, tolerance_nats=tolerance_nats, shared_nats=shared_nats)


def _bigram(pairs: Pairs) -> dict[str, Any]:
    return {
        "entropy": entropy_of(pairs.pair).as_json(),
        "kl_from_uniform": pairs.kl.as_json(),
        "conditional_entropy": pairs.conditional.as_json(),
        "mutual_information": pairs.mutual_information.as_json(),
        **pairs.pair.as_json(),
    }


def _subcodes(
    grids: TokenGrids, split_bits: int | None, *, tolerance_nats: float
) -> list[dict[str, Any]]:
    if split_bits is None:
        return []
    parts = []
    for part in grids.subcodes(split_bits):
        found = estimate(token_draws(part), tolerance_nats=tolerance_nats)
        parts.append({**_facts(part), **_usage(part, found), "unigram": _unigram(found)})
    return parts
