"""Simulated learning curves of a known law with schedules, by branching cooldowns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.learning_curves import Curves
from analysis.rates import Schedule

TOKENS = 1536.0


def areas(rates: np.ndarray, momentum: float) -> tuple[float, float]:
    """S1 and S2 of Tissue et al. 2024 by the loops of their definition, rates from the peak on."""
    s1 = s2 = 0.0
    for i in range(len(rates)):
        s1 += rates[i]
        for k in range(1, i + 1):
            s2 += (rates[k - 1] - rates[k]) * momentum ** (i - k)
    return s1, s2


@dataclass(frozen=True)
class CurveTruth:
    """L = E + A N^-a + B S^-b + C R with a memory of H updates."""

    E: float = 1.05
    A: float = 5.0
    a: float = 0.36
    B: float = 160.0
    b: float = 0.44
    C: float = 0.1
    H: float = 10.0

    def loss(self, n: float, schedule: Schedule, steps: np.ndarray) -> np.ndarray:
        """By Tissue's own form, L0 + A N^-a + B' S1^-b - C' S2, from updates written out."""
        rates = schedule.rates().copy()
        rates[: schedule.warmup_steps] = 1.0
        momentum, mean, means = 1 - 1 / self.H, 1.0, []
        for rate in rates:
            mean = momentum * mean + (1 - momentum) * rate
            means.append(mean)
        area = np.cumsum(rates) * schedule.tokens_per_step
        at = np.asarray(steps) - 1
        powers = self.A * n**-self.a + self.B * area[at] ** -self.b
        return self.E + powers + self.C * np.array(means)[at]


def branches(
    truth: CurveTruth,
    *,
    sizes: int = 8,
    lengths: tuple[int, ...] = (160, 320, 640, 1300, 2600),
    every: int = 250,
    noise: float = 0.0,
    of_path: float = 0.0,
    seed: int = 0,
) -> Curves:
    """A trunk and its cooldowns of each size; log errors of a path, of a run's end, of a point."""
    rng, rows, schedules = np.random.default_rng(seed), [], {}
    for size, n in enumerate(np.geomspace(7e3, 3.3e5, sizes).round()):
        path = of_path * rng.standard_normal()
        trunk: dict[int, float] = {}
        made = [("constant", round(0.8 * lengths[-1])), *(("wsd", length) for length in lengths)]
        for name, length in made:
            schedule = Schedule(name, length, TOKENS, 20, 0.2, 0.0)
            own = np.unique([*range(every, length, every), length])
            loss = truth.loss(float(n), schedule, own)
            error = path + noise * rng.standard_normal(len(own))
            identity = f"s{size}-{name}-{length}"
            schedules[identity] = schedule
            for step, value, log_error in zip(own, loss, error, strict=True):
                measured = float(value * np.exp(log_error))
                if step <= length - schedule.cooldown_steps:
                    measured = trunk.setdefault(int(step), measured)
                rows.append(
                    {
                        "identity": identity, "name": identity, "step": int(step), "N": float(n),
                        "tokens": step * TOKENS, "loss_nats_per_token": measured,
                        "path": f"{n:.0f} seed 0", "is_end": bool(step == length),
                    }
                )  # fmt: skip
    return Curves(pd.DataFrame(rows), schedules, "blocks", "simulated")
