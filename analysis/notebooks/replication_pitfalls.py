"""Three ways to get a published fit wrong: the loss, the scale of the objective, the stopping.

From the root of the checkout: python -m marimo edit analysis/notebooks/replication_pitfalls.py
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium")

with app.setup:
    import os
    import sys
    from pathlib import Path

    ROOT = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: threads only wait

    import marimo as mo
    import numpy as np
    import pandas as pd
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    from analysis import fit, from_frame, solver
    from analysis.losses import Huber

    TRUE = {"E": 1.8172, "A": 477.8, "a": 0.3473, "B": 2143.4, "b": 0.3672}
    SEED, RUNS, SPREAD = 7, 240, 0.004
    DRAWS, STARTS = 100, 24
    COLUMNS = {"N": ("N", "count"), "D": ("D", "count"), "loss": ("loss", "nats/token")}


@app.cell
def _():
    folder = os.environ.get("TFDS_MANUAL_DIR")
    public = Path(folder) / "laws" / "takano_llm.csv" if folder else None

    def synthetic():
        """240 runs of the refitted Chinchilla law, with heavy tails of noise."""
        rng = np.random.default_rng(SEED)
        n = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), RUNS))
        d = np.exp(rng.uniform(np.log(1e9), np.log(3e11), RUNS))
        law = TRUE["E"] + TRUE["A"] * n ** -TRUE["a"] + TRUE["B"] * d ** -TRUE["b"]
        noise = SPREAD * rng.standard_t(3, RUNS)
        return pd.DataFrame({"N": n, "D": d, "loss": law * np.exp(noise)})

    if public is not None and public.is_file():
        frame, said = pd.read_csv(public), f"The public table {public.name}, {{}} runs."
    else:
        frame = synthetic()
        said = (
            f"A **synthetic** table of {{}} runs: the parameters of Besiroglu et al. 2024, noise "
            f"with heavy tails (Student's t of 3 degrees, scale {SPREAD}), seed {SEED}. Put "
            "takano_llm.csv into the folder laws of TFDS_MANUAL_DIR to use that table instead."
        )
    table = from_frame(frame, columns=COLUMNS, source="pitfalls")
    mo.md(f"""
    # Pitfalls of replication

    Hoffmann et al. 2022 fitted `L(N, D) = E + A N^-a + B D^-b` with Huber's loss on log residuals.
    Besiroglu et al. 2024 (arXiv:2404.10102) could not reproduce the fit. Three of the reasons can
    be seen on any table of this kind.

    {said.format(len(table))}
    """)
    return (table,)


@app.cell
def _(table):
    losses = [("squares", None), ("huber", 1e-2), ("huber", 1e-3), ("huber", 1e-4), ("lad", None)]
    fits = {
        name if delta is None else f"{name} {delta:g}": fit(
            "separable", table, loss=name, delta=delta, starts=12
        )
        for name, delta in losses
    }
    by_loss = pd.DataFrame(
        {
            name: {"status": found.status.value} | ({} if found.status.refused else found.params)
            for name, found in fits.items()
        }
    ).T
    beyond = np.mean(np.abs(fits["huber 0.001"].residuals) > 1e-3)
    mo.vstack(
        [
            mo.md(f"""
    ## 1. Huber with delta 1e-3 is practically LAD

    Huber's loss is a square up to delta and a straight line beyond. At delta = 1e-3,
    **{beyond:.0%}** of these runs lie on the straight part. So it minimises absolute deviations
    and is no compromise: its optimum has corners nearby, where an ordinary optimiser crawls. A
    compromise would have delta near the noise of a run. A loss that reaches no certified minimum
    shows its status and no numbers.
    """),
            mo.plain_text(by_loss.to_string(float_format="{:.4f}".format)),
        ]
    )
    return by_loss, fits


@app.cell
def _(fits):
    best = fits["huber 0.001"].estimate
    log_x, measured = np.log(best.points.x), np.log(best.points.loss)

    def objective(theta, weight, factor):
        """The published one: theta = (log E, log A, log B, a, b); times a factor; and gradient."""
        floor, amp_n, amp_d, a, b = theta
        terms = np.stack(
            [np.full(len(measured), floor), amp_n - a * log_x[:, 0], amp_d - b * log_x[:, 1]]
        )
        total = logsumexp(terms, axis=0)
        share = np.exp(terms - total)
        residual = measured - total
        slope = np.vstack([share, -share[1:] * log_x.T])
        value = weight @ best.loss.rho(residual)
        return factor * value, -factor * slope @ (weight * best.loss.psi(residual))

    def lbfgs(start, weight, factor, **options):
        """SciPy's L-BFGS-B with its default stopping rules, as much published code uses it."""
        return minimize(
            objective, start, args=(weight, factor), jac=True, method="L-BFGS-B", options=options
        )

    return best, lbfgs


