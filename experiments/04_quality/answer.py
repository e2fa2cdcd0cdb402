"""The tables and the figure of the answer, from the quality.jsonl of results/.

python experiments/04_quality/answer.py
"""

import itertools
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results"
LEVEL = 0.90
BITS = 1 / math.log(2)
PIXELS = ("pixel-ar", "pixel-mlm", "pixel-dit")
ON_BITS = ("elm-2-8", "S0", "S1", "S1-any", "S2", "S3", "bigr-bce", "bigr-x0")
SIZES = ("s4", "s6", "s9")
DISTANCES = {
    "fd_eurosat": ".2f",
    "fd_infinity_eurosat": ".2f",
    "kid_eurosat": ".4f",
    "inception_score_eurosat": ".2f",
    "precision_eurosat": ".3f",
    "recall_eurosat": ".3f",
}

EXTRACTOR = "conv"
TOKENS: dict[str, Sequence[str]] = {
    "pixels": PIXELS,
    "1,024 ids": ("llamagen", "mlm"),
    "16 bits": ON_BITS,
    "latents": ("mar", "ar-diffusion", "dit"),
}
KINDS = tuple(kind for kinds in TOKENS.values() for kind in kinds)
PROBED = ("S0", "S1", "S2", "S3")

Run = dict[str, Any]
Seeds = list[Run]


def read(study: str) -> dict[str, Seeds]:
    """Runs of a study by kind: their bits an image, and their lines of quality."""
    found: dict[str, Seeds] = {}
    for path in sorted((RESULTS / study).glob("*/quality.jsonl")):
        record = [json.loads(line) for line in (path.parent / "record.jsonl").open()]
        tasks = [json.loads(line) for line in path.open()]
        last = [r for r in record if r["kind"] == "evaluation" and r["weights"] == "raw"][-1]
        kind, _, seed = record[0]["name"].rpartition("-")
        run = {"seed": int(seed), "bits": last["loss_nats_per_image"] * BITS, "tasks": tasks}
        found.setdefault(kind, []).append(run)
    return {kind: sorted(runs, key=lambda run: run["seed"]) for kind, runs in found.items()}


def values(run: Run, what: str, metric: str, extractor: str = "") -> list[dict[str, Any]]:
    """All values of a metric in a run, in the order of its lines."""
    return [
        {**value, "settings": task["settings"]}
        for task in run["tasks"]
        if task["what"] == what and (not extractor or task["extractor"]["name"] == extractor)
        for value in task["values"]
        if value["metric"] == metric
    ]


def last(run: Run, metric: str, extractor: str, what: str = "fd") -> float | None:
    """The value of the most samples."""
    found = values(run, what, metric, extractor)
    return max(found, key=lambda value: value["samples"])["value"] if found else None


def over_seeds(numbers: Sequence[float | None], form: str) -> str:
    """The mean, and half of Student's interval over seeds where there are three or more."""
    from scipy import stats

    kept = [number for number in numbers if number is not None]
    if not kept:
        return ""
    mean = format(float(np.mean(kept)), form)
    if len(kept) < 3:
        return f"{mean} ({len(kept)} seed{'s' if len(kept) > 1 else ''})"
    t = float(stats.t.ppf(0.5 + LEVEL / 2, len(kept) - 1))
    half = t * float(np.std(kept, ddof=1)) / math.sqrt(len(kept))
    return f"{mean} ± {format(half, form)}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def extractors_of(runs: dict[str, Seeds]) -> list[str]:
    """Names of the extractors that judged."""
    seeds = itertools.chain.from_iterable(runs.values())
    tasks = [task for run in seeds for task in run["tasks"] if task["extractor"]]
    return sorted({task["extractor"]["name"] for task in tasks})


