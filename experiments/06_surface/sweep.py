"""L(N, D) by branching cooldowns: one constant-rate run a size, five cooldowns from it.

    python -m lab.launch.plan experiments/06_surface/sweep.py --workers 2 --budget 1h
    python -m lab.launch.sweep experiments/06_surface/sweep.py --workers 2
    python -m lab.launch.sweep experiments/06_surface/sweep.py:dead_leaves,0.1 --workers 2

The argument names the data, dead_leaves (default) or eurosat; a factor on all tokens may follow (a
rehearsal of seconds), and then another design: `alone` are four of the runs trained without a
trunk, for comparison, `isoflop` three budgets over the sizes; `seeds` and `isoflop_seeds` are the
cooldowns and the budgets with two seeds more.
"""

import dataclasses

from lab.core.designs import cooldowns, grid, isoflop, seeds
from lab.core.sweep import Override, product
from lab.core.sweep_argument import read_argument, suffix_of

CONFIG = "configs/elm.py"
SIZES = ["s8", "s7", "s6", "s5", "s4", "s3", "s2", "s1"]  # the longest first
ALONE = ["s3", "s5"]
DESIGNS = ["cooldowns", "alone", "isoflop", "seeds", "isoflop_seeds"]
MORE_SEEDS_OF = {"seeds": "cooldowns", "isoflop_seeds": "isoflop"}  # which has the first of them
SEEDS = 3
BUDGETS_FLOPS = {
    3e12: ["s8", "s7", "s6", "s5", "s4", "s3"],
    1e12: ["s7", "s6", "s5", "s4", "s3", "s2"],
    3e11: ["s5", "s4", "s3", "s2", "s1"],
}
MILLIONS = {"dead_leaves": [0.5, 1, 2, 4, 8], "eurosat": [0.25, 0.5, 1, 2, 4]}  # of tokens
LEVELS = {"dead_leaves": 16, "eurosat": 64}
EXAMPLES = {"dead_leaves": 41_667, "eurosat": 0}  # one epoch of the longest run; 0: all there are
FRACTION = 0.2


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which data, the factor on all tokens, and which design."""

    data: str
    scale: float
    design: str

    @property
    def study(self) -> str:
        """The folder of the study; seeds lie beside the first."""
        design = "" if self.runs == DESIGNS[0] else f"_{self.runs}"
        return f"surface_{self.data}{suffix_of(self.scale)}{design}"

    @property
    def runs(self) -> str:
        """The design without its seeds."""
        return MORE_SEEDS_OF.get(self.design, self.design)

    @property
    def tokens(self) -> list[float]:
        """The lengths of runs."""
        return [millions * 1e6 * self.scale for millions in MILLIONS[self.data]]


def plan(argument: str) -> Plan:
    """The plan of "data", "data,scale" or "data,scale,design"."""
    made = read_argument(argument, list(LEVELS), dict.fromkeys(LEVELS, DESIGNS))
    return Plan(made.part, made.factor, made.choice)


def sweep(argument: str = "dead_leaves") -> list[Override]:
    """Trunks and branches of each size; or another design."""
    made = plan(argument)
    longer = 2 if made.runs == "isoflop" else 1  # its longest run
    examples = round(EXAMPLES[made.data] * made.scale * longer)
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
    parts = [[common]] if made.runs == made.design else [seeds(SEEDS)[1:], [common]]
    if made.runs == "cooldowns":
        return product(cooldowns(CONFIG, SIZES, made.tokens, fraction=FRACTION), *parts)
    common |= {"optimizer.schedule": "wsd", "optimizer.cooldown_fraction": FRACTION}
    if made.runs == "alone":
        return product(grid(CONFIG, ALONE, made.tokens[1:3]), *parts)
    budgets = {budget * made.scale: sizes for budget, sizes in BUDGETS_FLOPS.items()}
    return product(isoflop(CONFIG, budgets, list(budgets)), *parts)
