"""The tables and the figure of the answer, from the committed records or those of runs.

    python experiments/11_splits/figure.py [FOLDER]

FOLDER (default: results beside this file) holds splits_binary-16-0, splits_binary-16-1,
splits_binary-20-0, splits_seeds and splits_rates, or some of them.
"""

import json
import math
import pathlib
import sys
from collections.abc import Iterator

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from analysis import fit, optimum, read_runs  # noqa: E402
from analysis.errors import AnalysisError  # noqa: E402

TOKENIZERS = ["binary-16-0", "binary-16-1", "binary-20-0"]
SUBCODES = {
    "1-16": 1,
    "2-8": 2,
    "4-4": 4,
    "8-2": 8,
    "16-1": 16,
    "2-10": 2,
    "4-5": 4,
    "10-2": 10,
    "20-1": 20,
}
POSITIONS = 64
BITS = 1 / math.log(2)


def finished(folder: pathlib.Path) -> Iterator[tuple[str, int, np.ndarray]]:
    """Name, images trained on, and bits (1024,) of the validation images; not of trunks."""
    for path in sorted(folder.glob("*/record.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if rows[-1].get("status") != "finished" or "trunk" in rows[0]["name"]:
            continue
        last = [row for row in rows if row["kind"] == "evaluation"][-1]
        with np.load(path.parent / "validation.npz") as kept:
            bits = BITS * np.asarray(kept["nats_per_image"], np.float64)
        yield rows[0]["name"], round(last["tokens"] / POSITIONS), bits


def ends(folder: pathlib.Path) -> dict[tuple[str, str, int], np.ndarray]:
    """Those of a surface by split, size and images trained on."""
    found = {}
    for name, images, bits in finished(folder):
        first, second, size, _ = name.split("-")
        found[f"{first}-{second}", size, images] = bits
    return found


def by_size(found: dict[tuple[str, str, int], np.ndarray], images: int) -> None:
    """Print bits/image, a row a split and a column a size, and the best of each size."""
    every = {size for _, size, n in found if n == images}
    sizes = sorted(every, key=lambda size: int(size[1:]))
    splits = [split for split in SUBCODES if any(key[0] == split for key in found)]
    print(f"\n| bits/image after {images:,} images | {' | '.join(sizes)} |")
    print(f"|---|{'---|' * len(sizes)}")
    for split in splits:
        cells = []
        for size in sizes:
            bits = found.get((split, size, images))
            cells.append("" if bits is None else f"{bits.mean():.1f}")
        print(f"| {split} | {' | '.join(cells)} |")


def against(found: dict[tuple[str, str, int], np.ndarray], base: str) -> None:
    """Print percent above a split at every size and length, with the error over paired images."""
    for split in dict.fromkeys(key[0] for key in found):
        said = []
        for (one, size, images), bits in sorted(found.items(), key=lambda e: (e[0][1], e[0][2])):
            other = found.get((base, size, images))
            if one == split != base and other is not None:
                ratio = bits.mean() / other.mean()
                error = np.std(bits - ratio * other, ddof=1) / other.mean() / math.sqrt(len(bits))
                said.append(f"{size} {images:,}: {100 * (ratio - 1):+.1f} ± {100 * error:.1f}")
        if said:
            print(f"{split} over {base}, % (SE over images): {'; '.join(said)}")


def laws(folder: pathlib.Path, splits: list[str]) -> None:
    """Fit and print L(N, D) of each split, and where its optimum goes."""
    for split in splits:
        try:
            table = read_runs(folder, where={"model.subcodes": str(SUBCODES[split])})
        except AnalysisError as error:
            print(f"{split}: {error}")
            continue
        print(f"\n## {split}: {len(table)} runs\n")
        for form in ("separable", "skaling"):
            print(fit(form, table).summary())
        if split != "1-16":
            print(optimum(table).summary())


def draw(parts: dict[str, pathlib.Path], pyplot) -> None:
    """Bits/image against data at the largest common size, and against compute."""
    figure, axes = pyplot.subplots(
        2, len(parts), figsize=(3.2 * len(parts), 5.2), squeeze=False, layout="constrained"
    )
    for column, (name, folder) in enumerate(parts.items()):
        found = ends(folder)
        for number, split in enumerate(SUBCODES):
            if not any(key[0] == split for key in found):
                continue
            color = f"C{number}"
            for size, style in (("s6", "o-"), ("s2", "o:")):
                keys = sorted(key for key in found if key[:2] == (split, size))
                along = [key[2] for key in keys], [found[key].mean() for key in keys]
                label = split if style == "o-" else None
                axes[0, column].plot(*along, style, color=color, markersize=2.5, label=label)
            table = read_runs(folder, where={"model.subcodes": str(SUBCODES[split])}).runs
            loss = POSITIONS * BITS * table["loss_nats_per_token"].to_numpy(float)
            c_flops = table["C_flops"].to_numpy(float)
            axes[1, column].plot(c_flops, loss, ".", color=color, markersize=3, alpha=0.6)
            order = np.argsort(c_flops)
            hull = np.minimum.accumulate(loss[order])
            axes[1, column].step(c_flops[order], hull, where="post", color=color, linewidth=1)
        axes[0, column].set(xscale="log", xlabel="images; full: s6, dotted: s2", title=name)
        lengths = sorted({key[2] for key in found})
        axes[0, column].set_xticks(lengths, [f"{images:,}" for images in lengths], fontsize=8)
        axes[0, column].minorticks_off()
        axes[1, column].set(xscale="log", xlabel="C, counted FLOPs")
        axes[0, column].legend(frameon=False, fontsize=7)
    for row in axes:
        row[0].set_ylabel("bits/image")
    (HERE / "results").mkdir(exist_ok=True)
    figure.savefig(HERE / "results" / "splits.svg", metadata={"Date": None})


def main() -> None:
    """Print and draw what is there."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results"
    parts = {name: folder / f"splits_{name}" for name in TOKENIZERS}
    parts = {name: path for name, path in parts.items() if path.is_dir()}
    if not parts:
        raise SystemExit(f"error: {folder}: holds no splits_{', splits_'.join(TOKENIZERS)}")
    for name, path in parts.items():
        found = ends(path)
        print(f"\n# {name}: {len(found)} runs")
        for images in sorted({key[2] for key in found}):
            by_size(found, images)
        against(found, "2-10" if "20" in name else "2-8")
        splits = [split for split in SUBCODES if any(key[0] == split for key in found)]
        laws(path, splits)
    if (folder / "splits_seeds").is_dir():
        print("\n# seeds")
        for name, images, bits in sorted(finished(folder / "splits_seeds"), key=lambda e: e[0]):
            print(f"{name}, {images:,} images: {bits.mean():.1f} bits/image")
    draw(parts, pyplot)


if __name__ == "__main__":
    main()
