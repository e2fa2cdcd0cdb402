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


def _repetition(count: int, rng) -> dict[str, bool]:
    """One simulated table of count runs: which intervals hold the truth."""
    import numpy as np
    import pandas as pd

    from analysis.fit import fit
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
    table = from_frame(frame, columns=columns)
    found = fit("separable", table, loss="squares", level=LEVEL, seed=int(rng.integers(1 << 30)))
    out = {
        name: interval.low <= TRUE[name] <= interval.high
        for name, interval in found.intervals.items()
    }
    public = found.form.public(found.draws.theta, found.estimate.scale)
    compute = 6 * n.max() * d.max() * AHEAD**2
    drawn = _exponent_and_optimum(public, compute)
    true = _exponent_and_optimum(TRUE, compute)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    for name, draws, value in zip(("exponent of N*", "N*"), drawn, true, strict=True):
        low, high = np.quantile(draws, tails)
        out[name] = bool(low <= value <= high)
    far_n, far_d = n.max() * AHEAD, d.max() * AHEAD
    made = found.predict(N=far_n, D=far_d)
    run = _truth(far_n, far_d) * np.exp(NOISE * rng.normal())
    return out | {"run 10x ahead": bool(made.low[0] <= run <= made.high[0])}


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
    spent = time.process_time() - start
    return [*out, Row("law true: CPU seconds of all repetitions", f"{spent:.0f}", "", None)]
