"""The tables and pictures of the answer, from results/: tokenizers over seeds, splits in one unit.

    python experiments/02_tokens/answer.py [--runs runs/02_tokens]

With `--runs` the pictures of the runs are put together, the first row of each kind.
"""

import argparse
import json
import math
import pathlib
import sys
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results"
COLUMNS = {
    "psnr_db": ("PSNR, dB", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "loss_l1_per_dim": ("L1/dim", ".4f"),
    "codes_distinct": ("distinct codes", ",.0f"),
    "codes_uniform_share": ("of those uniform draws show", ".1%"),
    "codes_perplexity": ("perplexity", ",.0f"),
    "bit_entropy_nats_per_position": ("entropy of drawn bits, nats/position", ".2f"),
    "latent_std": ("latent std", ".2f"),
}
PAIRED = {name: COLUMNS[name] for name in ("psnr_db", "ssim", "loss_l1_per_dim")}
SPLIT_BITS = {"1-16": 16, "2-8": 16, "2-10": 20, "4-5": 20}
POSITIONS = 64
LEVEL = 0.90


def read(study: str) -> dict[str, list[dict[str, Any]]]:
    """The last raw evaluation of every finished run of a study, by kind, in the order of seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((RESULTS / study).glob("*/record.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if rows[-1].get("status") != "finished":
            continue
        kind, _, seed = rows[0]["name"].rpartition("-")
        last = [r for r in rows if r["kind"] == "evaluation" and r["weights"] == "raw"][-1]
        found.setdefault(kind, []).append({**last, "seed": int(seed), "path": path.parent})
    return {kind: sorted(runs, key=lambda r: r["seed"]) for kind, runs in sorted(found.items())}


def over_seeds(values: list[float], form: str) -> str:
    """The mean, and half of Student's 90 % interval of it where there are three seeds or more."""
    from scipy import stats

    mean = format(float(np.mean(values)), form)
    if len(values) < 3:
        return f"{mean} ({len(values)} seed{'s' if len(values) > 1 else ''})"
    t = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1))
    half = t * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean} ± {format(half, form)}"


def tokenizer_table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row a kind."""
    lines = ["| tokenizer | " + " | ".join(title for title, _ in COLUMNS.values()) + " |"]
    lines.append("|" + "---|" * (len(COLUMNS) + 1))
    for kind, seeds in runs.items():
        cells = [
            over_seeds([run[name] for run in seeds], form) if name in seeds[0] else ""
            for name, (_, form) in COLUMNS.items()
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def split_table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row a split; the standard error is that over images, of the first seed."""
    lines = ["| split | nats/position | bits/position, of | bits/image | nats/sub-code | seeds |"]
    lines.append("|---|---|---|---|---|---|")
    for split, bits in SPLIT_BITS.items():
        seeds = runs.get(split, [])
        if not seeds:
            continue
        nats = float(np.mean([run["loss_nats_per_token"] for run in seeds]))
        se = seeds[0]["loss_se_nats_per_token"]
        unit = 1 / math.log(2)
        subcodes = int(split.split("-")[0])
        lines.append(
            f"| {split} | {nats:.3f} ± {se:.3f} | {nats * unit:.2f} of {bits} "
            f"| {nats * POSITIONS * unit:.0f} ± {se * POSITIONS * unit:.0f} "
            f"| {nats / subcodes:.3f} | {len(seeds)} |"
        )
    return "\n".join(lines)


def paired(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Differences of splits of the same bits on the same images, in bits an image."""
    lines = []
    for one, other in (("1-16", "2-8"), ("2-10", "4-5")):
        for a, b in zip(runs.get(one, []), runs.get(other, []), strict=False):
            nats = [np.load(r["path"] / "validation.npz")["nats_per_image"] for r in (a, b)]
            bits = (nats[0] - nats[1]).astype(np.float64) / math.log(2)
            se = bits.std(ddof=1) / math.sqrt(bits.size)
            lines.append(
                f"{one} - {other}, seed {a['seed']}: {bits.mean():+.1f} ± {se:.1f} bits/image"
            )
    return "\n".join(lines)


def adversarial(runs: dict[str, list[dict[str, Any]]]) -> str:
    """With a discriminator less without one, seed by seed, on the same images."""
    lines = []
    for kind in sorted(runs):
        plain = {run["seed"]: run for run in runs.get(kind.removesuffix("-gan"), [])}
        for run in runs[kind] if kind.endswith("-gan") else []:
            if run["seed"] not in plain:
                continue
            cells = []
            for name, (title, _) in PAIRED.items():
                a, b = (np.load(r["path"] / "validation.npz") for r in (run, plain[run["seed"]]))
                change = (a[f"{name}_per_image"] - b[f"{name}_per_image"]).astype(np.float64)
                se = change.std(ddof=1) / math.sqrt(change.size)
                cells.append(f"{title} {change.mean():+.4f} ± {se:.4f}")
            lines.append(
                f"{kind} - {kind.removesuffix('-gan')}, seed {run['seed']}: " + "; ".join(cells)
            )
    return "\n".join(lines)


def picture(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Originals in the first row, then what each kind made of them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows: dict[str, np.ndarray] = {}
    for config in sorted(folder.glob("*/config.json")):
        kind, _, seed = json.loads(config.read_text(encoding="utf-8"))["config"]["name"].rpartition(
            "-"
        )
        shown = config.parent / "reconstructions.png"
        if seed == "0" and shown.exists():
            pixels = pyplot.imread(shown)
            rows.setdefault("original", pixels[:64])
            rows[kind] = pixels[66:130]
    figure, axes = pyplot.subplots(
        len(rows), 1, figsize=(9, 1.18 * len(rows)), layout="constrained"
    )
    for axis, (kind, pixels) in zip(axes, rows.items(), strict=True):
        axis.imshow(pixels)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_ylabel(kind, rotation=0, ha="right", va="center")
    figure.savefig(out, dpi=100)
    pyplot.close(figure)


def main(argv: list[str]) -> int:
    """Print the tables; put the picture together."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--runs", type=pathlib.Path, help="the folder of the tokenizers' runs")
    chosen = flags.parse_args(argv)
    tokenizers = read("02_tokens")
    print(tokenizer_table(tokenizers), end="\n\n")
    print(adversarial(tokenizers) or "no run with a discriminator", end="\n\n")
    generators = read("02_tokens_elm")
    print(split_table(generators), end="\n\n")
    print(paired(generators))
    if chosen.runs:
        picture(chosen.runs, RESULTS / "reconstructions.png")
        print(f"wrote {RESULTS / 'reconstructions.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
