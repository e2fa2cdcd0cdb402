"""A first fit: from records of runs to a law, its interval and a forecast.

From the root of the checkout: python -m marimo edit analysis/notebooks/first_fit.py
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium")

with app.setup:
    import sys
    from pathlib import Path

    ROOT = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(ROOT))

    import marimo as mo

    from analysis import figures, fit, forecast, read_runs

    STUDY = ROOT / "experiments/01_first_ladder/results/first_ladder_dead_leaves"


@app.cell
def _():
    mo.md("""
    # A first fit

    We trained one kind of model at several sizes, on equally many tokens. The loss falls with the
    size. **Is there a law, and what does it say about a size that nobody has trained?**

    A law here is `L(N) = E + A N^-a`. N counts parameters. E is the floor: the loss that no size
    takes away. a says how fast the rest falls. All losses are nats per token.
    """)
    return


@app.cell
def _():
    table = read_runs(STUDY).at_common_tokens()
    mo.vstack(
        [
            mo.md(f"""
    ## The runs

    `read_runs(DIR)` reads the record of every finished run. `at_common_tokens()` keeps those that
    saw equally many tokens: a law of N alone is a law at one D. Here D is
    {table.held["D"]:,.0f} tokens, {len(table)} runs are kept, and {len(table.not_used)} runs with
    fewer tokens are not used. The last column is the standard error of the loss over the
    validation images.
    """),
            mo.plain_text(
                table.runs[
                    ["name", "N", "D_tokens", "loss_nats_per_token", "loss_se_nats_per_token"]
                ].to_string(index=False)
            ),
        ]
    )
    return (table,)


@app.cell
def _(table):
    law = fit("power_floor_N", table)
    mo.vstack(
        [
            mo.md("""
    ## The law

    `fit(FORM, table)` tries many starts and keeps the lowest. It is accepted only with a
    **certificate**: the gradient there is zero to rounding. Each interval comes from 1,000 refits
    of resampled residuals.

    - **in-domain residual**: how far a run lies from the law, inside the data, in log units
      (0.01 is 1 %).
    - **forward**: the largest runs are taken away and forecast by the rest. This is the honest
      test of a law that will be asked beyond its data.
    - **widening**: by how much forward errors were larger than expected. Intervals ahead of the
      data are multiplied by it.
    """),
            mo.plain_text(law.summary()),
        ]
    )
    return (law,)


@app.cell
def _(law):
    mo.vstack(
        [
            mo.Html(figures.svg(law.plot(), "law")),
            mo.md("""
    The dark band is where the law may lie. The light band is where a **new run** may lie, and is
    what a forecast needs: one run also has noise of its own. Look at the residuals below. If they
    bend, the form is wrong, and no number of runs will mend it.
    """),
            mo.Html(figures.svg(figures.residuals(law), "residuals")),
        ]
    )
    return


@app.cell
def _(law):
    ahead = law.predict(N=[4e5, 1e6, 4e6], level=0.9).frame()
    made = forecast(law, N=1e6)
    mo.vstack(
        [
            mo.md("""
    ## A forecast

    `distance` is the factor beyond the largest run. The interval grows with it. To be judged
    later, a forecast is written down before the run is trained:
    `python -m analysis forecast DIR --n 1e6 --freeze forecast.json`, and then
    `python -m analysis verify DIR`.
    """),
            mo.plain_text(ahead.round(4).to_string(index=False)),
            mo.plain_text(made.sentence),
        ]
    )
    return ahead, made


@app.cell
def _(table):
    refused = fit("separable", table)
    mo.vstack(
        [
            mo.md("""
    ## A law that these runs cannot carry

    `L(N, D) = E + A N^-a + B D^-b` needs runs that differ in D. All of these have one D. Least
    squares would return numbers all the same; here you get the reason, and asking for numbers is
    an error.
    """),
            mo.plain_text(refused.summary()),
        ]
    )
    return (refused,)


if __name__ == "__main__":
    app.run()
