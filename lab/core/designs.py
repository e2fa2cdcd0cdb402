"""Designs of scaling studies: the sweeps that a law can be fitted to.

Each gives overrides (lab/core/sweep.py) that name their runs. `config` is a file of configs, and
sizes are its arguments: `ladder("configs/elm.py", ["s1", "s2"])`. A product of a design with more
axes joins the names: `product(isoflop(...), seeds(3))`.

A design says under "rung" which runs are of use only together, such as all sizes of one budget:
where a budget cuts a design (lab/launch/plan.py) whole rungs fall.
"""

from collections.abc import Iterable, Mapping, Sequence

from lab.core.errors import LabError
from lab.core.sweep import Override, axis, product


def ladder(
    config: str, sizes: Iterable[str], *, tokens_per_parameter: float = 20
) -> list[Override]:
    """Sizes at a fixed ratio of tokens to parameters of the blocks; 20 is Chinchilla's.

    (Hoffmann et al. 2022.) A rung is a size.
    """
    duration = f"{tokens_per_parameter:.12g} tokens_per_parameter"
    return [
        {**_size(config, size), "name": size, "train.duration": duration, "rung": size}
        for size in sizes
    ]


def isoflop(
    config: str,
    sizes: Sequence[str] | Mapping[float, Sequence[str]],
    budgets_flops: Sequence[float],
) -> list[Override]:
    """Every size at every budget of training FLOPs, as the model counts them (not 6 N D).

    `sizes` may be a table from a budget to its sizes. A rung is a budget, whose sizes make one
    parabola (Hoffmann et al. 2022, approach 2).
    """
    table = dict.fromkeys(budgets_flops, sizes) if isinstance(sizes, Sequence) else sizes
    found = []
    for budget in budgets_flops:
        if budget not in table:
            raise LabError(f"isoflop: no sizes for the budget of {budget:g} FLOPs")
        found += [
            {
                **_size(config, size),
                "name": f"{size}-{budget:g}F",
                "train.duration": f"{budget:.12g} flops",
                "rung": f"{budget:g} FLOPs",
            }
            for size in table[budget]
        ]
    return found


def grid(config: str, sizes: Iterable[str], tokens: Sequence[float]) -> list[Override]:
    """L(N, D): every size at every number of tokens, each run with a schedule of its own.

    A rung is a size: a column of the table.
    """
    return [
        {
            **_size(config, size),
            "name": _with_tokens(size, amount),
            "train.duration": f"{amount:.12g} tokens",
            "rung": size,
        }
        for size in sizes
        for amount in tokens
    ]


def cooldowns(
    config: str, sizes: Iterable[str], tokens: Sequence[float], *, fraction: float = 0.2
) -> list[Override]:
    """L(N, D) by branches: of every size one run at a constant rate, and a cooldown per length.

    The runs are those of `grid` under "wsd" with this `optimizer.cooldown_fraction`, number for
    number (lab/core/branches.py); of the updates before the cooldowns only the longest run's are
    made. A rung is a size.
    """
    if not tokens:
        raise LabError("cooldowns: tokens: at least one length is expected")
    if not 0 < fraction < 1:
        raise LabError(f"cooldowns: fraction = {fraction:g}: between 0 and 1 is expected")
    trunk = f"{max(tokens) * (1 - fraction):.12g} tokens"
    common: Override = {"optimizer.cooldown_fraction": fraction}
    found = []
    for size in sizes:
        found.append(
            {
                **_size(config, size),
                **common,
                "name": f"{size}-trunk",
                "train.duration": trunk,
                "optimizer.schedule": "constant",
                "execution.branches": ", ".join(f"{amount:.12g} tokens" for amount in tokens),
                "rung": size,
            }
        )
        found += [
            {**branch, **common, "optimizer.schedule": "wsd", "execution.trunk": trunk}
            for branch in grid(config, [size], tokens)
        ]
    return found


def learning_rates(config: str, sizes: Iterable[str], rates: Sequence[float]) -> list[Override]:
    """Every size (a width, say) at every peak rate. A rung is a size."""
    named = [{"name": f"lr{rate:g}", "optimizer.learning_rate": rate} for rate in rates]
    return product([{**_size(config, s), "name": s, "rung": s} for s in sizes], named)


def seeds(count: int) -> list[Override]:
    """Seeds 0 to `count` - 1, for a product with another design."""
    if count < 1:
        raise LabError(f"seeds: {count}: at least 1")
    return [{**each, "name": f"seed{each['seed']}"} for each in axis("seed", range(count))]


def _size(config: str, size: str) -> Override:
    return {"config": f"{config}:{size}"}


def _with_tokens(size: str, tokens: float) -> str:
    return f"{size}-{tokens / 1e6:g}M"
