"""The first ladder: seven sizes at one token budget, and four of them at less.

The lengths of a size are branches of one run at a constant rate: the same numbers as those of runs
alone, for three quarters of the updates (lab/core/branches.py).

    python -m lab.launch.sweep experiments/01_first_ladder/sweep.py --workers 2

The argument names the data: dead_leaves (default), fashion_mnist or eurosat; a factor on all token
budgets may follow ("dead_leaves,0.05": a rehearsal of seconds). The largest size is
the one that is forecast: `ladder.py` trains it after the forecast is frozen.
"""

import dataclasses

from lab.core.designs import cooldowns
from lab.core.sweep import Override, product
from lab.core.sweep_argument import read_argument, suffix_of

FIT_SIZES = ["s6", "s5", "s4", "s3", "s2", "s1"]  # the longest first, so that cores end together
BRANCHED = ["s5", "s4", "s3", "s2"]
COOLDOWN = 0.3  # of a run
FORECAST_SIZE = "s8"
FULL, HALF, QUARTER = 4_000_000, 2_000_000, 1_000_000  # tokens

CHANNELS = {"dead_leaves": "rgb", "eurosat": "rgb", "fashion_mnist": "grey"}
RESOLUTION = {"dead_leaves": 8, "eurosat": 8, "fashion_mnist": 14}  # 192, 192 and 196 tokens
LEVELS = {"dead_leaves": 16, "eurosat": 64, "fashion_mnist": 16}  # 16 saturate on EuroSAT


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which data, and the factor on all token budgets."""

    data: str
    scale: float

    @property
    def study(self) -> str:
        """The folder of the study."""
        return f"first_ladder_{self.data}{suffix_of(self.scale)}"

    def tokens(self, budget: int) -> int:
        """A budget of this plan."""
        return round(budget * self.scale)

    def name(self, size: str, budget: int) -> str:
        """A run's label."""
        return f"{size}-{self.tokens(budget) / 1e6:g}M"

    @property
    def forecast_run(self) -> str:
        """The label of the run that is forecast."""
        return self.name(FORECAST_SIZE, FULL)


def plan(argument: str) -> Plan:
    """The plan of "data" or "data,scale"."""
    made = read_argument(argument, list(CHANNELS))
    return Plan(made.part, made.factor)


def sweep(argument: str = "dead_leaves") -> list[Override]:
    """All runs; the forecast one last."""
    made = plan(argument)
    images = round(20_833 * made.scale)  # one epoch of FULL
    common: Override = {
        "study": made.study,
        "data.name": made.data,
        "data.train_examples": max(images, 64) if made.data == "dead_leaves" else 0,
        "tokenizer.channels": CHANNELS[made.data],
        "tokenizer.resolution": RESOLUTION[made.data],
        "tokenizer.levels": LEVELS[made.data],
        "train.batch_size": 8,
        "train.evaluation_batch_size": 32,
        "train.log_every_steps": 50,
        "optimizer.learning_rate": 0.006,  # experiments/00_learning_rate
        "model.init_std": 0.3,
        "execution.unroll_layers": True,
        "execution.devices": 1,
        "execution.checkpoint_every_steps": 500,
        "execution.steps_per_dispatch": 10,
    }

    def at_full(size: str) -> Override:
        return {
            "config": f"configs/elm.py:{size}",
            "name": made.name(size, FULL),
            "train.duration": f"{made.tokens(FULL)} tokens",
        }

    lengths = [made.tokens(budget) for budget in (FULL, HALF, QUARTER)]
    alone = [at_full(size) for size in FIT_SIZES if size not in BRANCHED]
    branched = cooldowns("configs/elm.py", BRANCHED, lengths, fraction=COOLDOWN)
    small = [
        run
        for size in FIT_SIZES
        for run in [*alone, *branched]
        if run["config"].endswith(f":{size}")
    ]
    return product([*small, at_full(FORECAST_SIZE)], [common])
