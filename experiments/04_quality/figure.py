"""The figure of the answer: likelihood and images, probes, attention, randomness.

python experiments/04_quality/figure.py
"""

from collections.abc import Callable, Sequence
from typing import Any

from answer import (  # pyrefly: ignore
    EXTRACTOR,
    PROBED,
    RESULTS,
    SIZES,
    TOKENS,
    Run,
    Seeds,
    grid_of,
    last,
    mean_of,
    read,
    spread,
    values,
)


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
            side = ("left", (4, 4)) if place % 2 == 0 else ("right", (-4, -8))
            axis.annotate(
                *(kind, (x, y), side[1]), textcoords="offset points", fontsize=6, ha=side[0]
            )
    axis.set_xscale("log")
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
    axis: Any, runs: dict[str, Seeds], names: Sequence[str], of: Callable[[Run], list[float]]
) -> None:
    """A curve a name: means over seeds."""
    for index, name in enumerate(name for name in names if name in runs):
        measured = [found for run in runs[name] if (found := of(run))]
        each = [spread(list(layer)) for layer in zip(*measured, strict=True)]
        curve(axis, range(len(each)), each, color=f"C{index}", label=name)
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


def draw(families: dict[str, Seeds], sizes: dict[str, Seeds]) -> None:
    """Write results/quality.svg."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "quality"
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 7), layout="constrained")
    bits_and_distance(axes[0, 0], families)
    by_layer(axes[0, 1], families, PROBED, probed)
    axes[0, 1].set(xlabel="layer (0: embedding)", ylabel="top-1, %", title="linear probes")
    by_layer(axes[1, 0], sizes, SIZES, reached)
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
    draw(read("03_families"), read("04_quality_sizes"))
