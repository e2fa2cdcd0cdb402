"""The Huber fit of a Chinchilla-sized table: starts that arrive, bootstrap refits, certificates.

The table is kyo-takano's copy of the Chinchilla points (234 of the 240 of Besiroglu et al. 2024).
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.rows import Row, row

STARTS = 1000
REFITS = 4000


def solving(folder: Path) -> list[Row]:
    """Random starts and pairs-bootstrap refits under Huber (delta 1e-3) and least squares."""
    import numpy as np
    import pandas as pd

    from analysis import solver
    from analysis.forms import separable
    from analysis.losses import Huber, Squares

    frame = pd.read_csv(folder / "takano_llm.csv")
    log_x, log_loss = np.log(frame[["N", "D"]].to_numpy(float)), np.log(frame.loss.to_numpy(float))
    form = separable()
    scale = form.scale(log_x, log_loss)
    z, y = log_x - scale.center, log_loss - scale.log_loss
    free, count = form.pin({}, scale), len(y)
    starts = form.starts(z, y, STARTS, np.random.default_rng(0))
    times = np.random.default_rng(42).multinomial(count, np.full(count, 1 / count), REFITS)
    out = []
    for loss, word, limit in ((Huber(1e-3), "Huber", 20.0), (Squares(), "least squares", 3.0)):
        problem = solver.Problem(form, z, free, loss)
        begin = time.process_time()
        found = solver.solve(problem, y=y, w=np.ones(count), starts=starts)
        spent = time.process_time() - begin
        best = found.objective.min()
        arrived = float(np.mean(found.objective <= best * (1 + 1e-8)))
        theta = found.theta[int(np.argmin(found.objective))]
        if word == "Huber":
            out += [
                row(
                    "Huber fit: share of random starts within 1e-8", arrived, 0.99, best="at least"
                ),
                row("Huber fit: CPU ms a fit", 1e3 * spent / STARTS, 30, form=".2f"),
            ]
        begin = time.process_time()
        refits = solver.solve(problem, y=y, w=times, starts=np.tile(theta, (REFITS, 1)))
        spent = time.process_time() - begin
        full = solver.solve(problem, y=y, w=times, starts=refits.theta, limit=2000, tolerance=1e-11)
        errors = _errors(form, scale, refits.theta), _errors(form, scale, full.theta)
        change = np.max(np.abs(errors[0] / errors[1] - 1))
        out += [
            row(f"{REFITS} refits, {word}: CPU seconds", spent, limit, form=".2f"),
            row(
                f"{REFITS} refits, {word}: certified",
                refits.certified.mean(), 1.0, best="at least",
            ),
            row(f"{REFITS} refits, {word}: standard errors off by", change, 0.005, form=".1e"),
        ]  # fmt: skip
    return out


def _errors(form, scale, theta):
    """Standard deviations of the public parameters over refits."""
    import numpy as np

    return np.array([np.std(values) for values in form.public(theta, scale).values()])