def distance_table(runs: dict[str, Seeds], groups: dict[str, Sequence[str]], extractor: str) -> str:
    """A row a kind: bits, distances, scores; then what its tokenizer alone and real images get."""
    rows = []
    for tokens, kinds in groups.items():
        found = [kind for kind in kinds if kind in runs]
        for kind in found:
            cells = [over_seeds([run["bits"] for run in runs[kind]], ".1f")]
            for metric, form in DISTANCES.items():
                cells.append(over_seeds([last(run, metric, extractor) for run in runs[kind]], form))
            rows.append([kind, *cells])
        of_group = [run for kind in found for run in runs[kind]]
        rows.append(limit_row(f"*{tokens}, reconstructed*", of_group, extractor, "reconstruction"))
        if tokens == "pixels" or tokens == list(groups)[-1]:
            rows.append(limit_row("*real images*", of_group, extractor, "fd"))
    head = ["", "bits/image", "FD", "FD∞", "KID", "IS", "precision", "recall"]
    return table(head, [row for row in rows if any(row[1:])])


def limit_row(name: str, runs: Seeds, extractor: str, what: str) -> list[str]:
    """What no generator on this tokenizer, or on these images, is expected to beat."""
    suffix = {"reconstruction": "_reconstructed", "fd": "_real"}[what]
    cells = []
    for metric, form in DISTANCES.items():
        found = [last(run, metric + suffix, extractor, what) for run in runs]
        kept = [number for number in found if number is not None]
        cells.append(format(kept[0], form) if kept else "")
    return [name, "", *cells]


def probe_table(runs: dict[str, Seeds], order: Sequence[str]) -> str:
    """Top-1 in percent by layer; the best in bold."""
    rows, depth = [], 0
    for kind in (kind for kind in order if kind in runs):
        by_layer: dict[int, list[float]] = {}
        for run in runs[kind]:
            for value in values(run, "probe", "probe_top1"):
                by_layer.setdefault(value["layer"], []).append(100 * value["value"])
        if not by_layer:
            continue
        depth = max(depth, len(by_layer))
        best = max(by_layer, key=lambda layer: float(np.mean(by_layer[layer])))
        cells = [over_seeds(by_layer[layer], ".1f") for layer in sorted(by_layer)]
        rows.append([kind, *(f"**{c}**" if i == best else c for i, c in enumerate(cells))])
    padded = [row + [""] * (depth + 1 - len(row)) for row in rows]
    return table(["top-1, %", "embedding", *(f"block {i}" for i in range(1, depth))], padded)


def attention_table(runs: dict[str, Seeds], metric: str, form: str) -> str:
    """A mean over heads by layer, a row a size; then how far attending evenly would reach."""
    rows, depth = [], 0
    for size in (size for size in SIZES if size in runs):
        by_layer: dict[int, list[float]] = {}
        for run in runs[size]:
            for value in values(run, "attention", metric):
                by_layer.setdefault(value["layer"], []).append(value["value"])
        depth = max(depth, len(by_layer))
        rows.append([size, *(over_seeds(by_layer[layer], form) for layer in sorted(by_layer))])
    padded = [row + [""] * (depth + 1 - len(row)) for row in rows]
    return table([metric, *(f"block {i + 1}" for i in range(depth))], padded)


def grid_of(run: Run, extractor: str) -> dict[tuple[float, int, float], dict[str, Any]]:
    """The Frechet distance of all samples at each temperature, top-k and guidance."""
    found: dict[tuple[float, int, float], dict[str, Any]] = {}
    for value in values(run, "randomness", "fd_eurosat", extractor):
        sampler = value["settings"]["sampler"]
        drawing = sampler["drawing"]
        point = (drawing["temperature"], drawing["top_k"], sampler["guidance"]["scale"])
        if point not in found or value["samples"] > found[point]["samples"]:
            found[point] = value
    return found


def randomness_table(runs: dict[str, Seeds], extractor: str) -> str:
    """A row a setting, a column a size; the least of each size in bold."""
    grids = {s: [grid_of(run, extractor) for run in runs[s]] for s in SIZES if s in runs}
    points = sorted({point for grid in grids.values() for each in grid for point in each})
    means = {
        size: {p: float(np.mean([g[p]["value"] for g in each])) for p in points}
        for size, each in grids.items()
    }
    rows = []
    for point in points:
        cells = []
        for size, each in grids.items():
            text = over_seeds([grid[point]["value"] for grid in each], ".2f")
            least = min(means[size].values())
            cells.append(f"**{text}**" if means[size][point] == least else text)
        temperature, top_k, guidance = point
        rows.append([f"{temperature:g}", str(top_k or "all"), f"{guidance:g}", *cells])
    return table(["temperature", "top-k", "guidance", *(f"FD, {size}" for size in grids)], rows)


