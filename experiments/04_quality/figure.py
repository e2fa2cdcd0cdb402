"""The figures of the answer: quality.svg, samples.svg (distances by samples), temperature.svg.

python experiments/04_quality/figure.py
"""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from answer import (  # pyrefly: ignore
    EXTRACTOR,
    JUDGED,
    PROBED,
    RESULTS,
    SIZES,
    TOKENS,
    Run,
    Seeds,
    curves,
    grid_of,
    last,
    mean_of,
    read,
    spread,
    values,
)
from matplotlib import pyplot
from matplotlib.ticker import MaxNLocator

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "quality"

DISTANCE = {"fd_eurosat": "FD-eurosat", "kid_eurosat": "KID"}
# Where the name of a kind stands beside its dot: points right and up, and how the text is aligned.
BESIDE = {
    "elm-2-8": (0, 12, "center"), "S0": (-5, 2, "right"), "S2": (5, -11, "left"),
    "S1": (5, -7, "left"), "S1-any": (-5, -7, "right"), "bigr-x0": (-5, 3, "right"),
    "S3": (-5, 3, "right"), "mar": (-5, 4, "right"), "dit": (5, 4, "left"),
    "ar-diffusion": (-5, 4, "right"), "mlm": (7, -3, "left"),
}  # fmt: skip


def bits_and_distance(axis: Any, families: dict[str, Seeds]) -> None:
    """A dot a kind, a colour a tokenizer."""
    for index, tokens in enumerate(name for name in TOKENS if name != "pixels"):
        found = [kind for kind in TOKENS[tokens] if kind in families]
        floor = [
            last(run, "fd_eurosat_reconstructed", EXTRACTOR, "reconstruction")
            for kind in found
            for run in families[kind]
        ]
        for number in [number for number in floor if number is not None][:1]:
            axis.axhline(number, color=f"C{index}", linestyle=":", linewidth=1)
        for place, kind in enumerate(found):
            runs = families[kind]
            distances = [last(run, "fd_eurosat", EXTRACTOR) for run in runs]
            x = mean_of(run["bits"] for run in runs)
            y, half = spread([d for d in distances if d is not None])
            label = tokens if place == 0 else None
            axis.errorbar(x, y, yerr=half, fmt="o", color=f"C{index}", capsize=2, label=label)
            right, up, side = BESIDE.get(kind, (5, 4, "left"))
            axis.annotate(
                *(kind, (x, y), (right, up)), textcoords="offset points", fontsize=7, ha=side
            )
    axis.set_xscale("log")
    axis.set_xlim(420, 2000)
    axis.set_xticks([500, 1000, 1500], ["500", "1,000", "1,500"])
    axis.minorticks_off()
    axis.set(xlabel="bits/image", ylabel="FD-eurosat (conv)", title="likelihood and images")
    axis.legend(fontsize=7)


def curve(
    axis: Any, x: Sequence[float], each: Sequence[tuple[float, float]], *, color: str, label: str
) -> None:
    """Means with half their intervals."""
    mean, half = zip(*each, strict=True)
    axis.errorbar(x, mean, yerr=half, fmt="o-", color=color, capsize=2, markersize=4, label=label)


def by_layer(
    axis: Any,
    runs: dict[str, Seeds],
    names: Sequence[str],
    of: Callable[[Run], list[float]],
    first: int,
) -> None:
    """A curve a name: means over seeds, from the first layer on."""
    for index, name in enumerate(name for name in names if name in runs):
        measured = [found for run in runs[name] if (found := of(run))]
        each = [spread(list(layer)) for layer in zip(*measured, strict=True)]
        layers = range(first, first + len(each))
        curve(axis, layers, each, color=f"C{index}", label=name)
    axis.legend(fontsize=7)


def probed(run: Run) -> list[float]:
    """Top-1 of each layer, percent."""
    return [100 * value["value"] for value in values(run, "probe", "probe_top1")]


def reached(run: Run) -> list[float]:
    """Mean attention distance of each block as a share of that of even attention."""
    own, even = (
        [value["value"] for value in values(run, "attention", f"attention_{name}distance_cells")]
        for name in ("", "uniform_")
    )
    return [a / b for a, b in zip(own, even, strict=True)]


def heat(axis: Any, sizes: dict[str, Seeds]) -> None:
    """Distance against temperature at all codes and no guidance, a curve a size."""
    for index, size in enumerate(name for name in SIZES if name in sizes):
        grids = [grid for run in sizes[size] if (grid := grid_of(run, EXTRACTOR))]
        points = sorted({p for grid in grids for p in grid if p[1] == 0 and p[2] == 1})
        each = [spread([grid[p]["value"] for grid in grids if p in grid]) for p in points]
        temperatures = [point[0] for point in points]
        curve(axis, temperatures, each, color=f"C{index}", label=size)
    axis.set(xlabel="temperature", ylabel="FD-eurosat (conv)", title="randomness, 512 samples")
    axis.legend(fontsize=7)


