"""The tables and the figure of the answer, from the committed records.

python experiments/10_repeats/figure.py
"""

import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from analysis import fit, read_runs  # noqa: E402
from analysis.table import from_frame  # noqa: E402

UNIQUE = HERE.parent / "06_surface" / "results" / "surface_eurosat"
TOKENS_PER_IMAGE = 192
COLUMNS = {name: (name, "count") for name in ("N", "D", "U")} | {"loss": ("loss", "nats/token")}


def frame_of(folder: pathlib.Path):
    """N, D, U (what was seen at least once) and loss of the runs below a folder."""
    import pandas as pd

    table = read_runs(folder)
    variables = {name: table.variable(name) for name in ("N", "D", "U")}
    return pd.DataFrame(variables | {"loss": table.loss})


def say(repeated, law) -> None:
    """Each run against the law of as many new tokens, and what its repeats were worth."""
    print("| images | N | epochs | loss | law of new tokens | ratio | worth of a repeat |")
    print("|---|---|---|---|---|---|---|")
    for row in repeated.sort_values(["U", "N", "D"]).itertuples():
        new = float(np.exp(law.estimate.predict(np.array([[row.N, row.D]])))[0])
        worth = worth_of(row, law)
        images, epochs = row.U / TOKENS_PER_IMAGE, row.D / row.U
        losses = f"{row.loss:.4f} | {new:.4f} | {row.loss / new:.3f}"
        print(f"| {images:,.0f} | {row.N:,.0f} | {epochs:.0f} | {losses} | {worth} |")


def worth_of(row, law) -> str:
    """(D' - U) / (D - U) with D' the new tokens that the law wants for this loss."""
    grid = np.geomspace(row.U / 30, 30 * row.D, 20_000)
    at = np.stack([np.full_like(grid, row.N), grid], axis=-1)
    losses = np.exp(law.estimate.predict(at))
    if row.loss < losses[-1]:
        return "above 1"
    equal = float(np.interp(-row.loss, -losses, grid))
    return f"{(equal - row.U) / (row.D - row.U):.2f}"


def main() -> None:
    """Print and draw what is in results."""
    import matplotlib
    import pandas as pd

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "repeats"
    from matplotlib import pyplot

    unique = frame_of(UNIQUE)
    repeated = pd.concat(map(frame_of, sorted((HERE / "results").glob("repeats_*[0-9]"))))
    law = fit("separable", read_runs(UNIQUE))
    say(repeated, law)
    both = pd.concat([unique, repeated])
    for name, most in (("all runs", np.inf), ("to 16 epochs", 16), ("to 8 epochs", 8)):
        frame = both[both["D"] <= 1.01 * most * both["U"]]
        found = fit("repeats", from_frame(frame, columns=COLUMNS), draws=400)
        said = (
            f"{key} {found.params[key]:.3g} [{each.low:.3g}, {each.high:.3g}]"
            for key, each in found.intervals.items()
        )
        print(f"{name} ({len(frame)}): {found.status.value}; {', '.join(said)}")
        print(f"    residual {found.residual_sd:.4f} (log)")
    figure, axes = pyplot.subplots(1, 2, figsize=(7.6, 3.2), layout="constrained", sharey=True)
    for ax, (n, runs) in zip(axes, repeated.groupby("N"), strict=True):
        own = unique[unique["N"] == n].sort_values("D")
        ax.plot(own["D"], own["loss"], "ko-", markersize=3, linewidth=1, label="one epoch at most")
        grid = np.geomspace(own["D"].min(), runs["D"].max(), 200)
        at = np.stack([np.full_like(grid, n), grid], axis=-1)
        ax.plot(grid, np.exp(law.estimate.predict(at)), "k:", linewidth=1, label="its law")
        for number, u in enumerate(np.unique(runs["U"].to_numpy(float))):
            each = runs[runs["U"] == u].sort_values("D")
            label = f"{u / TOKENS_PER_IMAGE:,.0f} images, 2 to 32 epochs"
            ax.plot(
                each["D"],
                each["loss"],
                "o-",
                color=f"C{number}",
                markersize=3,
                linewidth=1,
                label=label,
            )
        ax.set(xscale="log", xlabel="tokens seen", title=f"N = {n:,.0f}")
        ax.legend(frameon=False, fontsize=6)
    axes[0].set_ylabel("validation loss, nats/token")
    figure.savefig(HERE / "results" / "repeats.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
