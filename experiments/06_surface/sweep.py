"""L(N, D) by branching cooldowns: one constant-rate run a size, five cooldowns from it.

    python -m lab.launch.sweep experiments/06_surface/sweep.py --workers 2
    python -m lab.launch.sweep experiments/06_surface/sweep.py:dead_leaves,0.1 --workers 2

The argument names the data, dead_leaves (default) or eurosat; a factor on all tokens may follow (a
rehearsal of seconds). `:dead_leaves,1,alone` are four of the runs trained without a trunk, for
comparison.
"""

import dataclasses

from lab.core.designs import cooldowns, grid
from lab.core.errors import LabError
from lab.core.sweep import Override, product

CONFIG = "configs/elm.py"
SIZES = ["s8", "s7", "s6", "s5", "s4", "s3", "s2", "s1"]  # the longest first
ALONE = ["s3", "s5"]
MILLIONS = {"dead_leaves": [0.5, 1, 2, 4, 8], "eurosat": [0.25, 0.5, 1, 2, 4]}  # of tokens
LEVELS = {"dead_leaves": 16, "eurosat": 64}
EXAMPLES = {"dead_leaves": 41_667, "eurosat": 0}  # one epoch of the longest run; 0: all there are
FRACTION = 0.2


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which data, the factor on all tokens, and whether runs are trained alone."""

    data: str
    scale: float
    alone: bool

    @property
    def study(self) -> str:
        """The folder of the study."""
        more = ("" if self.scale == 1 else f"_x{self.scale:g}") + ("_alone" if self.alone else "")
        return f"surface_{self.data}{more}"

    @property
    def tokens(self) -> list[float]:
        """The lengths of runs."""
        return [millions * 1e6 * self.scale for millions in MILLIONS[self.data]]


def plan(argument: str) -> Plan:
    """The plan of "data", "data,scale" or "data,scale,alone"."""
    parts = argument.split(",")
    data, scale, alone = (parts + ["1", ""][len(parts) - 1 :])[:3]
    try:
        factor = float(scale)
    except ValueError:
        factor = 0.0
    if data not in LEVELS or not 0 < factor <= 100 or alone not in ("", "alone") or len(parts) > 3:
        raise LabError(
            f"sweep.py:{argument}: allowed are {', '.join(sorted(LEVELS))}, then a factor in "
            "(0, 100], then alone"
        )
    return Plan(data, factor, bool(alone))


def sweep(argument: str = "dead_leaves") -> list[Override]:
    """Trunks and branches of each size; or some of the branches alone."""
    made = plan(argument)
    examples = round(EXAMPLES[made.data] * made.scale)
    common: Override = {
        "study": made.study,
        "data.name": made.data,
        "data.train_examples": max(examples, 64) if made.data == "dead_leaves" else 0,
        "tokenizer.channels": "rgb",
        "tokenizer.resolution": 8,
        "tokenizer.levels": LEVELS[made.data],
        "train.batch_size": 8,
        "train.evaluation_batch_size": 32,
        "train.log_every_steps": 50,
        "train.evaluate_every_steps": 500,
        "optimizer.learning_rate": 0.006,  # experiments/00_learning_rate
        "model.init_std": 0.3,
        "execution.unroll_layers": True,
        "execution.devices": 1,
        "execution.steps_per_dispatch": 10,
        "execution.checkpoint_every_steps": 1000,
    }
    if not made.alone:
        return product(cooldowns(CONFIG, SIZES, made.tokens, fraction=FRACTION), [common])
    alone = [made.tokens[1], made.tokens[2]]
    schedule: Override = {
        "optimizer.schedule": "wsd",
        "optimizer.cooldown_fraction": FRACTION,
    }
    return product(grid(CONFIG, ALONE, alone), [{**common, **schedule}])
