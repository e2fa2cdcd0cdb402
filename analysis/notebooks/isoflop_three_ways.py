"""isoFLOP three ways: parabola, cubic and Akima on one table, then three roads to the optimum.

From the root of the checkout: python -m marimo edit analysis/notebooks/isoflop_three_ways.py
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
    import numpy as np
    import pandas as pd

    from analysis import figures, fit, from_frame, optimum
    from analysis.frontier import Value
    from analysis.isoflop import isoflop

    E, A, B, a, b = 1.8, 1000.0, 400.0, 0.40, 0.27  # unequal exponents: lopsided bowls
    TRUE_EXPONENT = b / (a + b)  # of N*(C); Hoffmann et al. 2022, equation 4
    SEED = 20
    COLUMNS = {name: (name, "count") for name in ("N", "D", "C")}
    COLUMNS |= {"loss": ("loss", "nats/token")}


@app.cell
def _():
    mo.md(f"""
    # isoFLOP three ways

    At one budget of C FLOPs, a small model sees many tokens and a large one few. The loss against
    N is a bowl, and its lowest point N* is the best size for that budget. The question is how N*
    grows: `N* ~ C^x`.

    No table is downloaded here. The runs are made from a law whose answer is known,
    `L = {E} + {A} N^-{a} + {B} D^-{b}`, so the true exponent is **{TRUE_EXPONENT:.4f}** and every
    error below is an error of the method. Its two exponents differ, so its bowls are lopsided.
    """)
    return


@app.cell
def _():
    def best_size(budget_flops):
        """The true N* of the law at C = 6 N D."""
        return (a * A / (b * B)) ** (1 / (a + b)) * (budget_flops / 6) ** TRUE_EXPONENT

    def bowls_table(*, noise, drift, sizes=7, step=3.0, shift=1.0, seed=SEED):
        """`sizes` runs a factor `step` apart at each budget; their middle is shift C^drift N*."""
        rng = np.random.default_rng(seed)
        rows = []
        for budget in np.geomspace(1e18, 1e21, 6):
            middle = shift * best_size(budget) * (budget / 10**19.5) ** drift
            n = middle * step ** (np.arange(sizes) - (sizes - 1) / 2)
            d = budget / 6 / n
            loss = (E + A * n**-a + B * d**-b) * np.exp(noise * rng.standard_normal(sizes))
            rows.append(pd.DataFrame({"N": n, "D": d, "C": budget, "loss": loss}))
        return from_frame(pd.concat(rows), columns=COLUMNS, source="bowls")

    exact = bowls_table(noise=0.0, drift=0.08)
    noisy = bowls_table(noise=0.001, drift=0.08, sizes=9, step=1.8)
    return best_size, bowls_table, exact, noisy


@app.cell
def _(best_size, exact):
    def compared(table):
        """Exponent and N* at the middle budget by interpolant, against the truth."""
        rows = []
        for name in ("parabola", "cubic", "akima"):
            found = isoflop(table, how=name, level=0.9)
            slope = found.road.exponent_n
            middle = found.minima[len(found.minima) // 2]
            off = np.exp(middle.log_n) / best_size(middle.bowl.budget_flops) - 1
            row = {"interpolant": name, "N* off by (%)": 100 * off, "exponent": slope.value}
            rows.append(row | {"low": slope.low, "high": slope.high, "true": TRUE_EXPONENT})
        return pd.DataFrame(rows).round(4)

    without_noise = compared(exact)
    mo.vstack(
        [
            mo.md("""
    ## 1. Without noise: the parabola is biased

    Seven sizes, a factor 3 apart, at each of six budgets. The sizes were not centred on N*, which
    nobody knows beforehand: small budgets got sizes a little too small, large ones a little too
    large. A parabola is even to both sides and a bowl is not, so its lowest point is shifted, and
    by another amount at each budget. **No run has any noise, and the interval of its exponent
    misses the truth.** Akima's interpolant goes through every point and asks for no shape; the
    cubic can lean.
    """),
            mo.plain_text(without_noise.to_string(index=False)),
        ]
    )
    return compared, without_noise


@app.cell
def _(bowls_table):
    def repeated(tables=40):
        """Errors and coverage of the exponent by interpolant over tables that differ in noise."""
        made = [
            isoflop(
                bowls_table(noise=0.001, drift=0.08, sizes=9, step=1.8, seed=seed),
                level=0.9,
                draws=200,
            ).compared
            for seed in range(tables)
        ]
        rows = []
        for name in ("parabola", "cubic", "akima"):
            found = [value for one in made if isinstance(value := one[name], Value)]
            low, value, high = np.array([(one.low, one.value, one.high) for one in found]).T
            rows.append(
                {
                    "interpolant": name,
                    "mean error": np.mean(value - TRUE_EXPONENT),
                    "spread of errors": np.std(value),
                    "mean width": np.mean(high - low),
                    "refused": tables - len(found),
                    "holds the truth (%)": 100
                    * np.mean((low <= TRUE_EXPONENT) & (TRUE_EXPONENT <= high)),
                }
            )
        return pd.DataFrame(rows).round(4)

    with_noise = repeated()
    mo.vstack(
        [
            mo.md("""
    ## 2. With noise of 0.1 % a run

    The noise is read from the bowls themselves. Every bowl is shaken with it, and the spread of
    the minima is their standard error; the line through the minima gives the exponent with its
    interval. Sizes are closer here (nine, a factor 1.8), which makes the parabola's bias small
    and its minima steady. Forty tables, which differ in nothing but their noise. An interval
    that can be believed holds the truth about 90 times in 100. Akima follows every point: it pays
    for asking for no shape with a wider interval.
    """),
            mo.plain_text(with_noise.to_string(index=False)),
        ]
    )
    return (with_noise,)


@app.cell
def _(noisy):
    law = fit("separable", noisy, loss="squares")
    roads = optimum(noisy, targets=[1e21, 1e22], law=law)
    mo.vstack(
        [
            mo.md("""
    ## 3. Three roads from one table

    `optimum(table)` (and `python -m analysis optimum FILE`) takes all roads and reports where they
    disagree. The envelope needs training curves, which this table has not: it is **refused by
    name**, not left out. The parametric road has the narrowest interval, because here its form is
    exactly right. On real runs nobody promises that: look at the disagreement first.
    """),
            mo.Html(figures.svg(roads.plot_bowls(), "bowls")),
            mo.Html(figures.svg(roads.plot(), "frontier")),
            mo.plain_text(roads.summary()),
        ]
    )
    return law, roads


@app.cell
def _(bowls_table):
    far = isoflop(bowls_table(noise=0.0, drift=0.0, shift=0.01), level=0.9)
    few = isoflop(bowls_table(noise=0.0, drift=0.0, sizes=3), level=0.9)
    mo.vstack(
        [
            mo.md("""
    ## 4. Bowls that have no answer

    If the lowest loss is at the smallest or the largest size, the minimum lies outside, and no
    interpolant knows where. With three sizes there is no bowl. Both are refused.
    """),
            mo.plain_text(
                f"sizes a hundred times below N*: {far.road.standing.value}: {far.road.reason}"
            ),
            mo.plain_text(f"three sizes: {few.road.standing.value}: {few.road.reason}"),
        ]
    )
    return far, few


if __name__ == "__main__":
    app.run()
