"""The tables of the answer, from results/: rates tried, families in one unit, paired differences.

python experiments/03_families/answer.py
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
TOKENIZERS = HERE.parent / "02_tokens" / "results" / "02_tokens"
LEVEL = 0.90
BITS = 1 / math.log(2)
KINDS = (
    *(
        "pixel-ar",
        "pixel-mlm",
        "pixel-dit",
        "llamagen",
        "mlm",
        "elm-2-8",
        "S0",
        "S1",
        "S1-any",
        "S2",
        "S3",
    ),
    *("bigr-bce", "bigr-x0", "mar", "ar-diffusion", "dit"),
)
PAIRS = (
    ("pixel-mlm", "pixel-ar"),
    ("pixel-dit", "pixel-ar"),
    ("mlm", "llamagen"),
    ("S0", "elm-2-8"),
    ("S1", "S0"),
    ("S1-any", "S1"),
    ("S2", "S0"),
    ("S3", "S1"),
    ("S3", "S2"),
    ("bigr-bce", "S3"),
    ("bigr-x0", "S3"),
    ("mar", "ar-diffusion"),
    ("dit", "mar"),
)


def read(study: str) -> dict[str, list[dict[str, Any]]]:
    """Every finished run of a study by kind: header, last raw evaluation, last training row."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((RESULTS / study).glob("*/record.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if rows[-1].get("status") != "finished":
            continue
        kind, _, last = rows[0]["name"].rpartition("-")
        evaluation = [r for r in rows if r["kind"] == "evaluation" and r["weights"] == "raw"][-1]
        run = {"header": rows[0], "last": last, "evaluation": evaluation, "path": path.parent}
        found.setdefault(kind, []).append(run)
    return {kind: sorted(runs, key=lambda r: float(r["last"])) for kind, runs in found.items()}


def kinds_of(runs: dict[str, Any]) -> list[str]:
    """Kinds in the order of tables."""
    return [kind for kind in KINDS if kind in runs]


def over_seeds(values: list[float], form: str) -> str:
    """The mean, and half of Student's 90 % interval of it where there are three seeds or more."""
    from scipy import stats

    mean = format(float(np.mean(values)), form)
    if len(values) < 3:
        return f"{mean} ({len(values)} seed{'s' if len(values) > 1 else ''})"
    t = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1))
    half = t * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean} ± {format(half, form)}"


def rate_table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: bits an image at each rate."""
    rates = sorted({float(run["last"]) for tried in runs.values() for run in tried})
    lines = ["| bits/image at rate | " + " | ".join(f"{rate:g}" for rate in rates) + " |"]
    lines.append("|" + "---|" * (len(rates) + 1))
    for kind in kinds_of(runs):
        bits = {
            float(run["last"]): run["evaluation"]["loss_nats_per_image"] * BITS
            for run in runs[kind]
        }
        least = min(bits.values())
        cells = [
            ""
            if rate not in bits
            else f"**{bits[rate]:.1f}**" * (bits[rate] == least) or f"{bits[rate]:.1f}"
            for rate in rates
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def psnr_of(tokenizer: str) -> str:
    """Of a tokenizer's run, from the records of experiment 02."""
    for path in TOKENIZERS.glob("*/record.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if rows[0]["name"] == tokenizer:
            last = [r for r in rows if r["kind"] == "evaluation" and r["weights"] == "raw"][-1]
            return f"{last['psnr_db']:.1f}"
    return ""


def speeds() -> dict[str, float]:
    """Seconds an image of sampling, by kind, where they were measured."""
    path = RESULTS / "sampling.json"
    if not path.exists():
        return {}
    return {row["kind"]: row["seconds_per_image"] for row in json.loads(path.read_text())}


def family_table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row a kind."""
    titles = ("", "nats are", "bits/image", "bits/dim", "SE over images, bits/image")
    more = ("N", "of it blocks", "FLOPs/image", "images", "its own loss", "PSNR, dB", "s/sample")
    lines = ["| " + " | ".join(titles + more) + " |", "|" + "---|" * (len(titles) + len(more))]
    seconds = speeds()
    for kind in kinds_of(runs):
        seeds = runs[kind]
        header, evaluations = seeds[0]["header"], [run["evaluation"] for run in seeds]
        tokens = header["tokenizer"]["tokens_per_image"]
        own = header.get("training_loss")
        se = evaluations[0]["loss_se_nats_per_token"] * tokens * BITS
        flops = sum(header["flops_per_token"].values()) * tokens
        cells = (
            kind,
            header["likelihood"],
            over_seeds([e["loss_nats_per_image"] * BITS for e in evaluations], ".1f"),
            over_seeds([e["bits_per_dim"] for e in evaluations], ".4f"),
            f"{se:.1f}",
            f"{sum(header['params'].values()):,}",
            f"{header['params']['blocks']:,}",
            f"{flops:.2e}",
            f"{evaluations[0]['tokens'] // tokens:,}",
            f"{np.mean([e[own['key']] for e in evaluations]):.3f} {own['unit']}"
            if own
            else "the nats",
            psnr_of(header["tokenizer"]["name"]),
            f"{seconds[kind]:.3f}" if kind in seconds else "",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paired(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Differences on the same images, in bits an image, of each seed."""
    lines = []
    for one, other in PAIRS:
        found = []
        for a, b in zip(runs.get(one, []), runs.get(other, []), strict=False):
            nats = [np.load(r["path"] / "validation.npz")["nats_per_image"] for r in (a, b)]
            bits = (nats[0].astype(np.float64) - nats[1].astype(np.float64)) * BITS
            found.append(f"{bits.mean():+.1f} ± {bits.std(ddof=1) / math.sqrt(bits.size):.1f}")
        if found:
            lines.append(f"- {one} - {other}: {', '.join(found)}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Print the tables."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.parse_args(argv)
    print(rate_table(read("03_families_rates")), end="\n\n")
    families = read("03_families")
    print(family_table(families), end="\n\n")
    print(paired(families))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
