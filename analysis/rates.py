"""The learning rate of every update of a run, and what a law of whole curves sees of it.

Tissue et al. 2024 (arXiv:2408.11029) take two numbers from the rates r_1 ... r_s of s updates: the
area S1 = r_1 + ... + r_s, and the annealing area S2 = m_1 + ... + m_s with the momentum m_i =
lambda m_(i-1) + r_(i-1) - r_i. Here both are free of the peak rate r_0 and have units:

    S = (tokens of an update) S1 / r_0             tokens, each as much as its rate is of the peak
    R = 1 - (1 - lambda) S2 / r_0                  1 at a constant rate, 0 where it is annealed

R is the moving average R_i = lambda R_(i-1) + (1 - lambda) r_i / r_0 that begins at 1; its memory
is 1 / (1 - lambda) updates. As in the paper, the updates of a warm-up count at the peak rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.errors import AnalysisError
from analysis.records import Run, number

NAMES = ("constant", "wsd", "cosine")
SMALLEST = 1e-9  # R of a rate that has been zero for long: a law holds logs
OF_SCHEDULE = tuple(
    f"optimizer.{name}" for name in ("schedule", "warmup", "cooldown_fraction", "final_fraction")
)


@dataclass(frozen=True)
class Schedule:
    """The rates of one run over its peak rate, as lab.train.optimizer has them.

    Linear warm-up, then constant; "wsd" falls linearly over the last `cooldown_fraction` of all
    steps, "cosine" over all that follow the warm-up, both to `final_fraction` of the peak.
    """

    name: str
    steps: int
    tokens_per_step: float
    warmup_steps: int = 0
    cooldown_fraction: float = 0.0
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise AnalysisError(f"schedule {self.name!r}: allowed are {', '.join(NAMES)}")
        if self.steps < 1 or not self.tokens_per_step > 0:
            raise AnalysisError(
                f"schedule of {self.steps} steps of {self.tokens_per_step:g} tokens: both are "
                "above zero"
            )
        for what in ("cooldown_fraction", "final_fraction"):
            if not 0 <= getattr(self, what) < 1:
                raise AnalysisError(
                    f"{what} = {getattr(self, what):g}: allowed is from 0 to below 1"
                )
        if not 0 <= self.warmup_steps <= self.steps - self.cooldown_steps:
            raise AnalysisError(
                f"{self.steps} steps: too few for {self.warmup_steps} of warm-up and "
                f"{self.cooldown_steps} of cooldown"
            )

    @property
    def cooldown_steps(self) -> int:
        """Updates of the fall at the end of "wsd"; 0 under another schedule."""
        return round(self.cooldown_fraction * self.steps) if self.name == "wsd" else 0

    def rates(self) -> np.ndarray:
        """Each update's rate over the peak, (steps,)."""
        step = np.arange(self.steps)
        warm = (step + 1) / max(1, self.warmup_steps)
        return np.where(step < self.warmup_steps, warm, self._after_warmup(step))

    def _after_warmup(self, step: np.ndarray) -> np.ndarray:
        floor = self.final_fraction
        if self.name == "constant":
            return np.ones(len(step))
        if self.name == "cosine":
            done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
            cosine = 0.5 * (1 + np.cos(np.pi * np.maximum(done, 0.0)))
            return floor + (1 - floor) * cosine
        left = (self.steps - step) / max(1, self.cooldown_steps)
        return floor + (1 - floor) * np.minimum(1.0, left)

    def seen(self, steps: np.ndarray, memory_steps: float) -> tuple[np.ndarray, np.ndarray]:
        """S (tokens at the peak rate) and R (mean relative rate) after these updates, (n,) each."""
        from scipy.signal import lfilter

        steps = np.asarray(steps, dtype=int)
        if not ((steps >= 1) & (steps <= self.steps)).all():
            raise AnalysisError(
                f"steps {steps.min()} to {steps.max()}: allowed is 1 to {self.steps}"
            )
        if not memory_steps >= 1:
            raise AnalysisError(f"memory of {memory_steps:g} updates: allowed is 1 or more")
        rates = self._after_warmup(np.arange(self.steps))
        rates[: self.warmup_steps] = 1.0
        momentum = 1.0 - 1.0 / memory_steps
        mean, _ = lfilter([1.0 - momentum], [1.0, -momentum], rates, zi=[momentum])
        area = np.cumsum(rates) * self.tokens_per_step
        return area[steps - 1], np.maximum(mean[steps - 1], SMALLEST)


def schedule_of_run(run: Run) -> Schedule:
    """The schedule of a record by its config; an AnalysisError where the config does not say it."""
    made = run.recipe
    for name in OF_SCHEDULE:
        if name not in made:
            raise AnalysisError(f"{run.path}: no config.{name}; a law of curves needs the schedule")
    steps = int(number(run.header, "steps", run.path))
    tokens = number(run.header, "tokens_per_step", run.path)
    return Schedule(
        made["optimizer.schedule"],
        steps,
        tokens,
        _warmup_steps(run, made, steps, tokens),
        float(made["optimizer.cooldown_fraction"]),
        float(made["optimizer.final_fraction"]),
    )


def _warmup_steps(run: Run, made: Mapping[str, str], steps: int, tokens: float) -> int:
    """The warm-up in updates, from a duration as configs state it ("20 steps", "1e5 tokens")."""
    text = made["optimizer.warmup"]
    amount, _, unit = text.partition(" ")
    images = tokens / number(run.header, "tokenizer.tokens_per_image", run.path)
    per_step = {"steps": lambda: 1.0, "tokens": lambda: tokens, "examples": lambda: images}
    per_step["epochs"] = lambda: images / number(run.header, "data.train_examples", run.path)
    per_step["flops"] = lambda: number(run.final, "flops", run.path) / steps
    blocks = "params.blocks"
    per_step["tokens_per_parameter"] = lambda: tokens / number(run.header, blocks, run.path)
    try:
        given = float(amount)
        return max(1, round(given / per_step[unit]())) if given > 0 else 0
    except (ValueError, KeyError) as error:
        allowed = ", ".join(per_step)
        raise AnalysisError(
            f"{run.path}: optimizer.warmup {text!r}: allowed is an amount and one of {allowed}"
        ) from error
