"""Does a learning rate transfer over widths, and over depths? Two rules for each.

    python -m lab.launch.plan experiments/07_transfer/sweep.py --workers 2 --calibrate
    python -m lab.launch.sweep experiments/07_transfer/sweep.py --workers 2
    python -m lab.launch.sweep experiments/07_transfer/sweep.py:depth --workers 2
    python -m lab.launch.sweep experiments/07_transfer/sweep.py:width,0.2,64 --workers 2

The argument names what changes, width (default) or depth; a factor on the tokens may follow (the
last line: a rehearsal), and then the largest width or depth.
"""

import dataclasses

from lab.core.designs import seeds
from lab.core.sweep import Override, axis, product
from lab.core.sweep_argument import read_argument, suffix_of

CONFIG = "configs/elm.py:s6"
TOKENS = 500_000
BATCH = 8
TOKENS_PER_IMAGE = 192
WARMUP = 0.05  # of the updates
SEEDS, ONE_SEED_FROM = 2, 256  # features: the widest runs are dear
RATES = [0.048 / 2**k for k in range(12)]
WITH_RULE = slice(1, 6)  # of the rates: 0.024 to 0.0015
# Without a rule the best rate falls by a factor 4 with the first doublings
# (experiments/00_learning_rate), then by 2 as theory says, or faster: the grid moves along.
WITHOUT = {32: 0, 64: 1, 128: 3, 256: 4, 512: 5}  # the first of six rates
DEPTHS = [2, 4, 8, 16, 32]
WIDTH_OF_DEPTHS = 64
MUP: Override = {"optimizer.width_rule": "mup", "model.init": "mup", "model.init_std": 0.3}
NONE: Override = {"optimizer.width_rule": "none", "model.init": "normal", "model.init_std": 0.02}
DEEP: Override = {**MUP, "model.init": "completep", "optimizer.depth_rule": "completep"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What changes, the factor on the tokens, and the largest size."""

    axis: str
    scale: float
    most: int

    @property
    def study(self) -> str:
        """The folder of the study."""
        return f"transfer_{self.axis}{suffix_of(self.scale)}"

    @property
    def steps(self) -> int:
        """Of a run; no image comes twice."""
        return round(TOKENS * self.scale / (TOKENS_PER_IMAGE * BATCH))


def plan(argument: str) -> Plan:
    """The plan of "width", "depth,0.1" or "width,0.1,128"."""
    sizes = {"width": sorted(WITHOUT, reverse=True), "depth": DEPTHS[::-1]}
    made = read_argument(argument, list(sizes), {k: [*map(str, v)] for k, v in sizes.items()})
    return Plan(made.part, made.factor, int(made.choice))


def sweep(argument: str = "width") -> list[Override]:
    """Both rules, every size, its rates, and seeds of the small ones; the longest first."""
    made = plan(argument)
    common: Override = {
        "config": CONFIG,
        "study": made.study,
        "data.train_examples": made.steps * BATCH,
        "train.batch_size": BATCH,
        "train.evaluation_batch_size": 32,
        "train.log_every_steps": 25,
        "train.duration": f"{made.steps} steps",
        "optimizer.warmup": f"{round(WARMUP * made.steps)} steps",
        "execution.devices": 1,
        "execution.steps_per_dispatch": 5,
        "execution.unroll_layers": made.axis == "width",
        "execution.checkpoint_every_steps": 1000,
    }
    runs = _widths(made.most) if made.axis == "width" else _depths(made.most)
    return product(runs, [common])


def _widths(most: int) -> list[Override]:
    found: list[Override] = []
    for width, first in reversed([each for each in WITHOUT.items() if each[0] <= most]):
        size = {**shape(width), "model.depth": 2}
        repeats = seeds(SEEDS if width < ONE_SEED_FROM else 1)
        with_rule, without = RATES[WITH_RULE], RATES[first : first + 6]
        found += product([{**MUP, **size, "name": f"mup-w{width}"}], _rates(with_rule), repeats)
        found += product([{**NONE, **size, "name": f"none-w{width}"}], _rates(without), repeats)
    return found


def _depths(most: int) -> list[Override]:
    """Two blocks are the same under both rules, and are run once."""
    found: list[Override] = []
    for depth in reversed([each for each in DEPTHS if each <= most]):
        size = {**shape(WIDTH_OF_DEPTHS), "model.depth": depth}
        rules = {"mup": MUP, "completep": DEEP} if depth > 2 else {"mup": MUP}
        for name, rule in rules.items():
            named = [{**rule, **size, "name": f"{name}-d{depth}"}]
            found += product(named, _rates(RATES[WITH_RULE]))
    return found


def shape(width: int) -> Override:
    """Heads of 16 features, and two thirds of four widths, rounded to 8, inside SwiGLU."""
    hidden = 8 * round(width / 3)
    return {"model.width": width, "model.heads": width // 16, "model.mlp_hidden": hidden}


def _rates(rates: list[float]) -> list[Override]:
    return [
        {"name": f"lr{rate:.3g}", **each}
        for rate, each in zip(rates, axis("optimizer.learning_rate", rates), strict=True)
    ]
