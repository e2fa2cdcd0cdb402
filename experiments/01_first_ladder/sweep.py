"""The first ladder: seven sizes at one token budget, and four of them at less.

    python -m lab.launch.sweep experiments/01_first_ladder/sweep.py --workers 2

The argument names the data: dead_leaves (default), fashion_mnist or eurosat. The largest size is
the one that is forecast: `ladder.py` trains it after the forecast is frozen.
"""

from lab.core.errors import LabError
from lab.core.sweep import Override, chain, product

FIT_SIZES = ["s6", "s5", "s4", "s3", "s2", "s1"]  # the longest first, so that cores end together
FORECAST_SIZE = "s8"
FULL, HALF, QUARTER = 4_000_000, 2_000_000, 1_000_000  # tokens

CHANNELS = {"dead_leaves": "rgb", "eurosat": "rgb", "fashion_mnist": "grey"}
RESOLUTION = {"dead_leaves": 8, "eurosat": 8, "fashion_mnist": 14}  # 192, 192 and 196 tokens
LEVELS = {"dead_leaves": 16, "eurosat": 64, "fashion_mnist": 16}  # 16 saturate on EuroSAT


def study(data: str) -> str:
    """The folder of the study."""
    return f"first_ladder_{data}"


def name(size: str, tokens: int) -> str:
    """A run's label."""
    return f"{size}-{tokens / 1e6:g}M"


def forecast_run() -> str:
    """The label of the run that is forecast."""
    return name(FORECAST_SIZE, FULL)


def sweep(data: str = "dead_leaves") -> list[Override]:
    """All runs; the forecast one last."""
    if data not in CHANNELS:
        raise LabError(f"sweep.py:{data}: allowed are {', '.join(sorted(CHANNELS))}")
    common: Override = {
        "study": study(data),
        "data.name": data,
        "data.train_examples": 20_833 if data == "dead_leaves" else 0,  # one epoch of FULL
        "tokenizer.channels": CHANNELS[data],
        "tokenizer.resolution": RESOLUTION[data],
        "tokenizer.levels": LEVELS[data],
        "train.batch_size": 8,
        "train.evaluation_batch_size": 32,
        "train.log_every_steps": 50,
        "optimizer.learning_rate": 0.006,
        "model.init_std": 0.3,
        "execution.unroll_layers": True,
        "execution.checkpoint_every_steps": 500,
    }

    def runs(sizes: list[str], tokens: int) -> list[Override]:
        return [
            {
                "config": f"configs/elm.py:{s}",
                "name": name(s, tokens),
                "train.duration": f"{tokens} tokens",
            }
            for s in sizes
        ]

    # The forecast run has both cores to itself: two devices, half of each batch on either.
    alone: Override = {"execution.devices": 2, "execution.layout": "ddp"}
    return chain(
        product(runs(FIT_SIZES, FULL), [common]),
        product(runs(["s5", "s4", "s3", "s2"], HALF), [common]),
        product(runs(["s5", "s4", "s3", "s2"], QUARTER), [common]),
        product(runs([FORECAST_SIZE], FULL), [common], [alone]),
    )