def by_samples(axis: Any, families: dict[str, Seeds], metric: str) -> None:
    """A curve a kind on tokens, a colour a tokenizer, moved apart in x; its name at its end."""
    counts, ends = JUDGED["counts"], []
    of = {kind: f"C{i}" for i, name in enumerate(list(TOKENS)[1:]) for kind in TOKENS[name]}
    for place, kind in enumerate(kind for kind in of if kind in families):
        found = [curves(run, metric, EXTRACTOR) for run in families[kind]]
        found = [each for each in found if counts[0] in each]
        each = [of_kind([points[count] for points in found]) for count in counts]
        x = [count * 1.02 ** (place - 6) for count in counts]
        curve(axis, x, each, color=of[kind], label="")
        ends.append((each[-1][0], x[-1], kind))
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.minorticks_off()
    axis.set_xlim(counts[0] / 1.25, counts[-1] * 2.2)
    name_ends(axis, sorted(ends), 1.35 * counts[-1], of)


def name_ends(
    axis: Any, ends: Sequence[tuple[float, float, str]], x: float, colors: dict[str, str]
) -> None:
    """Names of curves at x, as near to their ends (y, x, name) as they are legible."""
    from scipy import optimize

    low, high = axis.get_ylim()
    steps = [(high - low) / 28 * index for index in range(len(ends))]
    moved = optimize.isotonic_regression(
        [y - step for (y, *_), step in zip(ends, steps, strict=True)]
    )
    for (y, end, name), free, step in zip(ends, moved.x, steps, strict=True):
        arrow = {"arrowstyle": "-", "color": colors[name], "linewidth": 0.5, "relpos": (0, 0.5)}
        axis.annotate(
            *(name, (end, y), (x, free + step)),
            **{"fontsize": 8, "color": colors[name], "va": "center", "arrowprops": arrow},
        )


def of_kind(found: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Mean and half of the interval: over seeds, or of the samples where there are fewer."""
    mean, half = spread([value["value"] for value in found])
    return mean, half or (found[0]["high"] - found[0]["low"]) / 2


def draw_samples(families: dict[str, Seeds]) -> None:
    """Write results/samples.svg."""
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 5), layout="constrained")
    for axis, (metric, name) in zip(axes, DISTANCE.items(), strict=True):
        by_samples(axis, families, metric)
        axis.set(xlabel="samples used", ylabel=f"{name} (conv)")
        axis.grid(alpha=0.2)
    figure.savefig(RESULTS / "samples.svg", metadata={"Date": None})


def draw_temperature(sizes: dict[str, Seeds]) -> None:
    """Write results/temperature.svg: a panel a size, a curve for each guidance and top-k."""
    found = [size for size in SIZES if size in sizes]
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3.8), sharey=True, layout="constrained")
    for axis, size in zip(axes, found, strict=True):
        grids = [grid_of(run, EXTRACTOR) for run in sizes[size]]
        ways = sorted({(guidance, top_k) for _, top_k, guidance in grids[0]})
        for index, (guidance, top_k) in enumerate(ways):
            points = sorted(p for p in grids[0] if p[1:] == (top_k, guidance))
            each = [spread([grid[p]["value"] for grid in grids]) for p in points]
            at = [point[0] + 0.008 * (index - 1.5) for point in points]
            label = f"guidance {guidance:g}, top-k {top_k or 'all'}"
            curve(axis, at, each, color=f"C{index}", label=label)
        axis.set(xlabel="temperature", title=size)
        axis.set_xticks([0.8, 1.0, 1.2])
        axis.grid(alpha=0.2)
    axes[0].set_ylabel("FD-eurosat (conv), 512 samples")
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=4, fontsize=8)
    figure.savefig(RESULTS / "temperature.svg", metadata={"Date": None})


def draw(families: dict[str, Seeds], sizes: dict[str, Seeds]) -> None:
    """Write results/quality.svg."""
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 7), layout="constrained")
    bits_and_distance(axes[0, 0], families)
    by_layer(axes[0, 1], families, PROBED, probed, first=0)
    axes[0, 1].set(xlabel="layer (0: embedding)", ylabel="top-1, %", title="linear probes")
    by_layer(axes[1, 0], sizes, SIZES, reached, first=1)
    axes[1, 0].set(
        xlabel="block", ylabel="distance / that of even attention", title="attention distance"
    )
    heat(axes[1, 1], sizes)
    for axis in axes.ravel():
        axis.grid(alpha=0.2)
    for axis in (axes[0, 1], axes[1, 0]):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(RESULTS / "quality.svg", metadata={"Date": None})


if __name__ == "__main__":
    families, sizes = read("03_families"), read("04_quality_sizes")
    draw(families, sizes)
    draw_samples(families)
    draw_temperature(sizes)
