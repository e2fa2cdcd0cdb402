"""Every family on the same images at one compute budget, three seeds each.

    python -m lab.launch.sweep experiments/03_families/sweep.py:rates --workers 2
    python -m lab.launch.sweep experiments/03_families/sweep.py:families --workers 2

`rates` tries learning rates at an eighth of the budget; `families` are the runs of the answer. All
but those on pixels want tokenizers of experiments/02_tokens trained and the images encoded
(README.md).
"""

import dataclasses
from typing import Any

from configs.tokenizers import binary, kl, vqgan
from lab.core.config import admit, run_directory
from lab.core.errors import LabError
from lab.core.fields import overlay
from lab.core.sweep import Override, axis, product

STUDY = "03_families"
BUDGET = "1.2e12 flops"
PILOT = "1.5e11 flops"
SEEDS = (0, 1, 2)
TRIED = (0.002, 0.006, 0.018)

TOKENIZERS = {
    "vqgan-restart": (vqgan, "small-restart"),
    "binary-16": (binary, "small-16"),
    "kl": (kl, "small"),
}
BITS = {"model.subcodes": 16}
TWO = {"model.subcodes": 2}  # sub-codes of 8 bits
ANY = {"model.mask_schedule": "linear", "model.mask_rates": 64}  # trains on the bound itself


@dataclasses.dataclass(frozen=True)
class Kind:
    """A family on some tokens: its config, its tokenizer, what else it says, its rate."""

    config: str
    tokens: str  # "pixels" or a tokenizer's name
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    rate: float = 0.006


KINDS = {
    "pixel-ar": Kind("elm.py:s6", "pixels", rate=0.018),
    "pixel-mlm": Kind("mlm.py:s6", "pixels"),
    "pixel-dit": Kind("dit.py:s6", "pixels", rate=0.002),
    "llamagen": Kind("llamagen.py:s6", "vqgan-restart", rate=0.018),
    "mlm": Kind("mlm.py:s6", "vqgan-restart", rate=0.018),
    "elm-2-8": Kind("elm.py:s6", "binary-16", TWO),
    "S0": Kind("bigr.py:S0-s6", "binary-16", TWO),
    "S1": Kind("bigr.py:S1-s6", "binary-16", TWO),
    "S1-any": Kind("bigr.py:S1-s6", "binary-16", TWO | ANY),
    "S2": Kind("bigr.py:S2-s6", "binary-16", BITS, rate=0.018),
    "S3": Kind("bigr.py:S3-s6", "binary-16", BITS, rate=0.018),
    "bigr-bce": Kind("bigr.py:bce-s6", "binary-16", BITS),
    "bigr-x0": Kind("bigr.py:x0-s6", "binary-16", BITS, rate=0.018),
    "mar": Kind("mar.py:s6", "kl"),
    "ar-diffusion": Kind("ar_diffusion.py:s6", "kl"),
    "dit": Kind("dit.py:s6", "kl", rate=0.002),
}


def sweep(what: str = "families") -> list[Override]:
    """The runs of one part of the experiment."""
    parts = {"rates": rates, "families": families}
    if what not in parts:
        raise LabError(f"sweep.py:{what}: allowed are {', '.join(parts)}")
    return parts[what]()


def rates() -> list[Override]:
    """Every kind at each rate, an eighth of the budget, 256 validation images, seed 0."""
    short = {
        "study": f"{STUDY}_rates",
        "train.duration": PILOT,
        "data.validation_examples": 256,
        "seed": 0,
    }
    return [
        {**run, **short, "optimizer.learning_rate": rate, "name": f"{kind}-{rate:g}"}
        for kind in KINDS
        for run in [of(kind)]
        for rate in TRIED
    ]


def families() -> list[Override]:
    """Every kind at its rate, the first seed first."""
    runs = product(axis("seed", SEEDS), [of(kind) for kind in KINDS])
    return [{**run, "name": f"{run['name']}-{run['seed']}"} for run in runs]


def of(name: str) -> Override:
    """What all runs of a kind have in common."""
    kind = KINDS[name]
    tokens: dict[str, Any] = {"tokenizer.name": "pixels"}
    if kind.tokens != "pixels":
        tokens = {
            "tokenizer.name": "trained",
            "tokenizer.run": tokenizer_run(kind.tokens),
            "tokenizer.codes": f"codes/02_tokens/{kind.tokens}-0",
        }
    return {
        "config": f"configs/{kind.config}",
        "study": STUDY,
        "name": name,
        "data.name": "eurosat",
        "train.duration": BUDGET,
        "optimizer.learning_rate": kind.rate,
        "execution.unroll_layers": True,  # compiles longer, runs faster on CPU
        "execution.keep_last": 1,
        **tokens,
        **kind.overrides,
    }


def tokenizer_run(name: str) -> str:
    """The run directory of the tokenizer of seed 0."""
    module, size = TOKENIZERS[name]
    config = module.get_config(size)
    run = admit(overlay(config, {"study": "02_tokens", "seed": 0}))
    return str(run_directory(run))
