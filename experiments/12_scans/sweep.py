"""Autoregression along ten scans of the grid, in any order, and masked: pixels and tokens.

    python -m lab.launch.sweep experiments/12_scans/sweep.py:pixels --workers 2
    python -m lab.launch.sweep experiments/12_scans/sweep.py:larger --workers 2
    python -m lab.launch.sweep experiments/12_scans/sweep.py:codes --workers 2
    python -m lab.launch.sweep experiments/12_scans/sweep.py:pixels,0.1 --workers 2

`pixels` are dead leaves of 16 x 16 whole pixels, a small model with three seeds; `larger` is a
larger model with one; both have a cooldown to a quarter of the images. `codes` are the rounded bits
of a tokenizer of experiments/02_tokens (README.md). A factor on all lengths may follow (the last
line: a rehearsal).
"""

from configs.tokenizers import binary
from lab.core.config import SCANS, admit, run_directory
from lab.core.designs import cooldowns
from lab.core.fields import overlay
from lab.core.sweep import Override, axis, product
from lab.core.sweep_argument import read_argument

ELM, MLM = "configs/elm.py", "configs/mlm.py"
DRAWS = {"train.bound_draws": 16}  # of orders or of masks
# Counts of hidden positions uniform: training minimises the any-order bound itself.
MASKED = {"model.mask_schedule": "linear", "model.mask_rates": 64, **DRAWS}
IMAGES, PIXELS = [16_384, 4_096], 256
CODE_IMAGES, CODES = 20_480, 64
SEEDS = [0, 1, 2]
BATCH, FRACTION = 16, 0.2


def sweep(argument: str = "pixels") -> list[Override]:
    """The runs of one part of the experiment."""
    made = read_argument(argument, ["pixels", "larger", "codes"])
    if made.part == "codes":
        runs = on_codes(made.factor)
    else:
        of = ("s5", SEEDS[:1]) if made.part == "larger" else ("s3", SEEDS)
        runs = on_pixels(made.factor, *of)
    return product(runs, [common(f"scans_{made.part}{made.suffix}")])


def orders(size: str) -> list[Override]:
    """Every scan, any order, and the masked model; each with a config and a name."""
    along: list[Override] = [
        {
            "config": f"{ELM}:{size}",
            "model.scan": scan,
            "name": scan,
            **(DRAWS if scan == "any" else {}),
        }
        for scan in SCANS
    ]
    return [*along, {"config": f"{MLM}:{size}", **MASKED, "name": "masked"}]


def on_pixels(scale: float, size: str, seeds: list[int]) -> list[Override]:
    """Trunks and branches of one size in every order."""
    tokens = [round(images * scale) * PIXELS for images in IMAGES]
    data: Override = {
        "data.name": "dead_leaves",
        "data.train_examples": max(round(max(IMAGES) * scale), BATCH),
        "tokenizer.name": "pixel_bits",
        "tokenizer.channels": "rgb",
        "tokenizer.resolution": 16,
        "tokenizer.levels": 8,
        "model.subcodes": 1,
    }
    found: list[Override] = []
    for seed in seeds:
        for order in orders(size):
            config = str(order["config"]).partition(":")[0]
            for run in cooldowns(config, [size], tokens, fraction=FRACTION):
                name = f"{order['name']}-{run['name']}-seed{seed}"
                found.append({**run, **order, **data, "seed": seed, "name": name})
    return found


def on_codes(scale: float) -> list[Override]:
    """One size in every order and with every seed, on 16 bits in two sub-codes."""
    config = overlay(binary.get_config("small-16"), {"study": "02_tokens", "seed": 0})
    data: Override = {
        "data.name": "eurosat",
        "tokenizer.name": "trained",
        "tokenizer.run": str(run_directory(admit(config))),
        "tokenizer.codes": "codes/02_tokens/binary-16-0",
        "model.subcodes": 2,
        "train.duration": f"{round(CODE_IMAGES * scale) * CODES} tokens",
        "optimizer.schedule": "wsd",
        "optimizer.cooldown_fraction": FRACTION,
    }
    named = [{**seed, "name": f"seed{seed['seed']}"} for seed in axis("seed", SEEDS)]
    return product(orders("s4"), named, [data])


def common(study: str) -> Override:
    """What all runs have in common."""
    return {
        "study": study,
        "train.batch_size": BATCH,
        "train.evaluation_batch_size": 64,
        "train.log_every_steps": 32,
        "train.evaluate_every_steps": 0,
        "execution.devices": 1,
        "execution.unroll_layers": True,
        "execution.steps_per_dispatch": 8,
        "execution.checkpoint_every_steps": 1000,
    }
