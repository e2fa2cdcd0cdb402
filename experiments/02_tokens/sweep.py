"""Tokens of EuroSAT: six tokenizers of three seeds each, and generators on the binary ones.

    python -m lab.launch.sweep experiments/02_tokens/sweep.py:tokenizers --workers 2
    python -m lab.launch.sweep experiments/02_tokens/sweep.py:generators --workers 2
    python -m lab.launch.sweep experiments/02_tokens/sweep.py:adversarial --workers 2

The generators are ELM's s6 on the rounded bits of seed 0, in four splits: 16 bits as 1-16 and 2-8,
20 bits as 2-10 and 4-5. They want the tokenizers trained and the images encoded (README.md).

The adversarial ones are two of the tokenizers once more, seed by seed from the same initial
parameters, with a patch discriminator that begins half way.
"""

from configs.tokenizers import binary
from lab.core.config import admit, run_directory
from lab.core.errors import LabError
from lab.core.fields import overlay
from lab.core.sweep import Override, axis, product, zipped

STUDY = "02_tokens"
KINDS = {
    "vqgan": "configs/tokenizers/vqgan.py:small",
    "vqgan-l2": "configs/tokenizers/vqgan.py:small-l2",
    "vqgan-restart": "configs/tokenizers/vqgan.py:small-restart",
    "binary-16": "configs/tokenizers/binary.py:small-16",
    "binary-20": "configs/tokenizers/binary.py:small-20",
    "kl": "configs/tokenizers/kl.py:small",
}
SEEDS = (0, 1, 2)
SPLITS = {"1-16": (16, 1), "2-8": (16, 2), "2-10": (20, 2), "4-5": (20, 4)}  # bits, sub-codes
TOKENS = "1000000 tokens"
ADVERSARIAL = {  # the weight of the loss and the largest ratio of gradients, as published
    "binary-16": {"losses.adversarial": 1.0, "losses.adversarial_most": 1.0},
    "vqgan-restart": {"losses.adversarial": 0.8, "losses.adversarial_most": 1e4},
}
HALF = "10240 examples"  # of the 20,480 that a small tokenizer is trained on


def sweep(what: str = "tokenizers") -> list[Override]:
    """The runs of one part of the experiment."""
    parts = {"tokenizers": tokenizers, "generators": generators, "adversarial": adversarial}
    if what not in parts:
        raise LabError(f"sweep.py:{what}: allowed are {', '.join(parts)}")
    return parts[what]()


def tokenizers() -> list[Override]:
    """Six kinds, three seeds, the first seed first."""
    runs = product(
        axis("seed", SEEDS), axis("config", KINDS.values()), axis("study", [STUDY]), place()
    )
    names = {config: kind for kind, config in KINDS.items()}
    return [{**run, "name": f"{names[run['config']]}-{run['seed']}"} for run in runs]


def adversarial() -> list[Override]:
    """Two kinds with a discriminator from half of their training on, three seeds."""
    fixed = {"study": STUDY, "losses.adversarial_start": HALF}
    return [
        {"name": f"{kind}-gan-{seed}", "config": KINDS[kind], "seed": seed, **fixed, **losses, **at}
        for seed in SEEDS
        for kind, losses in ADVERSARIAL.items()
        for at in place()
    ]


def generators() -> list[Override]:
    """Four splits, three seeds."""
    splits = zipped(
        axis("model.subcodes", [subcodes for _, subcodes in SPLITS.values()]),
        axis("tokenizer.run", [tokenizer_run(bits) for bits, _ in SPLITS.values()]),
        axis("tokenizer.codes", [f"codes/{STUDY}/binary-{bits}-0" for bits, _ in SPLITS.values()]),
        axis("name", SPLITS),
    )
    fixed = {
        "config": "configs/elm.py:s6",
        "study": f"{STUDY}_elm",
        "tokenizer.name": "trained",
        "data.name": "eurosat",
        "train.duration": TOKENS,
        "execution.unroll_layers": True,  # compiles longer, runs faster on CPU
    }
    runs = product(axis("seed", SEEDS), splits, [fixed], place())
    return [{**run, "name": f"{run['name']}-{run['seed']}"} for run in runs]


def tokenizer_run(bits: int) -> str:
    """The run directory of the binary tokenizer of seed 0."""
    config = binary.get_config(f"small-{bits}")
    run = admit(overlay(config, {"study": STUDY, "seed": 0}))
    return str(run_directory(run))


def place() -> list[Override]:
    """How the runs are made here."""
    return [{"execution.checkpoint_every_steps": 400, "execution.keep_last": 1}]
