"""Extractors that judge, and a ladder of sizes to be judged.

    python -m lab.launch.sweep experiments/04_quality/sweep.py:extractors --workers 2
    python -m lab.launch.sweep experiments/04_quality/sweep.py:sizes --workers 2

`sizes` are ELM's 2-8 on the rounded bits of experiments/02_tokens' binary-16 of seed 0, which must
be trained and encoded (README.md). The families that are judged are the runs of 03_families.
"""

from configs.tokenizers import binary
from lab.core.config import admit, run_directory
from lab.core.errors import LabError
from lab.core.fields import overlay
from lab.core.sweep import Override, axis, product

STUDY = "04_quality"
EXTRACTORS = {
    "conv": "configs/classifiers/conv.py:small",
    "patch": "configs/classifiers/patch.py:small",
}
SIZES = ("s4", "s6", "s9")
SEEDS = (0, 1, 2)
IMAGES = "20000 examples"  # 0.93 epochs


def sweep(what: str = "sizes") -> list[Override]:
    """The runs of one part of the experiment."""
    parts = {"extractors": extractors, "sizes": sizes}
    if what not in parts:
        raise LabError(f"sweep.py:{what}: allowed are {', '.join(parts)}")
    return parts[what]()


def extractors() -> list[Override]:
    """One classifier of each kind."""
    return [
        {
            "config": config,
            "study": f"{STUDY}_extractors",
            "name": name,
            "execution.checkpoint_every_steps": 400,
            "execution.keep_last": 1,
        }
        for name, config in EXTRACTORS.items()
    ]


def sizes() -> list[Override]:
    """Three sizes of three seeds on the same number of images, the first seed first."""
    run = admit(overlay(binary.get_config("small-16"), {"study": "02_tokens", "seed": 0}))
    fixed = {
        "study": f"{STUDY}_sizes",
        "tokenizer.name": "trained",
        "tokenizer.run": str(run_directory(run)),
        "tokenizer.codes": "codes/02_tokens/binary-16-0",
        "model.subcodes": 2,
        "data.name": "eurosat",
        "train.duration": IMAGES,
        "optimizer.learning_rate": 0.006,  # the best of three at s6 (03_families)
        "execution.unroll_layers": True,  # compiles longer, runs faster on CPU
        "execution.keep_last": 1,
    }
    runs = product(axis("seed", SEEDS), axis("config", SIZES), [fixed])
    return [
        {
            **run,
            "name": f"{run['config']}-{run['seed']}",
            "config": f"configs/elm.py:{run['config']}",
        }
        for run in runs
    ]