@app.cell
def _(best, fits, lbfgs):
    def outcome(factor):
        """The lowest of some starts for the objective times that factor."""
        draw = np.random.default_rng(0).uniform
        lows, highs = (-1, 0, 0, 0, 0), (1, 25, 25, 2, 2)
        starts = [draw(lows, highs) for _ in range(STARTS)]
        made = [lbfgs(start, np.ones(len(best.points.loss)), factor) for start in starts]
        lowest = min(made, key=lambda one: one.fun)
        floor, amp_n, amp_d, a, b = lowest.x
        return {
            "E": np.exp(floor), "A": np.exp(amp_n), "a": a, "B": np.exp(amp_d), "b": b,
            "objective over optimum": lowest.fun / factor / best.objective,
            "says converged": f"{np.mean([one.success for one in made]):.0%}",
        }  # fmt: skip

    runs = len(best.points.loss)
    scaled = {"mean over runs": outcome(1 / runs), "sum over runs": outcome(1.0)}
    scaled["sum, times 1e4"] = outcome(1e4)
    scaled["fit(...)"] = fits["huber 0.001"].params | {
        "objective over optimum": 1.0, "says converged": "certified"
    }  # fmt: skip
    by_scale = pd.DataFrame(scaled).T
    mo.vstack(
        [
            mo.md(f"""
    ## 2. The scale of the objective decides where the optimiser stops

    Default stopping rules are absolute: L-BFGS-B stops where no entry of the gradient is above
    1e-5, or where a step gains less than 2e-9. The **mean** of Huber's loss at the optimum is
    {best.objective / runs:.0e} here. So both rules hold far from the optimum: the optimiser stops
    after a few steps and says that it has converged. The rows differ by a constant factor and in
    nothing else; each is the lowest of the same {STARTS} random starts. The last row is ours. Its
    certificate is a cosine between residuals and gradient, which has no units
    ({best.certificate:.0e}).
    """),
            mo.plain_text(by_scale.to_string(float_format="{:.4f}".format)),
        ]
    )
    return (by_scale,)


@app.cell
def _(best, fits, lbfgs):
    rng = np.random.default_rng(SEED)
    count = len(best.points.loss)
    times = rng.multinomial(count, np.full(count, 1 / count), DRAWS).astype(float)
    own = fits["huber 0.001"].params
    warm = np.array([*np.log([own["E"], own["A"], own["B"]]), own["a"], own["b"]])

    log_loss = np.log(best.points.loss) - best.scale.log_loss
    certified = solver.solve(
        best.problem, y=log_loss, w=times, starts=np.tile(best.theta, (DRAWS, 1))
    )
    full = float(np.std(best.form.public(certified.theta, best.scale)["a"], ddof=1))

    def stopped(limit):
        """Refits of at most `limit` steps from the fit: standard error of a, excess objective."""
        made = [lbfgs(warm, weight, 1e4, maxiter=limit) for weight in times]
        excess = np.array([one.fun / 1e4 for one in made]) / certified.objective - 1
        spread = float(np.std([one.x[3] for one in made], ddof=1))
        return {
            "refits of": f"{limit} steps",
            "SE of a": spread,
            "of the true SE": f"{spread / full:.0%}",
            "objective too high by": f"{np.median(excess):.2%}",
        }

    share = f"certified ({certified.certified.mean():.0%} of refits)"
    last = {"refits of": share, "SE of a": full, "of the true SE": "100%"}
    by_steps = pd.DataFrame(
        [*(stopped(limit) for limit in (5, 10, 20, 40)), last | {"objective too high by": "0"}]
    )
    mo.vstack(
        [
            mo.md(f"""
    ## 3. Refits that stop early understate the error

    A bootstrap refits the law to resampled runs; the spread of the refits is the standard error.
    To save time each refit starts at the fitted law. One that stops early has **not gone far
    enough away**, so the spread is too small: the less work is done, the better the interval
    looks. The same {DRAWS} resamples in every row. The loss hardly shows it, as the last column
    says; the gradient does.
    """),
            mo.plain_text(by_steps.to_string(index=False, float_format="{:.4f}".format)),
        ]
    )
    return by_steps, certified


@app.cell
def _():
    _delta = Huber().delta
    mo.md(f"""
    ## What this package does

    `fit` keeps Huber with delta {_delta:g} as its default because published fits use it, goes to
    it through larger deltas, and gives no number without a certificate. Refits without one are
    counted, reported and not used. For new tables `loss="squares"` or a delta near the noise is
    the better choice; `python -m analysis fit DIR --loss huber --delta 0.01`.
    """)
    return


if __name__ == "__main__":
    app.run()
