"""Loss against learning rate at three widths, under both rules.

python experiments/00_learning_rate/figure.py runs/learning_rate
"""

import json
import math
import pathlib
import sys

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
FIELDS = ("rule", "width", "learning_rate", "identity", "status", "loss_nats_per_token", "se")


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
                "identity": document["identity"],
                "status": status,
                "loss_nats_per_token": losses.get("loss_nats_per_token", math.nan),
                "se": losses.get("loss_se_nats_per_token", math.nan),
            }
        )
    return sorted(rows, key=lambda r: (r["rule"], r["width"], r["learning_rate"]))


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Two panels, a curve a width, its best rate marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    titles = {"mup": '"mup": rate at width 32, matrices x 32 / width', "none": "no rule"}
    for axis, (rule, title) in zip(axes, titles.items(), strict=True):
        for width in sorted({r["width"] for r in rows}):
            curve = [r for r in rows if (r["rule"], r["width"]) == (rule, width)]
            rates = [r["learning_rate"] for r in curve]
            losses = [r["loss_nats_per_token"] for r in curve]
            line = axis.plot(rates, losses, "o-", markersize=4, label=f"width {width}")[0]
            best = min(curve, key=lambda r: r["loss_nats_per_token"])
            axis.plot(
                best["learning_rate"],
                best["loss_nats_per_token"],
                "*",
                markersize=14,
                color=line.get_color(),
            )
        axis.set(xscale="log", xlabel="learning rate", title=title)
        axis.legend(frameon=False)
    axes[0].set_ylabel("validation loss, nats/token")
    low = min(r["loss_nats_per_token"] for r in rows)
    axes[0].set_ylim(low - 0.02, low + 0.45)
    figure.savefig(path)


def main() -> None:
    """With a study: collect its records; always: draw from the committed table."""
    table = RESULTS / "runs.jsonl"
    if len(sys.argv) > 1:
        RESULTS.mkdir(exist_ok=True)
        rows = collect(pathlib.Path(sys.argv[1]))
        table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    draw(rows, RESULTS / "learning_rate.svg")
    for row in rows:
        print(*(row[field] for field in FIELDS))


if __name__ == "__main__":
    main()
