"""Our ladder on three data sets: laws side by side, forecasts against what was measured.

From the root of the checkout: python -m marimo edit analysis/notebooks/our_ladder.py
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
    import pandas as pd

    from analysis import compare, figures, read_runs
    from analysis.forecast import judge, read_frozen

    RESULTS = ROOT / "experiments/01_first_ladder/results"
    NAMES = ("dead_leaves", "fashion_mnist", "eurosat")


@app.cell
def _():
    mo.md("""
    # Our ladder

    The same sizes on three data sets, all on equally many tokens, some also on a half and a
    quarter of them. The largest model was forecast first and trained afterwards (experiments/01).
    **Which law do these runs prefer, and did the forecasts hold?**
    """)
    return


@app.cell
def _():
    tables = {name: read_runs(RESULTS / f"first_ladder_{name}") for name in NAMES}
    frozen = {name: read_frozen(RESULTS / f"first_ladder_{name}/forecast.json") for name in NAMES}
    verdicts = {name: judge(frozen[name], tables[name]) for name in NAMES}
    mo.vstack(
        [
            mo.md("""
    ## What was forecast before the run

    These sentences were frozen with the digest of their six runs. The Winkler score is the width
    of the interval, and 20 times the miss is added where a run falls outside a 90 % interval:
    lower is better, in nats per token.
    """),
            mo.plain_text(
                "\n".join(
                    f"{name:14s} {verdict.sentence}; Winkler {verdict.winkler:.4f}"
                    for name, verdict in verdicts.items()
                )
            ),
            mo.md("""
    An interval that truly holds 90 % of runs gives three of three 73 times in 100, and one that
    holds only 70 % still 34 times. Three forecasts do not prove an interval.
    """),
        ]
    )
    return frozen, tables, verdicts


@app.cell
def _(tables):
    sizes = {name: compare(table.at_common_tokens()) for name, table in tables.items()}
    mo.vstack(
        [
            mo.md("""
    ## Laws of N side by side

    `compare(table)` fits every law, takes the largest runs away, and weighs each law by how well
    it forecast them. A law that fits best inside the data is not the one that forecasts best: the
    broken law has the smallest in-domain error, and the runs before the largest are too few to
    fit it, so it counts as the worst. A ladder this short leaves one origin: weights stay soft
    and intervals wide.
    """),
            *(mo.plain_text(f"{name}\n{found.summary()}") for name, found in sizes.items()),
        ]
    )
    return (sizes,)


@app.cell
def _(tables):
    both = {name: compare(table) for name, table in tables.items()}
    mo.vstack(
        [
            mo.md("""
    ## Laws of N and D, from all runs

    Each line `from ... runs` is one origin of the **coverage history**: what was forecast
    from the runs below it, and whether the interval that could be stated then held. From the
    farthest origin none can be stated: it has no past to learn from.
    """),
            *(mo.plain_text(f"{name}\n{found.summary()}") for name, found in both.items()),
            mo.Html(figures.svg(both["fashion_mnist"].plot(), "comparison")),
            mo.md("Fashion-MNIST: weights of the laws, and forward errors by distance."),
        ]
    )
    return (both,)


@app.cell
def _(tables):
    def forecast_of_the_largest(table):
        """The average of the laws from all runs but the largest, against that run."""
        size = table.variable("N")
        largest = size == size.max()
        made = compare(table.select(~largest)).predict(
            N=size[largest], D=table.variable("D")[largest]
        )
        measured = table.loss[largest]
        row = {"forecast": made.loss, "low": made.low, "high": made.high, "measured": measured}
        row["inside"] = (made.low <= measured) & (measured <= made.high)
        return {key: value[0] for key, value in row.items()}

    rows = {name: forecast_of_the_largest(table) for name, table in tables.items()}
    averaged = pd.DataFrame(rows).T
    mo.vstack(
        [
            mo.md("""
    ## The average of the laws, asked the same question

    This is a look back and no forecast: the runs were known when this code was written. It shows
    what `python -m analysis forecast DIR --form average --n ... --d ...` would have said from
    the smaller runs.
    """),
            mo.plain_text(averaged.to_string()),
        ]
    )
    return (averaged,)


if __name__ == "__main__":
    app.run()
