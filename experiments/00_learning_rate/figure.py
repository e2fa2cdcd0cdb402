"""Loss against learning rate at three widths, under both rules; paired errors at the best rate.

python experiments/00_learning_rate/figure.py [STUDY]

STUDY is a folder of runs; without it the committed records are read.
"""

import json
import math
import pathlib
import sys

import numpy as np

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
FIELDS = ("rule", "width", "learning_rate", "status", "loss_nats_per_token", "se")


def collect(study: pathlib.Path) -> list[dict]:
    """A row a run, from the configs and records of a study; a diverged run has no loss."""
    rows = []
    for path in sorted(study.glob("*/record.jsonl")):
        document = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        config = document["config"]
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        status = lines[-1].get("status", "unfinished")
        last = [row for row in lines if row["kind"] == "evaluation"][-1:]
        losses = last[0] if last and status == "finished" else {}
        rows.append(
            {
                "rule": config["optimizer"]["width_rule"],
                "width": config["model"]["width"],
                "learning_rate": config["optimizer"]["learning_rate"],
                "status": status,
                "loss_nats_per_token": losses.get("loss_nats_per_token", math.nan),
                "se": losses.get("loss_se_nats_per_token", math.nan),
                "path": path.parent,
                "tokens_per_image": lines[0]["tokenizer"]["tokens_per_image"],
            }
        )
    return sorted(rows, key=lambda r: (r["rule"], r["width"], r["learning_rate"]))


def curves(rows: list[dict]) -> dict[tuple[str, int], list[dict]]:
    """The runs of each rule and width, by rate."""
    keys = sorted({(row["rule"], row["width"]) for row in rows})
    return {key: [r for r in rows if (r["rule"], r["width"]) == key] for key in keys}


def best_of(curve: list[dict]) -> int:
    """Index of the rate with the lowest loss; diverged runs have none."""
    return int(np.nanargmin([row["loss_nats_per_token"] for row in curve]))


def paired(first: dict, second: dict) -> tuple[float, float]:
    """Loss of first less second and its standard error, image by image, nats per token."""
    losses = [np.load(row["path"] / "validation.npz")["nats_per_image"] for row in (first, second)]
    difference = (losses[0].astype(float) - losses[1]) / first["tokens_per_image"]
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Two panels, a curve a width, its best rate marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    titles = {"mup": '"mup": rate at width 32, matrices x 32 / width', "none": "no rule"}
    for axis, (rule, title) in zip(axes, titles.items(), strict=True):
        for (_, width), curve in curves([r for r in rows if r["rule"] == rule]).items():
            rates = [r["learning_rate"] for r in curve]
            losses = [r["loss_nats_per_token"] for r in curve]
            line = axis.plot(rates, losses, "o-", markersize=4, label=f"width {width}")[0]
            best = best_of(curve)
            star = {"marker": "*", "markersize": 14, "color": line.get_color()}
            axis.plot(rates[best], losses[best], **star)
        axis.set(xscale="log", xlabel="learning rate", title=title)
        axis.legend(frameon=False)
    axes[0].set_ylabel("validation loss, nats/token")
    low = np.nanmin([r["loss_nats_per_token"] for r in rows])
    axes[0].set_ylim(low - 0.02, low + 0.45)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Draw, print every run, and how far the best rate is from its neighbours."""
    study = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "learning_rate"
    rows = collect(study)
    draw(rows, RESULTS / "learning_rate.svg")
    for row in rows:
        print(*(row[field] for field in FIELDS))
    for (rule, width), curve in curves(rows).items():
        best = best_of(curve)
        words = [f"{rule} width {width}: best {curve[best]['learning_rate']:g}"]
        for other in (best - 1, best + 1):
            if 0 <= other < len(curve) and curve[other]["status"] == "finished":
                more, se = paired(curve[other], curve[best])
                words.append(f"{curve[other]['learning_rate']:g} is {more:+.4f} ± {se:.4f}")
        print("; ".join(words))


if __name__ == "__main__":
    main()