def mean_of(numbers: Iterable[float | None]) -> float:
    """The mean of those that are there."""
    return float(np.mean([number for number in numbers if number is not None]))


def agreement(
    runs: dict[str, Seeds],
    kinds: Sequence[str],
    a: Callable[[Run], float | None],
    b: Callable[[Run], float | None],
) -> str:
    """Kendall's tau and Spearman's rho of two numbers over kinds, means over seeds."""
    from scipy import stats

    kept = [kind for kind in kinds if kind in runs and a(runs[kind][0]) is not None]
    x, y = ([mean_of(map(number, runs[kind])) for kind in kept] for number in (a, b))
    tau, rho = stats.kendalltau(x, y).statistic, stats.spearmanr(x, y).statistic
    return f"tau {tau:.2f}, rho {rho:.2f} over {len(kept)} kinds"


def spread(numbers: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds, and half of Student's 90 % interval where there are three."""
    from scipy import stats

    mean = float(np.mean(numbers))
    if len(numbers) < 3:
        return mean, 0.0
    t = float(stats.t.ppf(0.95, len(numbers) - 1))
    return mean, t * float(np.std(numbers, ddof=1)) / len(numbers) ** 0.5


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
            axis.annotate(
                kind, (x, y), (4, 4 - 12 * (place % 2)), textcoords="offset points", fontsize=6
            )
    axis.set_xscale("log")
    axis.set_xticks([500, 1000, 1500], ["500", "1,000", "1,500"])
    axis.minorticks_off()
    axis.set(xlabel="bits/image", ylabel="FD-eurosat (conv)", title="likelihood and images")
    axis.legend(fontsize=7)


def by_layer(
    axis: Any, runs: dict[str, Seeds], names: Sequence[str], of: Callable[[Run], list[float]]
) -> None:
    """A curve a name: means over seeds."""
    for index, name in enumerate(name for name in names if name in runs):
        each = [spread(list(layer)) for layer in zip(*map(of, runs[name]), strict=True)]
        axis.errorbar(
            range(len(each)),
            [mean for mean, _ in each],
            yerr=[half for _, half in each],
            fmt="o-",
            color=f"C{index}",
            capsize=2,
            markersize=4,
            label=name,
        )
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
        axis.errorbar(
            [point[0] for point in points],
            [mean for mean, _ in each],
            yerr=[half for _, half in each],
            fmt="o-",
            color=f"C{index}",
            capsize=2,
            markersize=4,
            label=size,
        )
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


def main() -> None:
    """Print the tables and write the figure."""
    families, sizes = read("03_families"), read("04_quality_sizes")
    on_tokens = [kind for kind in KINDS if kind not in PIXELS]
    names = extractors_of(families)
    for name in names:
        print(f"### By {name}\n\n{distance_table(families, TOKENS, name)}\n")
    fd = {name: lambda run, n=name: last(run, "fd_eurosat", n) for name in names}
    kid = {name: lambda run, n=name: last(run, "kid_eurosat", n) for name in names}
    for a, b in itertools.combinations(names, 2):
        print(f"- FD by {a} and by {b}: {agreement(families, on_tokens, fd[a], fd[b])}")
    for name in names:
        print(f"- FD and KID by {name}: {agreement(families, on_tokens, fd[name], kid[name])}")
        bits = agreement(families, ON_BITS, lambda run: run["bits"], fd[name])
        print(f"- bits and FD by {name}, on binary-16: {bits}")
    print(f"\n### Probes\n\n{probe_table(families, KINDS)}\n\n{probe_table(sizes, SIZES)}\n")
    for name in names:
        print(f"### Sizes by {name}\n\n{distance_table(sizes, {'16 bits': SIZES}, name)}\n")
        if grid_of(sizes["s6"][0], name):
            print(f"{randomness_table(sizes, name)}\n")
    for metric, form in (
        ("attention_distance_cells", ".3f"),
        ("attention_uniform_distance_cells", ".3f"),
        ("attention_entropy_nats", ".3f"),
        ("attention_sink_mass", ".3f"),
    ):
        print(f"{attention_table(sizes, metric, form)}\n")
    draw(families, sizes)


if __name__ == "__main__":
    main()
