"""The tables of the answer, from the quality.jsonl of results/; figure.py draws.

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
# BiGR's published FID and linear-probe top-1 (%) on ImageNet; the best FID first
PUBLISHED = {"S3": (3.17, 64.3), "S0": (3.21, 23.8), "S1": (3.85, 61.1), "S2": (7.50, 45.2)}

# What the commands of README.md ask for: settings, split and number of the reference. Lines of
# other ways are passed over, such as probes of families before the penalties went down to 1e-7.
JUDGED = {"seed": 0, "samples": 1024, "counts": [128, 256, 512, 1024]}
GRID = {"seed": 0, "samples": 512, "counts": [64, 128, 256, 512], "labels": "data"}
RIDGE = {"probe": "ridge", "train_images": 8000, "seed": 0}
PENALTIES = {"03_families": "10 to 1e-07, 2 a decade", "04_quality_sizes": None}  # None: to 1e-5
ASKED: dict[str, tuple[dict[str, Any], str, int]] = {
    "fd": (JUDGED | {"labels": "data"}, "train", 21_459),
    "reconstruction": (JUDGED, "train", 21_459),
    "randomness": (GRID, "train", 4096),
    "probe": (RIDGE, "validation", 2796),
    "attention": ({"time": 0}, "validation", 256),
}

Run = dict[str, Any]
Seeds = list[Run]


def read(study: str) -> dict[str, Seeds]:
    """Runs of a study by kind: their bits an image, and their lines of quality."""
    found: dict[str, Seeds] = {}
    for path in sorted((RESULTS / study).glob("*/quality.jsonl")):
        record = [json.loads(line) for line in (path.parent / "record.jsonl").open()]
        tasks = [task for task in map(json.loads, path.open()) if asked(task, study)]
        last = [r for r in record if r["kind"] == "evaluation" and r["weights"] == "raw"][-1]
        kind, _, seed = record[0]["name"].rpartition("-")
        run = {
            "name": record[0]["name"],
            "seed": int(seed),
            "bits": last["loss_nats_per_image"] * BITS,
            "tasks": tasks,
        }
        found.setdefault(kind, []).append(run)
    refuse_mixed(itertools.chain.from_iterable(found.values()))
    return {kind: sorted(runs, key=lambda run: run["seed"]) for kind, runs in found.items()}


def asked(task: dict[str, Any], study: str) -> bool:
    """Whether a line is of what the commands ask for."""
    if task["what"] not in ASKED:
        return False
    settings, split, images = ASKED[task["what"]]
    wanted = settings | {"level": LEVEL}
    if task["what"] == "probe":
        wanted |= {"penalties": PENALTIES[study]}
    reference = task["reference"]
    same = all(task["settings"].get(name) == value for name, value in wanted.items())
    return same and (reference["split"], reference["images"]) == (split, images)


def refuse_mixed(runs: Iterable[Run]) -> None:
    """Leave where runs were judged by other networks or images, or one twice at one point."""
    ways: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for run in runs:
        points = set()
        for task in run["tasks"]:
            extractor, reference = task["extractor"] or {}, task["reference"]
            at = task["what"], extractor.get("name"), reference["resolution"]
            way = extractor.get("identity"), reference["identity"]
            drawn = task["settings"].get("sampler") if task["what"] == "randomness" else None
            point = (*at, json.dumps(drawn, sort_keys=True))
            if ways.setdefault(at, way) != way or point in points:
                raise SystemExit(f"{run['name']}: {at}: by {way}, others by {ways[at]}, or twice")
            points.add(point)


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


def spread(numbers: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds, and half of Student's interval where there are three or more."""
    from scipy import stats

    mean = float(np.mean(numbers))
    if len(numbers) < 3:
        return mean, 0.0
    t = float(stats.t.ppf(0.5 + LEVEL / 2, len(numbers) - 1))
    return mean, t * float(np.std(numbers, ddof=1)) / math.sqrt(len(numbers))


def over_seeds(numbers: Sequence[float | None], form: str) -> str:
    """The mean with half of its interval, or with how many seeds there are."""
    kept = [number for number in numbers if number is not None]
    if not kept:
        return ""
    mean, half = spread(kept)
    if len(kept) < 3:
        return f"{format(mean, form)} ({len(kept)} seed{'s' if len(kept) > 1 else ''})"
    return f"{format(mean, form)} ± {format(half, form)}"


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


def layer_table(
    runs: dict[str, Seeds], order: Sequence[str], metric: str, form: str, *, percent: bool = False
) -> str:
    """A row a kind, a column a layer; of probes, in percent, the best in bold."""
    rows, what = [], metric.partition("_")[0]
    for kind in (kind for kind in order if kind in runs):
        by_layer: dict[int, list[float]] = {}
        for run in runs[kind]:
            for value in values(run, what, metric):
                number = 100 * value["value"] if percent else value["value"]
                by_layer.setdefault(value["layer"], []).append(number)
        cells = [over_seeds(by_layer[layer], form) for layer in sorted(by_layer)]
        if percent and cells:
            best = max(sorted(by_layer), key=lambda layer: float(np.mean(by_layer[layer])))
            cells[best] = f"**{cells[best]}**"
        rows += [[kind, *cells]] if cells else []
    depth = max(len(row) for row in rows)
    names = ["embedding"] * percent + [f"block {i}" for i in range(1, depth)]
    padded = [row + [""] * (depth - len(row)) for row in rows]
    return table(["top-1, %" if percent else metric, *names[: depth - 1]], padded)


