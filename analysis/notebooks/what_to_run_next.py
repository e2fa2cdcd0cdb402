"""What to run next: which runs narrow a forecast most for a budget of training FLOPs.

From the root of the checkout: python -m marimo edit analysis/notebooks/what_to_run_next.py
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
    import pandas as pd

    from analysis import figures, fit, next_runs, read_runs
    from analysis.drift import no_drift

    STUDY = ROOT / "experiments/01_first_ladder/results/first_ladder_fashion_mnist"
    TARGET = {"N": 1e6, "D": 2e7}  # parameters, tokens
    BUDGET_FLOPS = 4e13


@app.cell
def _():
    mo.md(f"""
    # What to run next

    We want the loss of a model with {TARGET["N"]:,.0f} parameters on {TARGET["D"]:,.0f} tokens. It
    costs about {6 * TARGET["N"] * TARGET["D"]:.1e} FLOPs. We have {BUDGET_FLOPS:.0e}.
    **Which runs make the forecast narrower, and by how much?**

    The answer needs no training. A run is worth much where the laws that still fit the data
    disagree **and** where that disagreement moves together with the one at the target.
    """)
    return


@app.cell
def _():
    table = read_runs(STUDY)
    laws = [fit(name, table, loss="squares") for name in ("separable", "kaplan")]
    mo.vstack(
        [
            mo.md(f"""
    ## What is known

    Two laws of N and D, fitted to the same {len(table)} runs. Compare their in-domain residuals:
    inside the data they are hard to tell apart. They differ ahead, and runs that tell them apart
    rank high.
    """),
            *(mo.plain_text(law.summary()) for law in laws),
            mo.Html(figures.svg(figures.residuals(laws[0]), "residuals")),
            mo.md("Residuals of the first law: what is left of every run, in per cent."),
        ]
    )
    return laws, table


@app.cell
def _(laws):
    plan = next_runs(laws, target=TARGET, budget_flops=BUDGET_FLOPS)
    mo.vstack(
        [
            mo.md("""
    ## The plan

    Widths are of the 90 % interval of a new run at the target. `noise alone` is what remains
    however well the law is known: no plan goes below it.
    """),
            mo.plain_text(plan.summary()),
        ]
    )
    return (plan,)


@app.cell
def _(plan):
    widths = pd.DataFrame(
        [
            {
                "budget_flops": bought.budget_flops,
                "runs": len(bought.runs),
                "width_before": plan.width_before,
                "width_after": bought.width_after,
                "narrower_percent": 100 * (1 - bought.width_after / plan.width_before),
            }
            for bought in plan.portfolios
        ]
    )
    mo.vstack(
        [
            mo.md("""
    ## Before and after

    What half, once, twice and four times the budget buys, each with the best set of at most six
    runs. Read the last column before asking for more compute.
    """),
            mo.plain_text(widths.to_string(index=False, float_format="{:.4g}".format)),
        ]
    )
    return (widths,)


@app.cell
def _(laws):
    trusting = next_runs(laws, target=TARGET, budget_flops=BUDGET_FLOPS, drift_log=no_drift)
    mo.vstack(
        [
            mo.md(f"""
    ## What if the form were exactly right

    By default a law may drift ahead of its data, by as much as its forward errors showed. With
    `drift_log=no_drift` the form is taken at its word. The forecast is then
    {trusting.width_before:.4f} {trusting.loss_unit} wide before any new run. The difference to
    the plan above is what the form does not know, and only a run nearer to the target can say.
    """),
            mo.plain_text(trusting.summary(most=3)),
        ]
    )
    return (trusting,)


@app.cell
def _(laws, table):
    largest = {name: float(table.variable(name)[-1]) for name in ("N", "D")}
    measured = next_runs(laws[0], target=largest, budget_flops=BUDGET_FLOPS)
    poor = next_runs(laws[0], target=TARGET, budget_flops=1e6)
    mo.vstack(
        [
            mo.md("""
    ## Questions that are refused

    A target that was measured needs no plan, and a budget that pays for no run gets none.
    """),
            mo.plain_text(f"{measured.summary()}\n{poor.summary()}"),
        ]
    )
    return measured, poor


if __name__ == "__main__":
    app.run()
