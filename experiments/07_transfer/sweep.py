"""Does a learning rate transfer over widths, and over depths? Two rules for each, seven rates.

    python -m lab.launch.plan experiments/07_transfer/sweep.py
    python -m lab.launch.sweep experiments/07_transfer/sweep.py --workers 6 --pack 21     # a GPU
    python -m lab.launch.sweep experiments/07_transfer/sweep.py:depth --workers 6 --pack 21
    python -m lab.launch.sweep experiments/07_transfer/sweep.py:width,0.1,128 --workers 2  # cores

The argument names what changes, width (default) or depth; a factor on the tokens may follow (a
rehearsal), and then the largest width or depth.
"""

import dataclasses

from lab.core.designs import seeds
from lab.core.errors import LabError
from lab.core.sweep import Override, axis, product

CONFIG = "configs/elm.py:s6"
TOKENS = 2_500_000
BATCH = 16
TOKENS_PER_IMAGE = 192
SEEDS = 3
WIDEST_WITHOUT = 1024  # features, of the runs without a rule
ONE_SEED_FROM = 512  # features: the widest runs are dear, and what seeds do is known by then
WIDTHS = [32, 64, 128, 256, 512, 1024, 2048]
DEPTHS = [2, 4, 8, 16, 32, 64]
WIDTH_OF_DEPTHS = 64
RATES = [0.048 / 2**k for k in range(7)]  # 0.048 to 0.00075
LOWER = [0.048 / 2**k for k in range(7, 12)]  # where no rule says how the best rate falls
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
        return f"transfer_{self.axis}{'' if self.scale == 1 else f'_x{self.scale:g}'}"

    @property
    def steps(self) -> int:
        """Of a run; no image comes twice."""
        return round(TOKENS * self.scale / (TOKENS_PER_IMAGE * BATCH))


def plan(argument: str) -> Plan:
    """The plan of "width", "depth,0.1" or "width,0.1,128"."""
    known = {"width": WIDTHS, "depth": DEPTHS}
    name, scale, most = (
        [*argument.split(","), "1", ""][:3] if "," in argument else (argument, "1", "")
    )
    sizes = known.get(name, [])
    try:
        factor, largest = float(scale), int(most or max(sizes, default=0))
    except ValueError:
        factor, largest = 0.0, 0
    if argument.count(",") > 2 or largest not in sizes or not 0 < factor <= 100:
        raise LabError(
            f"sweep.py:{argument}: allowed are width and depth, then a factor in (0, 100], then "
            f"the largest of {WIDTHS} or {DEPTHS}"
        )
    return Plan(name, factor, largest)


def sweep(argument: str = "width") -> list[Override]:
    """Both rules, every size, every rate, and seeds of the small ones; the longest first."""
    made = plan(argument)
    common: Override = {
        "config": CONFIG,
        "study": made.study,
        "data.train_examples": made.steps * BATCH,
        "train.batch_size": BATCH,
        "train.evaluation_batch_size": 256,
        "train.log_every_steps": 50,
        "train.duration": f"{made.steps} steps",
        "optimizer.warmup": f"{round(0.05 * made.steps)} steps",
        "execution.devices": 1,
        "execution.remat": "full",  # many models at once, and deep ones
        "execution.steps_per_dispatch": 10,
        "execution.checkpoint_every_steps": 100_000,
    }
    runs = _widths(made.most) if made.axis == "width" else _depths(made.most)
    return product(runs, [common])


def _widths(most: int) -> list[Override]:
    found: list[Override] = []
    for width in reversed([each for each in WIDTHS if each <= most]):
        size = {**shape(width), "model.depth": 2}
        repeats = seeds(SEEDS if width < ONE_SEED_FROM else 1)
        found += product([{**MUP, **size, "name": f"mup-w{width}"}], _rates(RATES), repeats)
        if width <= WIDEST_WITHOUT:
            named = [{**NONE, **size, "name": f"none-w{width}"}]
            found += product(named, _rates(RATES + LOWER), repeats)
    return found


def _depths(most: int) -> list[Override]:
    """Two blocks are the same under both rules, and are run once."""
    found: list[Override] = []
    for depth in reversed([each for each in DEPTHS if each <= most]):
        size = {**shape(WIDTH_OF_DEPTHS), "model.depth": depth}
        rules = {"mup": MUP, "completep": DEEP} if depth > 2 else {"mup": MUP}
        for name, rule in rules.items():
            named = [{**rule, **size, "name": f"{name}-d{depth}"}]
            found += product(named, _rates(RATES), seeds(SEEDS))
    return found


def shape(width: int) -> Override:
    """Heads of 16 features, and two thirds of four widths, rounded to 8, inside SwiGLU."""
    hidden = 8 * round(width * 8 / 3 / 8)
    return {"model.width": width, "model.heads": width // 16, "model.mlp_hidden": hidden}


def _rates(rates: list[float]) -> list[Override]:
    return [
        {"name": f"lr{rate:.3g}", **each}
        for rate, each in zip(rates, axis("optimizer.learning_rate", rates), strict=True)
    ]
