"""Loss against learning rate over widths and depths; where the best rate goes.

python experiments/07_transfer/figure.py [FOLDER]

FOLDER holds the studies transfer_width and transfer_depth; without it the committed records are
read. Prints the best rate of each size, the slope of its logarithm over that of the size, and
draws results/transfer.svg.
"""

import json
import math
import pathlib
import statistics
import sys

import numpy as np
from scipy import stats

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
LEVEL = 0.9
PANELS = {
    ("width", "mup"): 'width, rule "mup"',
    ("width", "none"): "width, no rule",
    ("depth", "mup"): 'depth, width rule "mup" alone',
    ("depth", "completep"): 'depth, "completep"',
}
TICKS = [a * 10.0**b for b in range(-5, 0) for a in (1, 3)]
SHARED = 2  # blocks: there both rules of depth are the same, and run once


def collect(folder: pathlib.Path) -> dict:
    """Losses (nats/token) by (axis, rule), size, rate: a list over seeds; infinite if diverged."""
    found: dict = {}
    paths = [
        p for axis in ("width", "depth") for p in folder.glob(f"transfer_{axis}/*/record.jsonl")
    ]
    for path in sorted(paths):
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))["config"]
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if lines[-1]["kind"] != "end":
            print(f"note: {lines[0]['name']}: not finished, left out")
            continue
        axis = "width" if path.parents[1].name == "transfer_width" else "depth"
        optimizer = config["optimizer"]
        rules = [optimizer["width_rule"] if axis == "width" else optimizer["depth_rule"]]
        if axis == "depth":
            rules = ["completep" if rules == ["completep"] else "mup"]
            if config["model"]["depth"] == SHARED:
                rules = ["mup", "completep"]
        losses = [row for row in lines if row["kind"] == "evaluation"]
        ended = lines[-1]["status"] == "finished"
        loss = losses[-1]["loss_nats_per_token"] if ended else math.inf
        for rule in rules:
            sizes = found.setdefault((axis, rule), {})
            rates = sizes.setdefault(config["model"][axis], {})
            rates.setdefault(optimizer["learning_rate"], []).append(loss)
    return found


def best_rate(rates: dict) -> tuple[float, bool]:
    """The vertex of the parabola through the lowest mean loss and its neighbours, in log rate.

    At an edge of the grid the point itself, and False.
    """
    grid = sorted(rates)
    means = [statistics.fmean(rates[rate]) for rate in grid]
    at = int(np.argmin(means))
    if at in (0, len(grid) - 1) or not np.isfinite(means[at - 1 : at + 2]).all():
        return grid[at], at not in (0, len(grid) - 1)
    x = np.log2(grid[at - 1 : at + 2])
    a, b, _ = np.polyfit(x - x[1], means[at - 1 : at + 2], 2)
    return float(2 ** (x[1] - b / (2 * a))), True


def slope(sizes: dict) -> str:
    """Of log best rate over log size, with Student's interval; sizes at an edge are left out."""
    found = [(size, *best_rate(rates)) for size, rates in sorted(sizes.items())]
    inside = [(size, rate) for size, rate, whole in found if whole]
    if len(inside) < 3:
        return "too few sizes whose best rate is inside the grid"
    x, y = np.log2(np.array(inside)).T
    fit = stats.linregress(x, y)
    half = stats.t.ppf((1 + LEVEL) / 2, len(x) - 2) * fit.stderr
    left = "" if len(inside) == len(found) else f", {len(found) - len(inside)} at an edge left out"
    return f"{fit.slope:+.2f} ± {half:.2f} ({len(inside)} sizes{left})"


def draw(found: dict, path: pathlib.Path) -> None:
    """A panel for each axis and rule; a line a size, its best rate marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [key for key in PANELS if key in found]
    rows = -(-len(panels) // 2)
    figure, grid = pyplot.subplots(
        rows, 2, figsize=(10, 3.7 * rows), squeeze=False, layout="constrained"
    )
    for key, axes in zip(panels, grid.ravel(), strict=False):
        sizes = found[key]
        shown = [rate for rates in sizes.values() for rate in rates]
        colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(sizes)))
        finite = []
        for color, (size, rates) in zip(colors, sorted(sizes.items()), strict=True):
            given = sorted(rate for rate in rates if np.isfinite(rates[rate]).all())
            means = [statistics.fmean(rates[rate]) for rate in given]
            finite += means
            axes.plot(given, means, "o-", markersize=4, color=color, label=f"{key[0]} {size}")
            for rate in given:
                if len(rates[rate]) > 1:
                    ends = [min(rates[rate]), max(rates[rate])]
                    axes.plot([rate, rate], ends, color=color, linewidth=2, alpha=0.5)
            at = int(np.argmin(means))
            axes.plot(given[at], means[at], marker="*", markersize=14, color=color)
        axes.set(xscale="log", xlabel="learning rate", title=PANELS[key])
        ticks = [tick for tick in TICKS if min(shown) <= tick <= max(shown)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(min(finite) - 0.02, min(finite) + 0.5)
        axes.legend(frameon=False, fontsize="small")
    for axes in grid[:, 0]:
        axes.set_ylabel("validation loss, nats/token")
    for axes in grid.ravel()[len(panels) :]:
        axes.set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print the tables, and draw."""
    found = collect(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
    for (axis, rule), sizes in found.items():
        print(f"\n{axis}, {rule}: slope of the best rate {slope(sizes)}")
        print(f"| {axis} | best rate | its loss | " + "a factor 2 below | above | seeds |")
        print("|---|---|---|---|---|---|")
        for size, rates in sorted(sizes.items()):
            grid = sorted(rates)
            means = [statistics.fmean(rates[rate]) for rate in grid]
            at = int(np.argmin(means))
            vertex, inside = best_rate(rates)
            beside = [
                f"{means[other] - means[at]:+.4f}" if 0 <= other < len(grid) else "edge"
                for other in (at - 1, at + 1)
            ]
            where = f"{grid[at]:.3g} ({vertex:.3g})" if inside else f"{grid[at]:.3g} (edge)"
            seeds = len(rates[grid[at]])
            print(f"| {size} | {where} | {means[at]:.4f} | {' | '.join(beside)} | {seeds} |")
    draw(found, RESULTS / "transfer.svg")


if __name__ == "__main__":
    main()