def at_edge(runs: dict[str, Seeds]) -> str:
    """In how many probes the penalty is the largest or smallest that was tried, and which."""
    found = [
        (kind, v) for kind in runs for r in runs[kind] for v in values(r, "probe", "probe_top1")
    ]
    least = [kind for kind, value in found if value["penalty_at_edge"] and value["penalty"] < 1]
    most = sum(value["penalty_at_edge"] for _, value in found) - len(least)
    of = ", ".join(f"{kind} {least.count(kind)}" for kind in dict.fromkeys(least))
    low = f"{len(least)} at the smallest penalty ({of or 'none'})"
    return f"- of {len(found)} probes {low}, {most} at the largest"


def curves(run: Run, metric: str, extractor: str) -> dict[int, dict[str, Any]]:
    """A distance by the number of samples; empty where the run was not judged."""
    return {value["samples"]: value for value in values(run, "fd", metric, extractor)}


def curve_table(runs: dict[str, Seeds], order: Sequence[str], extractor: str) -> str:
    """FD and KID by samples used, means over the seeds whose curves were measured."""
    rows, counts = [], JUDGED["counts"]
    for kind in (kind for kind in order if kind in runs):
        cells = []
        for metric, form in (("fd_eurosat", ".2f"), ("kid_eurosat", ".4f")):
            each = [curves(run, metric, extractor) for run in runs[kind]]
            for count in counts:
                numbers = [curve[count]["value"] for curve in each if counts[0] in curve]
                cells.append(format(float(np.mean(numbers)), form) if numbers else "")
        rows.append([kind, *cells])
    head = [f"{metric} {count}" for metric in ("FD", "KID") for count in counts]
    return table(["", *head], [row for row in rows if any(row[1:])])


def strays(runs: dict[str, Seeds], metric: str, extractor: str) -> str:
    """How far the curve lies from its end, in halves of the interval there."""
    counts = JUDGED["counts"]
    every = (curves(run, metric, extractor) for run in itertools.chain(*runs.values()))
    found = [curve for curve in every if counts[0] in curve]
    words = []
    for count in counts[:-1]:
        ends = [(curve[count]["value"], curve[counts[-1]]) for curve in found]
        off = [(value - end["value"]) / (end["high"] - end["value"]) for value, end in ends]
        words.append(f"{count}: mean {np.mean(off):+.2f}, at most {np.max(np.abs(off)):.2f}")
    said = f"- {metric} by {extractor}, {len(found)} runs, from that of {counts[-1]}"
    return f"{said}, in halves of its interval: {'; '.join(words)}"


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


def best_probe(runs: Seeds) -> list[float]:
    """Top-1 of each seed, percent, at the layer that is the best in the mean over seeds."""
    by_layer: dict[int, list[float]] = {}
    for run in runs:
        for value in values(run, "probe", "probe_top1"):
            by_layer.setdefault(value["layer"], []).append(100 * value["value"])
    return max(by_layer.values(), key=lambda numbers: float(np.mean(numbers)))


def less(a: Sequence[float], b: Sequence[float]) -> str:
    """Mean of a less that of b with Welch's interval over seeds; bold where 0 lies outside."""
    from scipy import stats

    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(LEVEL)
    text = f"{np.mean(a) - np.mean(b):+.2f} [{interval.low:.2f}, {interval.high:.2f}]"
    return f"**{text}**" if interval.low * interval.high > 0 else text


def published_table(runs: dict[str, Seeds], names: Sequence[str]) -> str:
    """Differences of the kinds that BiGR compares, beside those that it publishes."""
    fd = {
        (kind, name): [
            number for run in runs[kind] if (number := last(run, "fd_eurosat", name)) is not None
        ]
        for kind in PUBLISHED
        for name in names
    }
    probes = {kind: best_probe(runs[kind]) for kind in PUBLISHED}
    rows = []
    for a, b in itertools.combinations(PUBLISHED, 2):
        fid, top1 = (PUBLISHED[b][i] - PUBLISHED[a][i] for i in (0, 1))
        ours = [less(fd[b, name], fd[a, name]) for name in names]
        rows.append(
            [f"{b} - {a}", f"{fid:+.2f}", *ours, f"{top1:+.1f}", less(probes[b], probes[a])]
        )
    head = ["", "FID, BiGR", *(f"FD, {name}" for name in names), "top-1, BiGR", "top-1"]
    return table(head, rows)


def main() -> None:
    """Print the tables; figure.py draws."""
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
    for name in names:
        print(f"\n### By samples, {name}\n\n{curve_table(families, KINDS, name)}\n")
        for metric in ("fd_eurosat", "kid_eurosat"):
            print(strays(families, metric, name))
    print(f"\n### S0 to S3 beside BiGR\n\n{published_table(families, names)}\n")
    print("\n### Probes\n")
    for runs, order in ((families, KINDS), (sizes, SIZES)):
        print(layer_table(runs, order, "probe_top1", ".1f", percent=True))
        print(f"\n{at_edge(runs)}\n")
    for name in names:
        print(f"### Sizes by {name}\n\n{distance_table(sizes, {'16 bits': SIZES}, name)}\n")
        if grid_of(sizes["s6"][0], name):
            print(f"{randomness_table(sizes, name)}\n")
    for name in ("distance_cells", "uniform_distance_cells", "entropy_nats", "sink_mass"):
        print(f"{layer_table(sizes, SIZES, f'attention_{name}', '.3f')}\n")


if __name__ == "__main__":
    main()
