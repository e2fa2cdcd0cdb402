"""Bits of a binary tokenizer in sub-codes, coarse to fine, over sizes and data: L(N, D) of each.

    python -m lab.launch.sweep experiments/11_splits/sweep.py:rates --workers 2
    python -m lab.launch.sweep experiments/11_splits/sweep.py:surface --workers 2
    python -m lab.launch.sweep experiments/11_splits/sweep.py:surface,1,binary-20-0 --workers 2
    python -m lab.launch.sweep experiments/11_splits/sweep.py:seeds --workers 2

`rates` tries learning rates of three splits at one size; `surface` is of every split and size one
run at a constant rate and a cooldown per length from its checkpoints, on the codes of one
tokenizer of experiments/02_tokens (16 bits, seed 0, unless another is named); `seeds` repeats the
longest runs of one size. They want the tokenizers trained and the images encoded (README.md).
"""

from configs.tokenizers import binary
from lab.core.config import admit, run_directory
from lab.core.designs import cooldowns
from lab.core.fields import overlay
from lab.core.sweep import Override, axis
from lab.core.sweep_argument import read_argument

CONFIG = "configs/elm.py"
TOKENIZERS = ["binary-16-0", "binary-16-1", "binary-20-0"]  # kind, bits, seed
# Sub-codes of a position of the splits t-k: t sub-codes of k bits each.
SPLITS = {
    16: {"2-8": 2, "4-4": 4, "8-2": 8, "16-1": 16, "1-16": 1},
    20: {"2-10": 2, "4-5": 4, "10-2": 10, "20-1": 20},
}
SIZES = ["s9", "s6", "s4", "s2"]  # the longest first; of 1-16 all but the first
ALL_SIZES = ["s9", "s8", "s7", "s6", "s5", "s4", "s3", "s2", "s1"]  # of the law on tokens: 2-8
IMAGES = [20_480, 10_240, 5_120, 2_560]  # of a run, none of them twice
POSITIONS, BATCH, FRACTION = 64, 16, 0.2
RATES, RATES_SIZE, RATES_SPLITS = (0.002, 0.006, 0.018, 0.054), "s4", ("2-8", "16-1", "1-16")
RATE, RATE_OF = 0.018, {"1-16": 0.006}  # results of `rates`
SEEDS, SEEDS_SIZE = (1, 2), "s4"


def sweep(argument: str = "surface") -> list[Override]:
    """The runs of one part of the experiment."""
    made = read_argument(argument, ["surface", "rates", "seeds"], {"surface": TOKENIZERS})
    tokenizer = made.choice or TOKENIZERS[0]
    parts = {"surface": surface, "rates": rates, "seeds": seeds}
    runs = parts[made.part](tokenizer, made.factor)
    part = tokenizer if made.part == "surface" else made.part
    shared = common(tokenizer, f"splits_{part}{made.suffix}")
    return [{**shared, **run} for run in runs]


def surface(tokenizer: str, scale: float) -> list[Override]:
    """Trunks and branches, the split with the largest head last."""
    found: list[Override] = []
    for split, subcodes in SPLITS[bits_of(tokenizer)].items():
        sizes = ALL_SIZES if split == "2-8" and tokenizer == TOKENIZERS[0] else SIZES
        sizes = SIZES[1:] if split == "1-16" else sizes
        tokens = [round(images * scale) * POSITIONS for images in IMAGES]
        for run in cooldowns(CONFIG, sizes, tokens, fraction=FRACTION):
            name = f"{split}-{run['name']}"
            found.append({**run, **of_split(split, subcodes), "name": name})
    return found


def rates(tokenizer: str, scale: float) -> list[Override]:
    """Three splits at each rate, one size and length."""
    return [
        {
            **single(split, RATES_SIZE, IMAGES[1] * scale),
            **rate,
            "name": f"{split}-lr{rate['optimizer.learning_rate']:g}",
        }
        for split in RATES_SPLITS
        for rate in axis("optimizer.learning_rate", list(RATES))
    ]


def seeds(tokenizer: str, scale: float) -> list[Override]:
    """The longest runs of one size and every split with other seeds."""
    return [
        {
            **single(split, SEEDS_SIZE, IMAGES[0] * scale),
            "seed": seed,
            "name": f"{split}-{SEEDS_SIZE}-seed{seed}",
        }
        for split in SPLITS[16]
        for seed in SEEDS
    ]


def single(split: str, size: str, images: float) -> Override:
    """A run of a 16-bit split without a trunk."""
    return {
        "config": f"{CONFIG}:{size}",
        **of_split(split, SPLITS[16][split]),
        "train.duration": f"{round(images) * POSITIONS} tokens",
        "optimizer.schedule": "wsd",
        "optimizer.cooldown_fraction": FRACTION,
    }


def of_split(split: str, subcodes: int) -> Override:
    """Its number of sub-codes, and its rate."""
    rate = RATE_OF.get(split, RATE)
    return {"model.subcodes": subcodes, "optimizer.learning_rate": rate}


def bits_of(tokenizer: str) -> int:
    """16 of "binary-16-0"."""
    return int(tokenizer.split("-")[1])


def tokenizer_run(tokenizer: str) -> str:
    """Its run directory, of experiments/02_tokens."""
    _, bits, seed = tokenizer.split("-")
    config = binary.get_config(f"small-{bits}")
    return str(run_directory(admit(overlay(config, {"study": "02_tokens", "seed": int(seed)}))))


def common(tokenizer: str, study: str) -> Override:
    """What all runs have in common."""
    return {
        "study": study,
        "data.name": "eurosat",
        "tokenizer.name": "trained",
        "tokenizer.run": tokenizer_run(tokenizer),
        "tokenizer.codes": f"codes/02_tokens/{tokenizer}",
        "train.batch_size": BATCH,
        "train.evaluation_batch_size": 64,
        "train.log_every_steps": 40,
        "train.evaluate_every_steps": 0,
        "execution.devices": 1,
        "execution.unroll_layers": True,
        "execution.steps_per_dispatch": 8,
        "execution.checkpoint_every_steps": 1000,
    }
