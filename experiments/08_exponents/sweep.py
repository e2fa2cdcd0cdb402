"""Raster, masked, binary and diffusion models over sizes and data: L(N, D) of each, same images.

    python -m lab.launch.sweep experiments/08_exponents/sweep.py:rates --workers 2
    python -m lab.launch.sweep experiments/08_exponents/sweep.py:surface --workers 2
    python -m lab.launch.sweep experiments/08_exponents/sweep.py:surface,0.1,s3 --workers 2

`rates` tries learning rates at one size; `surface` are the runs of the answer: of every kind and
size one run at a constant rate, and a cooldown per length from its checkpoints. A factor on all
lengths may follow (the last line: a rehearsal), and then the largest size.
"""

import dataclasses
from typing import Any

from lab.core.designs import cooldowns
from lab.core.sweep import Override, axis, product
from lab.core.sweep_argument import read_argument

BITS = {"tokenizer.name": "pixel_bits", "model.subcodes": 9}
IDS = {"tokenizer.name": "pixel_bits", "model.subcodes": 1}
# Counts of hidden positions uniform: training minimises the bound itself.
ANY = {"model.mask_schedule": "linear", "model.mask_rates": 64}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A family on the pixels, its rate (results of `rates`), and the tokens of its images."""

    config: str
    overrides: dict[str, Any]
    rate: float = 0.006
    tokens_per_image: int = 64


KINDS = {
    "S0": Kind("configs/bigr.py", IDS, rate=0.018),
    "S1": Kind("configs/bigr.py", IDS | ANY | {"train.bound_draws": 8}),
    "S2": Kind("configs/bigr.py", BITS | {"train.bound_draws": 8}),
    "S3": Kind("configs/bigr.py", BITS | ANY | {"train.bound_draws": 8}),
    "dit": Kind("configs/dit.py", {"train.bound_draws": 16}, tokens_per_image=192),
}
SIZES = ["s6", "s5", "s4", "s3", "s2"]  # the longest first
IMAGES = [65_536, 32_768, 16_384, 8_192, 4_096]  # of a run, none of them twice
RATES, RATES_SIZE, RATES_IMAGES = (0.002, 0.006, 0.018), "s4", 16_384
BATCH = 16
FRACTION = 0.2  # of a run cools down


def sweep(argument: str = "surface") -> list[Override]:
    """The runs of one part of the experiment."""
    made = read_argument(argument, ["surface", "rates"], {"surface": SIZES})
    scale, sizes = made.factor, SIZES[SIZES.index(made.choice) :] if made.choice else []
    runs = rates(scale) if made.part == "rates" else surface(scale, sizes)
    for run in runs:
        kind = str(run["name"]).partition("-")[0]
        run["study"] = f"exponents_{made.part if made.part == 'rates' else kind}{made.suffix}"
    return product(runs, [common(max(round(max(IMAGES) * scale), BATCH))])


def rates(scale: float) -> list[Override]:
    """Every kind at each rate, one size and length."""
    return [
        {
            **of(name),
            "config": f"{KINDS[name].config}:{argument_of(name, RATES_SIZE)}",
            "name": f"{name}-{RATES_SIZE}-lr{rate['optimizer.learning_rate']:g}",
            "train.duration": f"{round(RATES_IMAGES * scale)} examples",
            "optimizer.schedule": "wsd",
            "optimizer.cooldown_fraction": FRACTION,
            **rate,
        }
        for name in KINDS
        for rate in axis("optimizer.learning_rate", list(RATES))
    ]


def surface(scale: float, sizes: list[str]) -> list[Override]:
    """Trunks and branches; DiT's last."""
    order = [(size, name, kind) for size in sizes for name, kind in KINDS.items()]
    order.sort(key=lambda each: each[1] == "dit")
    found: list[Override] = []
    for size, name, kind in order:
        tokens = [round(images * scale) * kind.tokens_per_image for images in IMAGES]
        made = cooldowns(kind.config, [argument_of(name, size)], tokens, fraction=FRACTION)
        rate = {"optimizer.learning_rate": kind.rate}
        for run in made:
            plain = str(run["name"]).removeprefix(f"{name}-")
            found.append({**run, **of(name), **rate, "name": f"{name}-{plain}"})
    return found


def of(name: str) -> Override:
    """What all runs of a kind have in common."""
    return dict(KINDS[name].overrides)


def argument_of(name: str, size: str) -> str:
    """That of the kind's config file."""
    return size if name == "dit" else f"{name}-{size}"


def common(images: int) -> Override:
    """What all runs have in common."""
    return {
        "data.name": "dead_leaves",
        "data.train_examples": images,
        "tokenizer.channels": "rgb",
        "tokenizer.resolution": 8,
        "tokenizer.levels": 8,
        "train.batch_size": BATCH,
        "train.evaluation_batch_size": 64,
        "train.log_every_steps": 64,
        "train.evaluate_every_steps": 0,
        "optimizer.warmup": "20 steps",
        "execution.devices": 1,
        "execution.unroll_layers": True,
        "execution.steps_per_dispatch": 8,
        "execution.checkpoint_every_steps": 1000,
    }
