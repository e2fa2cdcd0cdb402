"""Coverage of 90 % intervals where the law is true: parameters, optimum, a run 10x ahead."""

from __future__ import annotations

import time

from benchmarks.rows import Row, within

TRUE = {"E": 1.8, "A": 480.0, "a": 0.35, "B": 2000.0, "b": 0.37}
NOISE = 0.003  # of the log loss
REPETITIONS = 500
AHEAD = 10.0**0.5  # in N and in D: ten times the compute
LEVEL = 0.9


def _truth(n, d):
    return TRUE["E"] + TRUE["A"] * n ** -TRUE["a"] + TRUE["B"] * d ** -TRUE["b"]


def _exponent_and_optimum(law, compute: float):
    """Exponent of N*(C), and N* at that compute (Hoffmann et al. 2022, equation 4)."""
    a_amp, a, b_amp, b = (law[key] for key in ("A", "a", "B", "b"))
    exponent = b / (a + b)
    return exponent, (a * a_amp / (b * b_amp)) ** (1 / (a + b)) * (compute / 6) ** exponent


def _table(count: int, rng):
    """A square design of count runs of the true law with noise, and its largest N and D."""
    import numpy as np
    import pandas as pd

    from analysis.table import from_frame

    side = round(count**0.5)
    n, d = (
        grid.ravel()
        for grid in np.meshgrid(np.geomspace(2e7, 2e9, side), np.geomspace(1e9, 1e11, side))
    )
    frame = pd.DataFrame(
        {"N": n, "D": d, "L": _truth(n, d) * np.exp(NOISE * rng.normal(size=count))}
    )
    columns = {key: (key, "count") for key in ("N", "D")} | {"loss": ("L", "nats/token")}
    return from_frame(frame, columns=columns), n.max(), d.max()


def _repetition(count: int, rng) -> dict[str, bool]:
    """One simulated table of count runs: which intervals hold the truth."""
    import numpy as np

    from analysis.fit import fit

    table, most_n, most_d = _table(count, rng)
    found = fit("separable", table, loss="squares", level=LEVEL, seed=int(rng.integers(1 << 30)))
    out = {
        name: interval.low <= TRUE[name] <= interval.high
        for name, interval in found.intervals.items()
    }
    public = found.form.public(found.draws.theta, found.estimate.scale)
    compute = 6 * most_n * most_d * AHEAD**2
    drawn = _exponent_and_optimum(public, compute)
    true = _exponent_and_optimum(TRUE, compute)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    for name, draws, value in zip(("exponent of N*", "N*"), drawn, true, strict=True):
        low, high = np.quantile(draws, tails)
        out[name] = bool(low <= value <= high)
    return out | {"run 10x ahead": _covers(found, most_n * AHEAD, most_d * AHEAD, rng)}


def _covers(found, n: float, d: float, rng) -> bool:
    """Whether the interval of a new run at n, d holds one."""
    import numpy as np

    made = found.predict(N=n, D=d, level=LEVEL)
    run = _truth(n, d) * np.exp(NOISE * rng.normal())
    return bool(made.low[0] <= run <= made.high[0])


def _averaged(count: int, rng) -> bool:
    """The same for the average of the laws that fit, which does not know the true one."""
    from analysis.compare import compare

    table, most_n, most_d = _table(count, rng)
    return _covers(compare(table), most_n * AHEAD, most_d * AHEAD, rng)


def coverage(repetitions: int = REPETITIONS) -> list[Row]:
    """The smallest and largest coverage over all quantities, for 9, 16 and 25 runs."""
    import numpy as np

    out, start = [], time.process_time()
    for count in (9, 16, 25):
        rng = np.random.default_rng(count)
        made = [_repetition(count, rng) for _ in range(repetitions)]
        shares = {name: float(np.mean([one[name] for one in made])) for name in made[0]}
        low, high = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
        name = f"law true, n = {count}: coverage of 90 % ({low} lowest, {high} highest)"
        out.append(within(name, shares[low], shares[high], (0.86, 0.94)))
    for count in (16, 36, 64):
        rng = np.random.default_rng(count)
        share = float(np.mean([_averaged(count, rng) for _ in range(repetitions // 2)]))
        name = f"law true, n = {count}: average of four laws, a run 10x ahead"
        out.append(within(name, share, share, (0.86, 0.94)))
    spent = time.process_time() - start
    return [*out, Row("law true: CPU seconds of all repetitions", f"{spent:.0f}", "", None)]
