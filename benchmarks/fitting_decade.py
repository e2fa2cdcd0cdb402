"""Benchmark B: L(N, D) one decade of compute ahead, points and intervals, on seven public sets.

Train on runs with C at most a tenth of the largest (C as recorded, else 6 N D), judge on the rest.
The published scores of the peers were made with 6 N D in 64-bit integers, which wraps around on
the largest Gadre runs and puts them among the training runs: that split is measured for the
comparison, and the right one beside it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.rows import Row, row, within

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# The best single peer's mean over the seven sets (simple-scaling-laws: Skaling, Kaplan-joint).
PEER_RMSLE, PEER_WINKLER = 0.0234, 0.2501
LEVEL = 0.9


@dataclass(frozen=True)
class Scores:
    """Of one set: root mean square log error, coverage, Winkler score in log units, CPU s."""

    rmsle: float
    cover: float
    winkler: float
    cpu_s: float


def sets(folder: Path) -> dict[str, pd.DataFrame]:
    """The seven sets with columns N, D, loss and, where recorded, C."""
    import pandas as pd

    out = {
        f"gadre_{name}": pd.read_csv(folder / f"gadre_{name}_00000001.csv")
        for name in ("c4_original", "rpj", "rw_original")
    }
    repeated = pd.read_csv(folder / "datablations_contours.csv")
    out["datablations_1ep"] = repeated[repeated.epochs <= 1]
    bowls = pd.read_csv(folder / "porian2024_isoflop.csv")
    rw, owt2 = bowls.src == "summary_df", bowls.src == "summary_df_owt2"
    tuned = bowls.hparams == "tuned"
    out["porian_rw_tuned"], out["porian_owt2_tuned"] = bowls[rw & tuned], bowls[owt2 & tuned]
    out["porian_rw_cosine"] = bowls[rw & (bowls.hparams == "base") & (bowls.decay == "chinchilla")]
    return {name: frame.drop_duplicates(["N", "D", "loss"]) for name, frame in out.items()}


def _compute(frame: pd.DataFrame, *, wrapped: bool) -> np.ndarray:
    import numpy as np

    if "C" in frame:
        return frame.C.to_numpy(dtype=float)
    n, d = frame.N.to_numpy(), frame.D.to_numpy()
    if wrapped and np.issubdtype(n.dtype, np.integer) and np.issubdtype(d.dtype, np.integer):
        return (6 * n * d).astype(float)
    return 6.0 * n * d.astype(float)


def score(frame: pd.DataFrame, *, wrapped: bool) -> Scores:
    """Fit, forecast and judge one set."""
    import numpy as np

    from analysis.compare import compare
    from analysis.table import from_frame

    compute = _compute(frame, wrapped=wrapped)
    early = compute <= compute.max() / 10
    columns = {key: (key, "count") for key in ("N", "D")} | {"loss": ("loss", "nats/token")}
    start = time.process_time()
    found = compare(from_frame(frame[early], columns=columns), level=LEVEL)
    late = frame[~early]
    made = found.predict(N=late.N.to_numpy(float), D=late.D.to_numpy(float))
    spent = time.process_time() - start
    y, low, high = np.log(late.loss.to_numpy()), np.log(made.low), np.log(made.high)
    missed = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return Scores(
        float(np.sqrt(np.mean((np.log(made.loss) - y) ** 2))),
        float(np.mean(missed == 0)),
        float(np.mean(high - low + 2 / (1 - LEVEL) * missed)),
        spent,
    )


def decade(folder: Path) -> list[Row]:
    """Means over the seven sets, under both splits, and each set under the right one."""
    import numpy as np

    out, each = [], []
    for wrapped, word in ((True, "peers' split"), (False, "right split")):
        scores = {name: score(frame, wrapped=wrapped) for name, frame in sets(folder).items()}
        rmsle, cover, winkler, spent = (
            np.array([getattr(one, field) for one in scores.values()])
            for field in ("rmsle", "cover", "winkler", "cpu_s")
        )
        if wrapped:
            out += [
                row(f"B, {word}: mean RMSLE", rmsle.mean(), PEER_RMSLE),
                row(f"B, {word}: mean Winkler score", winkler.mean(), PEER_WINKLER),
            ]
        else:  # no peer was scored on it
            out += [
                Row(f"B, {word}: mean RMSLE", f"{rmsle.mean():.4f}", "", None),
                Row(f"B, {word}: mean Winkler score", f"{winkler.mean():.4f}", "", None),
            ]
        out += [
            within(f"B, {word}: coverage of 90 %", cover.mean(), cover.mean(), (0.85, 0.95)),
            row(f"B, {word}: CPU seconds of the slowest set", spent.max(), 2, form=".2f"),
        ]
        if not wrapped:
            each = [
                Row(
                    f"B, right split: {name}",
                    f"RMSLE {one.rmsle:.4f}, covers {one.cover:.2f}, Winkler {one.winkler:.3f}",
                    "",
                    None,
                )
                for name, one in scores.items()
            ]
    return out + each
