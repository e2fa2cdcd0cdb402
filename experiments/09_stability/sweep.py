"""What makes a loss spike: rate, depth, warm-up, and two remedies, in all combinations.

    python -m lab.launch.sweep experiments/09_stability/sweep.py --workers 2
    python -m lab.launch.sweep experiments/09_stability/sweep.py:all,0.1 --workers 2

The argument is "all"; a factor on the number of updates may follow (the last line: a rehearsal).
"""

from lab.core.sweep import Override, axis, product
from lab.core.sweep_argument import read_argument

STEPS, BATCH, WIDTH = 400, 8, 48
RATES = [0.096, 0.024, 0.006]  # the last is the best of experiments/07_transfer
DEPTHS = [8, 2]
WARMUPS = [4, 40]  # updates
Z_LOSS = 1e-3


def sweep(argument: str = "all") -> list[Override]:
    """48 runs, the deepest first."""
    made = read_argument(argument, ["all"])
    steps = max(round(STEPS * made.factor), 10)
    common: Override = {
        "config": "configs/elm.py:s4",
        "study": f"stability{made.suffix}",
        "data.name": "dead_leaves",
        "data.train_examples": STEPS * BATCH,
        "data.validation_examples": 64,
        "tokenizer.channels": "rgb",
        "tokenizer.resolution": 8,
        "tokenizer.levels": 16,
        "train.batch_size": BATCH,
        "train.duration": f"{steps} steps",
        "train.log_every_steps": 1,
        "train.evaluate_every_steps": max(steps // 20, 1),
        "train.evaluation_batch_size": 64,
        "train.explode_factor": 10.0,
        "optimizer.schedule": "constant",
        "optimizer.clip_norm": 0.0,
        "execution.devices": 1,
        "execution.unroll_layers": False,
        "execution.attention_spectra": True,
        "execution.checkpoint_every_steps": 1000,
    }
    return product(
        _named("d", axis("model.depth", DEPTHS)),
        _named("lr", axis("optimizer.learning_rate", RATES)),
        _named("w", axis("optimizer.warmup", [f"{n} steps" for n in WARMUPS])),
        _named("qk", axis("model.qk_norm", [False, True])),
        _named("z", axis("model.z_loss", [0.0, Z_LOSS])),
        [common],
    )


def _named(letter: str, each: list[Override]) -> list[Override]:
    """The values of an axis, as parts of a run's name: "d8", "qkTrue" -> "qk1"."""
    found = []
    for override in each:
        (value,) = override.values()
        word = int(value) if isinstance(value, bool) else str(value).removesuffix(" steps")
        found.append({**override, "name": f"{letter}{word}"})
    return found
