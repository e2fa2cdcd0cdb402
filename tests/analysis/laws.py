"""Synthetic tables of a known law L = E + A N^-a + B D^-b, and its exact optimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import from_frame
from analysis.table import Table

COLUMNS = {name: (name, "count") for name in ("N", "D", "C")} | {"loss": ("loss", "nats/token")}


@dataclass(frozen=True)
class Truth:
    """The Chinchilla law as refitted by Besiroglu et al. 2024."""

    E: float = 1.8172
    A: float = 477.8
    B: float = 2143.4
    a: float = 0.3473
    b: float = 0.3672

    def loss(self, n, d):
        return self.E + self.A * n**-self.a + self.B * d**-self.b

    @property
    def exponent(self) -> float:
        """Of N*(C); equation 4 of Hoffmann et al. 2022."""
        return self.b / (self.a + self.b)

    def best_n(self, c):
        ratio = self.a * self.A / (self.b * self.B)
        return ratio ** (1 / (self.a + self.b)) * (c / 6) ** self.exponent


def isoflop_table(
    truth: Truth,
    budgets: Sequence[float],
    *,
    sizes: int = 7,
    step: float = 2.0,
    noise: float = 0.0,
    seed: int = 0,
    drift: float = 0.0,
) -> Table:
    """Bowls of `sizes` around the optimum; their middle drifts by C^drift away from it."""
    rng, rows = np.random.default_rng(seed), []
    middle = float(np.exp(np.mean(np.log(budgets))))
    for c in budgets:
        center = truth.best_n(c) * (c / middle) ** drift
        n = center * step ** (np.arange(sizes) - (sizes - 1) / 2)
        d = c / 6 / n
        loss = truth.loss(n, d) * np.exp(noise * rng.standard_normal(sizes))
        rows.append(pd.DataFrame({"N": n, "D": d, "C": c, "loss": loss}))
    return from_frame(pd.concat(rows), columns=COLUMNS)


def curves_table(
    truth: Truth,
    *,
    sizes: int = 8,
    noise: float = 0.0,
    seed: int = 0,
    first: float = 1e18,
    last: float = 1e21,
    cost: float = 6.0,
) -> Table:
    """Training curves of sizes from N*(first) to N*(last), 30 evaluations each; noise by run."""
    rng, runs, rows = np.random.default_rng(seed), [], []
    for index, c in enumerate(np.geomspace(first, last, sizes)):
        n = truth.best_n(c)
        tokens = np.geomspace(c / 30, c * 30, 30) / 6 / n
        loss = truth.loss(n, tokens) * np.exp(noise * rng.standard_normal())
        name = {"identity": f"run{index}", "name": f"run{index}"}
        rows += [
            {**name, "tokens": d, "flops": cost * n * d, "loss_nats_per_token": value}
            for d, value in zip(tokens, loss, strict=True)
        ]
        runs.append(
            {
                **name, "N": n, "D_tokens": tokens[-1], "C_flops": cost * n * tokens[-1],
                "loss_nats_per_token": loss[-1],
            }
        )  # fmt: skip
    return Table(pd.DataFrame(runs), pd.DataFrame(rows), "blocks", "synthetic")


def ends_table(
    truth: Truth,
    *,
    sizes: int = 8,
    lengths: int = 5,
    noise: float = 0.0,
    seed: int = 0,
    schedule: str | None = "wsd",
    before: float = 0.05,
) -> Table:
    """Runs of each size at several lengths around its optimum, as branching cooldowns give them.

    Evaluations at a half and at .8 of a run are `before` (log units) above a run of that length;
    noise by run. Without a `schedule` the table has no such column.
    """
    rng, runs, rows = np.random.default_rng(seed), [], []
    for size, c in enumerate(np.geomspace(1e18, 1e21, sizes)):
        n = truth.best_n(c)
        for length, d in enumerate(np.geomspace(c / 12, c * 12, lengths) / 6 / n):
            own = np.exp(noise * rng.standard_normal())
            name = {"identity": f"run{size}-{length}", "name": f"s{size}-{length}"}
            for share, above in ((0.5, before), (0.8, before), (1.0, 0.0)):
                loss = float(truth.loss(n, share * d) * np.exp(above) * own)
                tokens = {"tokens": share * d, "flops": 6 * n * share * d}
                rows.append({**name, **tokens, "loss_nats_per_token": loss})
            end = {"N": n, "D_tokens": d, "C_flops": 6 * n * d, "loss_nats_per_token": loss}
            runs.append({**name, **end} | ({} if schedule is None else {"schedule": schedule}))
    return Table(pd.DataFrame(runs), pd.DataFrame(rows), "blocks", "branches")
