"""Raster, masked, binary and diffusion models over sizes and data: L(N, D) of each, same images.

    python -m lab.launch.sweep experiments/08_exponents/sweep.py:rates --workers 2
    python -m lab.launch.sweep experiments/08_exponents/sweep.py:surface --workers 2
    python -m lab.launch.sweep experiments/08_exponents/sweep.py:surface,0.1,s3 --workers 2
    python -m lab.launch.sweep experiments/08_exponents/sweep.py:beyond,1,S1 --pack 16

`rates` tries learning rates at one size; `surface` are the runs of the answer: of every kind and
size one run at a constant rate, and a cooldown per length from its checkpoints. A factor on all
lengths may follow (the third line: a rehearsal), and then the largest size.

`beyond` goes on where `surface` stops, for a GPU: eight times the images in batches of 32, three
seeds; the third part of its argument is one of the kinds (default: all). `beyond_rates` are the
rates for it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from lab.core.designs import cooldowns, seeds
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
    rate_beyond: float | None = None  # results of `beyond_rates`; None: not part of `beyond`


KINDS = {
    "S0": Kind("configs/bigr.py", IDS, rate=0.018, rate_beyond=0.018),
    "S1": Kind("configs/bigr.py", IDS | ANY | {"train.bound_draws": 8}, rate_beyond=0.006),
    "S2": Kind("configs/bigr.py", BITS | {"train.bound_draws": 8}, rate_beyond=0.009),
    "S3": Kind("configs/bigr.py", BITS | ANY | {"train.bound_draws": 8}, rate_beyond=0.009),
    "dit": Kind("configs/dit.py", {"train.bound_draws": 16}, tokens_per_image=192),
}
SIZES = ["s6", "s5", "s4", "s3", "s2"]  # the longest first
IMAGES = [65_536, 32_768, 16_384, 8_192, 4_096]  # of a run, none of them twice
RATES, RATES_SIZE, RATES_IMAGES = (0.002, 0.006, 0.018), "s4", 16_384
BATCH = 16
BEYOND_SIZES = ["s8", "s6", "s4", "s2"]
BEYOND_IMAGES = [524_288, 262_144, 131_072, 65_536, 32_768]
BEYOND_BATCH, BEYOND_DISPATCH, SEEDS = 32, 32, 3
BEYOND_RATES, BEYOND_RATES_IMAGES, BEYOND_RATES_BATCH = (0.006, 0.012, 0.024, 0.048), 65_536, 64
FRACTION = 0.2  # of a run cools down
PARTS = ["surface", "rates", "beyond", "beyond_rates"]


def sweep(argument: str = "surface") -> list[Override]:
    """The runs of one part of the experiment."""
    beyond_kinds = [name for name, kind in KINDS.items() if kind.rate_beyond is not None]
    made = read_argument(argument, PARTS, {"surface": SIZES, "beyond": ["all", *beyond_kinds]})
    scale, images, batch, dispatch = made.factor, max(IMAGES), BATCH, 8
    if made.part == "surface":
        runs = surface(scale, SIZES[SIZES.index(made.choice) :])
    elif made.part == "rates":
        runs = rates(list(KINDS), RATES, RATES_IMAGES * scale)
    elif made.part == "beyond":
        runs = beyond(scale, [made.choice] if made.choice in KINDS else beyond_kinds)
        images, batch, dispatch = max(BEYOND_IMAGES), BEYOND_BATCH, BEYOND_DISPATCH
    else:
        runs = rates(beyond_kinds, BEYOND_RATES, BEYOND_RATES_IMAGES * scale)
        images, batch = BEYOND_RATES_IMAGES, BEYOND_RATES_BATCH
    for run in runs:
        kind = str(run["name"]).partition("-")[0]
        part = {"surface": kind, "beyond": f"beyond_{kind}"}.get(made.part, made.part)
        run["study"] = f"exponents_{part}{made.suffix}"
    return product(runs, [common(max(round(images * scale), batch), batch, dispatch)])


def rates(names: list[str], tried: Sequence[float], images: float) -> list[Override]:
    """Every kind at each rate, one size and length."""
    return [
        {
            **of(name),
            "config": f"{KINDS[name].config}:{argument_of(name, RATES_SIZE)}",
            "name": f"{name}-{RATES_SIZE}-lr{rate['optimizer.learning_rate']:g}",
            "train.duration": f"{round(images)} examples",
            "optimizer.schedule": "wsd",
            "optimizer.cooldown_fraction": FRACTION,
            **rate,
        }
        for name in names
        for rate in axis("optimizer.learning_rate", list(tried))
    ]


def surface(scale: float, sizes: list[str]) -> list[Override]:
    """Trunks and branches; DiT's last."""
    order = [(size, name) for size in sizes for name in KINDS]
    order.sort(key=lambda each: each[1] == "dit")
    columns = [column(name, size, IMAGES, scale, KINDS[name].rate) for size, name in order]
    return [run for runs in columns for run in runs]


def beyond(scale: float, names: list[str]) -> list[Override]:
    """Trunks and branches of every seed."""
    return [
        run
        for name in names
        for size in BEYOND_SIZES
        for run in product(
            column(name, size, BEYOND_IMAGES, scale, KINDS[name].rate_beyond), seeds(SEEDS)
        )
    ]


def column(
    name: str, size: str, lengths: list[int], scale: float, rate: float | None
) -> list[Override]:
    """One kind and size: a trunk, and a branch of each length in images."""
    kind = KINDS[name]
    tokens = [round(images * scale) * kind.tokens_per_image for images in lengths]
    made = cooldowns(kind.config, [argument_of(name, size)], tokens, fraction=FRACTION)
    both = {**of(name), "optimizer.learning_rate": rate}
    return [
        {**run, **both, "name": f"{name}-{str(run['name']).removeprefix(f'{name}-')}"}
        for run in made
    ]


def of(name: str) -> Override:
    """What all runs of a kind have in common."""
    return dict(KINDS[name].overrides)


def argument_of(name: str, size: str) -> str:
    """That of the kind's config file."""
    return size if name == "dit" else f"{name}-{size}"


def common(images: int, batch: int, dispatch: int) -> Override:
    """What all runs have in common."""
    return {
        "data.name": "dead_leaves",
        "data.train_examples": images,
        "tokenizer.channels": "rgb",
        "tokenizer.resolution": 8,
        "tokenizer.levels": 8,
        "train.batch_size": batch,
        "train.evaluation_batch_size": 64,
        "train.log_every_steps": 64,
        "train.evaluate_every_steps": 0,
        "optimizer.warmup": "20 steps",
        "execution.devices": 1,
        "execution.unroll_layers": True,
        "execution.steps_per_dispatch": dispatch,
        "execution.checkpoint_every_steps": 1000,
    }
