"""Images of every kind's first seed: one picture, and the seconds that an image takes.

    python experiments/03_families/samples.py runs/03_families --out samples/03_families

Each kind is drawn by `lab.launch.sample` with the usual settings of its family (MaskGIT's and
BiGR's rounds, 100 or 250 steps of noise), without guidance, in batches of 20: the first one
compiles and is not timed. The time is of this machine and holds the tokenizer's decoder.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results"
CLASSES = [str(number) for number in range(10)]
PER_CLASS, BATCH = "8", "20"


def runs_of(study: pathlib.Path) -> dict[str, pathlib.Path]:
    """The directory of each kind's first seed."""
    found = {}
    for path in sorted(study.glob("*/config.json")):
        name = json.loads(path.read_text(encoding="utf-8"))["config"]["name"]
        kind, _, seed = name.rpartition("-")
        if seed == "0":
            found[kind] = path.parent
    return found


def drawn(run: pathlib.Path, out: pathlib.Path) -> dict[str, Any]:
    """What `lab.launch.sample` says of its draw."""
    command = [sys.executable, "-m", "lab.launch.sample", str(run), "--classes", *CLASSES]
    command += ["--per-class", PER_CLASS, "--batch", BATCH, "--out", str(out), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def picture(folders: dict[str, pathlib.Path], out: pathlib.Path) -> None:
    """A row a kind, an image a class."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(folders), 1, figsize=(9, 0.95 * len(folders)), layout="constrained"
    )
    for axis, (kind, folder) in zip(axes, folders.items(), strict=True):
        with np.load(folder / "samples.npz") as saved:
            images = saved["images"][:: int(PER_CLASS)]
        axis.imshow(np.concatenate(list(images), axis=1), interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_ylabel(kind, rotation=0, ha="right", va="center")
    figure.savefig(out, dpi=100)
    pyplot.close(figure)


def main(argv: list[str]) -> int:
    """Draw, time, and put the picture together."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("study", type=pathlib.Path, help="the folder of the runs")
    flags.add_argument("--out", type=pathlib.Path, required=True, help="where the images go")
    chosen = flags.parse_args(argv)
    folders, rows = {}, []
    for kind, run in sorted(runs_of(chosen.study).items()):
        folders[kind] = chosen.out / kind
        about = drawn(run, folders[kind])
        rows.append({"kind": kind, "seconds_per_image": round(1 / about["images_per_s"], 4)})
        print(rows[-1], flush=True)
    (RESULTS / "sampling.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    picture(folders, RESULTS / "samples.png")
    print(f"wrote {RESULTS / 'samples.png'} and sampling.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
