"""Epochs over few images of EuroSAT: what is an image worth when it is seen again?

    python -m lab.launch.sweep experiments/10_repeats/sweep.py --workers 2
    python -m lab.launch.sweep experiments/10_repeats/sweep.py:1024,0.1,s3 --workers 2

The argument is "all" or a number of images; a factor on the number of epochs may follow (the last
line: a rehearsal), and then one size alone. Everything else is that of 06_surface's EuroSAT, whose
runs are those of at most one epoch.
"""

from lab.core.designs import cooldowns
from lab.core.sweep import Override, product
from lab.core.sweep_argument import read_argument

CONFIG = "configs/elm.py"
SIZES = ["s5", "s3"]
IMAGES = [4096, 1024]
EPOCHS = [32, 16, 8, 4, 2]
TOKENS_PER_IMAGE = 192
FRACTION = 0.2


def sweep(argument: str = "all") -> list[Override]:
    """A trunk for every size and number of images, and a cooldown for each number of epochs."""
    parts = ["all", *map(str, IMAGES)]
    made = read_argument(argument, parts, dict.fromkeys(parts, ["both", *SIZES]))
    sizes = SIZES if made.choice == "both" else [made.choice]
    chosen = IMAGES if made.part == "all" else [int(made.part)]
    found: list[Override] = []
    for images in chosen:
        tokens = [max(made.factor * each, 1) * images * TOKENS_PER_IMAGE for each in EPOCHS]
        data: Override = {
            "name": f"u{images}",
            "study": f"repeats_{images}{made.suffix}",
            "data.train_examples": images,
        }
        runs = cooldowns(CONFIG, sizes, tokens, fraction=FRACTION)
        found += product([data | common()], runs)
    return found


def common() -> Override:
    """As in 06_surface."""
    return {
        "data.name": "eurosat",
        "tokenizer.channels": "rgb",
        "tokenizer.resolution": 8,
        "tokenizer.levels": 64,
        "train.batch_size": 8,
        "train.evaluation_batch_size": 32,
        "train.log_every_steps": 200,
        "optimizer.learning_rate": 0.006,
        "model.init_std": 0.3,
        "execution.unroll_layers": True,
        "execution.devices": 1,
        "execution.steps_per_dispatch": 10,
        "execution.checkpoint_every_steps": 2000,
    }
