"""The tables of the answer, from the quality.jsonl of results/.

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
KINDS = (*PIXELS, "llamagen", "mlm", *ON_BITS, "mar", "ar-diffusion", "dit")
SIZES = ("s4", "s6", "s9")
DISTANCES = {
    "fd_eurosat": ".2f",
    "fd_infinity_eurosat": ".2f",
    "kid_eurosat": ".4f",
    "inception_score_eurosat": ".2f",
    "precision_eurosat": ".3f",
    "recall_eurosat": ".3f",
}

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


def distance_table(runs: dict[str, Seeds], order: Sequence[str], extractor: str) -> str:
    """A row a kind: bits, distances, scores; then what as many real images get."""
    rows = []
    for kind in (kind for kind in order if kind in runs):
        cells = [over_seeds([run["bits"] for run in runs[kind]], ".1f")]
        for metric, form in DISTANCES.items():
            cells.append(over_seeds([last(run, metric, extractor) for run in runs[kind]], form))
        rows.append([kind, *cells])
        if kind == PIXELS[-1] or kind == order[-1]:
            real = [last(runs[kind][0], f"{m}_real", extractor) for m in DISTANCES]
            forms = DISTANCES.values()
            cells = ["" if x is None else format(x, f) for x, f in zip(real, forms, strict=True)]
            rows.append(["*real images*", "", *cells])
    head = ["", "bits/image", "FD", "FD∞", "KID", "IS", "precision", "recall"]
    return table(head, rows)


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


def main() -> None:
    """Print the tables."""
    families, sizes = read("03_families"), read("04_quality_sizes")
    on_tokens = [kind for kind in KINDS if kind not in PIXELS]
    names = extractors_of(families)
    for name in names:
        print(f"### By {name}\n\n{distance_table(families, KINDS, name)}\n")
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
        print(f"### Sizes by {name}\n\n{distance_table(sizes, SIZES, name)}\n")
        if grid_of(sizes["s6"][0], name):
            print(f"{randomness_table(sizes, name)}\n")
    for metric, form in (
        ("attention_distance_cells", ".3f"),
        ("attention_uniform_distance_cells", ".3f"),
        ("attention_entropy_nats", ".3f"),
        ("attention_sink_mass", ".3f"),
    ):
        print(f"{attention_table(sizes, metric, form)}\n")


if __name__ == "__main__":
    main()
