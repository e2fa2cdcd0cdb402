"""The tables and the figure of the answer, from the committed records or those of runs.

    python experiments/12_scans/figure.py [FOLDER]

FOLDER (default: results beside this file) holds scans_pixels, scans_longer, scans_larger and
scans_codes.
"""

import json
import math
import pathlib
import sys
from collections import defaultdict

import numpy as np
from scipy import stats

HERE = pathlib.Path(__file__).resolve().parent
PARTS = {
    "scans_pixels": "pixels, s3",
    "scans_longer": "pixels, s3",
    "scans_larger": "pixels, s6",
    "scans_codes": "tokens of EuroSAT, s4",
}
BASE = "rows"
LEVEL = 0.90
POSITIONS = 64
COLUMNS = 3  # of the figure


class Runs:
    """Nats (1024,) of the validation images by order, images trained on, and seed."""

    def __init__(self, folder: pathlib.Path):
        self.nats: dict[tuple[str, int, int], np.ndarray] = {}
        for path in sorted(folder.glob("*/record.jsonl")):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            order, seed = rows[0]["name"].partition("-")[0], int(rows[0]["name"][-1])
            ends = [row for row in rows if row["kind"] == "evaluation"]
            if rows[-1].get("status") != "finished" or "trunk" in rows[0]["name"]:
                continue
            images = round(ends[-1]["tokens"] / POSITIONS)
            with np.load(path.parent / "validation.npz") as kept:
                self.nats[order, images, seed] = np.asarray(kept["nats_per_image"], np.float64)

    @property
    def lengths(self) -> list[int]:
        """Images that runs were trained on, the fewest first."""
        return sorted({images for _, images, _ in self.nats})

    def seeds(self, order: str, images: int) -> list[int]:
        """Seeds of an order that the base was trained with too."""
        found = [s for name, n, s in self.nats if (name, n) == (order, images)]
        return sorted(seed for seed in found if (BASE, images, seed) in self.nats)

    def bits(self, order: str, images: int) -> float:
        """Bits an image, the mean over seeds."""
        every = [self.nats[order, images, s].mean() for s in self.seeds(order, images)]
        return float(np.mean(every)) / math.log(2)

    def excess(self, order: str, images: int) -> tuple[float, float]:
        """Percent above the base, and half of its 90 % interval.

        Over seeds by Student's t where there are several, which is what a new run would show; of
        one seed over images, on which the two are paired.
        """
        seeds = self.seeds(order, images)
        pairs = [(self.nats[order, images, s], self.nats[BASE, images, s]) for s in seeds]
        each = np.array([100 * (one.mean() / base.mean() - 1) for one, base in pairs])
        if len(each) > 1:
            error = each.std(ddof=1) / math.sqrt(len(each))
            return float(each.mean()), error * stats.t.ppf((1 + LEVEL) / 2, len(each) - 1)
        one, base = pairs[0]
        ratio = one.mean() / base.mean()
        error = 100 * np.std(one - ratio * base, ddof=1) / base.mean() / math.sqrt(len(one))
        return float(each[0]), error * stats.norm.ppf((1 + LEVEL) / 2)


def main() -> None:
    """Print the tables and draw what is there."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results"
    parts = {name: Runs(folder / name) for name in PARTS if (folder / name).is_dir()}
    if not parts:
        raise SystemExit(f"error: {folder}: holds no {', '.join(PARTS)}")
    excess: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for name, runs in parts.items():
        for images in runs.lengths:
            title = f"{PARTS[name]}, {images:,} images"
            print(f"{title}: {BASE} {runs.bits(BASE, images):.2f} bits/image")
            for order in {order for order, n, _ in runs.nats if n == images}:
                if runs.seeds(order, images):
                    excess[title][order] = runs.excess(order, images)
    show(excess)
    draw(excess, pyplot)


def show(excess: dict[str, dict[str, tuple[float, float]]]) -> None:
    """Percent above the base, a row an order, the least first."""
    last = list(excess.values())[0]
    ranked = sorted(last, key=lambda order: last[order][0])
    print(f"\n| order | {' | '.join(excess)} |\n|---|{'---|' * len(excess)}")
    for order in ranked:
        cells = []
        for column in excess.values():
            found = column.get(order)
            base = order == BASE
            cells.append("0" if base else f"{found[0]:+.2f} ± {found[1]:.2f}" if found else "")
        print(f"| {order} | {' | '.join(cells)} |")


def draw(excess: dict[str, dict[str, tuple[float, float]]], pyplot) -> None:
    """A panel a part: percent above the base with its interval."""
    rows = math.ceil(len(excess) / COLUMNS)
    figure, axes = pyplot.subplots(
        rows, COLUMNS, figsize=(7.6, 2.9 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    first = list(excess.values())[0]
    ranked = sorted(first, key=lambda order: -first[order][0])
    for panel in axes.ravel()[len(excess) :]:
        panel.set_axis_off()
    for panel, (title, column) in zip(axes.ravel(), excess.items(), strict=False):
        for place, order in enumerate(ranked):
            if order in column:
                middle, half = column[order]
                panel.errorbar(middle, place, xerr=half, fmt="o", color="C0", markersize=3)
        panel.axvline(0, color="0.6", linewidth=0.8)
        panel.set_title(title.replace(", ", "\n", 1), fontsize=7)
        panel.set_yticks(range(len(ranked)), ranked, fontsize=7)
        panel.set_xscale("symlog", linthresh=1)
        panel.tick_params(axis="x", labelsize=6)
        panel.set_xlabel("nats above rows, %", fontsize=7)
    (HERE / "results").mkdir(exist_ok=True)
    figure.savefig(HERE / "results" / "scans.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
