"""Autoregression along ten scans of the grid, in any order, and masked: pixels and tokens.

    python -m lab.launch.sweep experiments/12_scans/sweep.py:rates --workers 2
    python -m lab.launch.sweep experiments/12_scans/sweep.py:pixels --workers 2
    python -m lab.launch.sweep experiments/12_scans/sweep.py:larger --workers 2
    python -m lab.launch.sweep experiments/12_scans/sweep.py:longer --workers 2
    python -m lab.launch.sweep experiments/12_scans/sweep.py:codes --workers 2
    python -m lab.launch.sweep experiments/12_scans/sweep.py:pixels,0.1 --workers 2

`pixels` are dead leaves of 8 x 8 whole pixels, a small model with three seeds; `larger` is a
larger model with one; both have a cooldown to a quarter of the images. `longer` is the small model
on four times as many. `rates` tries learning rates of four orders on that quarter. `codes` are the
rounded bits of a tokenizer of experiments/02_tokens (README.md). A factor on all lengths may follow
(the last line: a rehearsal).
"""

from configs.tokenizers import binary
from lab.core.config import SCANS, admit, run_directory
from lab.core.designs import cooldowns
from lab.core.fields import overlay
from lab.core.sweep import Override, product
from lab.core.sweep_argument import read_argument

ELM, MLM = "configs/elm.py", "configs/mlm.py"
# Counts of hidden positions uniform: training minimises the any-order bound itself.
MASKED = {"model.mask_schedule": "linear", "model.mask_rates": 64}
# What is a mean over orders: draws of them, or of masks, and the best rate of `rates`.
BOUNDS, BOUNDED = ("any", "masked"), {"train.bound_draws": 16, "optimizer.learning_rate": 0.006}
IMAGES, PIXELS = [16_384, 4_096], 64
CODE_IMAGES, CODES = 20_480, 64
SEEDS = [0, 1, 2]
RATES, RATED = [0.054, 0.018, 0.006], ("rows", "shuffled", "any", "masked")
RATE = 0.018  # of the scans, results of `rates`
BATCH, FRACTION = 16, 0.2


def sweep(argument: str = "pixels") -> list[Override]:
    """The runs of one part of the experiment."""
    made = read_argument(argument, ["pixels", "rates", "larger", "longer", "codes"])
    parts = {
        "pixels": lambda: on_pixels("s3", SEEDS, made.factor),
        "larger": lambda: on_pixels("s6", SEEDS[:1], made.factor),
        "longer": lambda: longer("s3", made.factor),
        "rates": lambda: rates("s3", made.factor),
        "codes": lambda: on_codes("s4", made.factor),
    }
    shared = common(f"scans_{made.part}{made.suffix}")
    return [{**shared, **run} for run in parts[made.part]()]


def orders(size: str) -> list[Override]:
    """Every scan, any order, and the masked model; each with a config and a name."""
    found: list[Override] = []
    for scan in SCANS:
        found.append({"config": f"{ELM}:{size}", "model.scan": scan, "name": scan})
    found.append({"config": f"{MLM}:{size}", **MASKED, "name": "masked"})
    return [{**order, **(BOUNDED if order["name"] in BOUNDS else {})} for order in found]


def on_pixels(size: str, seeds: list[int], scale: float) -> list[Override]:
    """Trunks and branches of one size in every order."""
    tokens = [round(images * scale) * PIXELS for images in IMAGES]
    found: list[Override] = []
    for seed in seeds:
        for order in orders(size):
            config = str(order["config"]).partition(":")[0]
            for run in cooldowns(config, [size], tokens, fraction=FRACTION):
                name = f"{order['name']}-{run['name']}-seed{seed}"
                found.append({**run, **order, **leaves(scale), "seed": seed, "name": name})
    return found


def longer(size: str, scale: float) -> list[Override]:
    """One size on four times the images in every order, without trunks."""
    images = 4 * max(IMAGES) * scale
    data = {**leaves(4 * scale), **alone(images, PIXELS)}
    return [{**order, **data, "name": f"{order['name']}-{size}-seed0"} for order in orders(size)]


def rates(size: str, scale: float) -> list[Override]:
    """Four orders at each rate, one size and the shorter length."""
    data = {**leaves(scale), **alone(IMAGES[1] * scale, PIXELS)}
    return [
        {**order, **data, "optimizer.learning_rate": rate, "name": f"{order['name']}-lr{rate:g}"}
        for order in orders(size)
        if order["name"] in RATED
        for rate in RATES
    ]


def on_codes(size: str, scale: float) -> list[Override]:
    """One size in every order and with every seed, on 16 bits in two sub-codes."""
    config = overlay(binary.get_config("small-16"), {"study": "02_tokens", "seed": 0})
    data: Override = {
        "data.name": "eurosat",
        "tokenizer.name": "trained",
        "tokenizer.run": str(run_directory(admit(config))),
        "tokenizer.codes": "codes/02_tokens/binary-16-0",
        "model.subcodes": 2,
    }
    named: list[Override] = [{"seed": seed, "name": f"seed{seed}"} for seed in SEEDS]
    return product(orders(size), named, [{**data, **alone(CODE_IMAGES * scale, CODES)}])


def leaves(scale: float) -> Override:
    """Dead leaves of 8 x 8 whole pixels in 512 colours, none seen twice."""
    return {
        "data.name": "dead_leaves",
        "data.train_examples": max(round(max(IMAGES) * scale), BATCH),
        "tokenizer.name": "pixel_bits",
        "tokenizer.channels": "rgb",
        "tokenizer.resolution": 8,
        "tokenizer.levels": 8,
        "model.subcodes": 1,
    }


def alone(images: float, positions: int) -> Override:
    """A run without a trunk."""
    return {
        "train.duration": f"{round(images) * positions} tokens",
        "optimizer.schedule": "wsd",
        "optimizer.cooldown_fraction": FRACTION,
    }


def common(study: str) -> Override:
    """What all runs have in common, unless they say otherwise."""
    return {
        "study": study,
        "optimizer.learning_rate": RATE,
        "train.batch_size": BATCH,
        "train.evaluation_batch_size": 64,
        "train.log_every_steps": 32,
        "train.evaluate_every_steps": 0,
        "execution.devices": 1,
        "execution.unroll_layers": True,
        "execution.steps_per_dispatch": 8,
        "execution.checkpoint_every_steps": 1000,
    }
