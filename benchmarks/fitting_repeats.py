"""Repeated data: the runs of Muennighoff et al. 2023 (arXiv:2305.16264), U = D / epochs.

Three questions. What repeats are worth, from the runs before a model turns to learning its data by
heart (its loss is above one that the same N and U had reached earlier): does the interval of R*_D
hold the published 15.39? How well is the loss beyond ten epochs known from runs of at most ten
(nothing there shows the turn)? And from other runs of all lengths, by ten-fold cross-validation?
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.rows import Row, row

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from analysis.fit import Fit

PUBLISHED = 15.39
EPOCHS = 10.001
FOLDS = 10
DRAWS = 200
TURN = 1.005  # a loss this factor above an earlier one has turned
OTHER_TURNS = (1.0, 1.02, 1.05, 100.0)


def runs(folder: Path) -> pd.DataFrame:
    """N, D, U, epochs and loss."""
    import pandas as pd

    frame = pd.read_csv(folder / "datablations_contours.csv")
    return frame.assign(U=frame.D / frame.epochs)


def before_turn(frame: pd.DataFrame, *, turn: float = TURN) -> pd.DataFrame:
    """The runs whose loss is not above what the same N and U reached at fewer tokens."""
    import pandas as pd

    kept = []
    for _, group in frame.groupby([frame.N.round(-4), frame.U.round(-6)]):
        ordered = group.sort_values("D")
        kept.append(ordered[ordered.loss <= turn * ordered.loss.cummin()])
    return pd.concat(kept)


def _fit(form: str, frame: pd.DataFrame, **options) -> Fit:
    from analysis.fit import fit
    from analysis.table import from_frame

    columns = {key: (key, "count") for key in ("N", "D", "U")} | {"loss": ("loss", "nats/token")}
    return fit(form, from_frame(frame, columns=columns), **options)


def _errors(found: Fit, frame: pd.DataFrame) -> np.ndarray:
    import numpy as np

    return np.log(frame.loss.to_numpy()) - found.estimate.predict(
        frame[["N", "D", "U"]].to_numpy(float)
    )


def repeats(folder: Path) -> list[Row]:
    """R*_D with its interval, and errors beyond ten epochs in log units."""
    import numpy as np

    from analysis.uncertainty import Method

    frame = runs(folder)
    early, late = frame[frame.epochs <= EPOCHS], frame[frame.epochs > EPOCHS]
    turned = before_turn(frame)
    spread = [
        _fit("repeats", before_turn(frame, turn=turn), loss="squares", draws=1).params["RD"]
        for turn in OTHER_TURNS
    ]
    plain, robust = (
        _fit("repeats", turned, loss=loss, method=Method.PAIRS, draws=DRAWS)
        for loss in ("squares", "huber")
    )
    worth, other = plain.intervals["RD"], robust.intervals["RD"]
    ahead = float(np.sqrt(np.mean(_errors(_fit("repeats", early, loss="huber"), late) ** 2)))
    fold = np.random.default_rng(0).permutation(len(frame)) % FOLDS
    missed = []
    for one in range(FOLDS):
        found = _fit("repeats_excess", frame[fold != one], loss="squares", draws=1)
        out = frame[(fold == one) & (frame.epochs > EPOCHS)]
        missed.append(_errors(found, out))
    crossed = float(np.sqrt(np.mean(np.concatenate(missed) ** 2)))
    return [
        Row(
            "repeats: 90 % interval of R*_D holds 15.39",
            f"{plain.params['RD']:.1f} [ {worth.low:.1f}, {worth.high:.1f} ]",
            "15.39 inside",
            worth.low <= PUBLISHED <= worth.high,
        ),
        Row(
            "repeats: R*_D by how far a loss may rise: " + ", ".join(map(str, OTHER_TURNS)),
            ", ".join(f"{value:.1f}" for value in spread),
            "",
            None,
        ),
        Row(
            "repeats: the same under Huber (delta 1e-3)",
            f"{robust.params['RD']:.1f} [ {other.low:.1f}, {other.high:.1f} ]",
            "",
            None,
        ),
        row("repeats: RMSLE beyond 10 epochs, fitted to at most 10", ahead, 0.15),
        Row("repeats with excess: RMSLE beyond 10 epochs, 10-fold", f"{crossed:.4f}", "", None),
    ]
