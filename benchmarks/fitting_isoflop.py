"""Porian et al. 2024 (arXiv:2406.19146): their ten exponents of N*(C) by the isoFLOP road."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.rows import Row

if TYPE_CHECKING:
    import pandas as pd

    from analysis.frontier import Value

SETTING = ["dataset", "hparams", "warmup", "decay", "param_count"]
TEN = ("summary_df", "summary_df_owt2")
CLOSE = 0.015
LEAST_INSIDE = 9


@dataclass(frozen=True)
class Exponent:
    """One setting: the published exponent and ours by each interpolant, with intervals."""

    setting: str
    published: float
    found: dict[str, Value | str]

    def difference(self, how: str = "akima") -> float:
        """Ours less the published; infinite where the road was refused."""
        value = self.found[how]
        return float("inf") if isinstance(value, str) else value.value - self.published

    def inside(self, how: str = "akima") -> bool:
        value = self.found[how]
        return not isinstance(value, str) and value.low <= self.published <= value.high


def _exponent(setting: tuple[str, ...], rows: pd.DataFrame, level: float) -> Exponent:
    from analysis.isoflop import isoflop
    from analysis.table import from_frame

    columns = {
        "N": ("N", "count"),
        "D": ("D", "count"),
        "C": ("C", "count"),
        "loss": ("loss", "nats/token"),
    }
    made = isoflop(from_frame(rows, columns=columns, source=" ".join(setting)), level=level)
    published = float(rows["published_n_exponent"].iloc[0])
    return Exponent(" ".join(setting), published, made.compared)


def exponents(
    folder: Path, *, sources: tuple[str, ...] = TEN, level: float = 0.95
) -> tuple[Exponent, ...]:
    """Every setting of those sources in porian2024_isoflop.csv."""
    import pandas as pd

    frame = pd.read_csv(Path(folder) / "porian2024_isoflop.csv")
    chosen = frame[frame["src"].isin(sources)]
    groups = chosen.groupby(SETTING)
    return tuple(_exponent(tuple(map(str, key)), rows, level) for key, rows in groups)  # pyrefly: ignore


def benchmark_rows(folder: Path) -> list[Row]:
    """How far the ten exponents are from the published, and how many intervals hold them."""
    found = exponents(folder)
    worst = max(abs(exponent.difference()) for exponent in found)
    inside = sum(exponent.inside() for exponent in found)
    parabola = max(abs(exponent.difference("parabola")) for exponent in found)
    return [
        Row(
            f"Porian's {len(found)} exponents, worst difference (parabola: {parabola:.4f})",
            f"{worst:.4f}",
            f"at most {CLOSE}",
            worst <= CLOSE,
        ),
        Row(
            "Porian's exponents inside the 95 % interval",
            f"{inside} of {len(found)}",
            f"at least {LEAST_INSIDE}",
            inside >= LEAST_INSIDE,
        ),
    ]
