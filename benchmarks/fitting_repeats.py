"""Repeated data: the runs of Muennighoff et al. 2023 (arXiv:2305.16264), U = D / epochs.

Three questions. What repeats are worth, from the runs before a model turns to learning its data by
heart (its loss is above one that the same N and U had reached earlier): does the interval of R*_D
hold the published 15.39? How well is the loss beyond ten epochs known from runs of at most ten? And
from other runs of all lengths, by ten-fold cross-validation?

Published scores of the second question are of 224 of the 229 runs, without the five largest losses
(four of them beyond ten epochs): only so do the published constants give .268, L(N, D) .259 and the
published form without its N' .191. Nothing up to ten epochs shows the turn; forms that add it are
judged in docs/statistics.md.
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
LARGEST_LOSSES = 5  # that published scores leave out
FOLDS = 10
DRAWS = 200
TURN = 1.005  # a loss this factor above an earlier one has turned
OTHER_TURNS = (1.0, 1.02, 1.05, 100.0)


def runs(folder: Path) -> pd.DataFrame:
    """N, D, U, epochs and loss."""
    import pandas as pd

    frame = pd.read_csv(folder / "datablations_contours.csv")
    return frame.assign(U=frame.D / frame.epochs)


def as_published(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that published scores are of."""
    return frame.drop(frame.loss.nlargest(LARGEST_LOSSES).index)


def ahead(form: str, frame: pd.DataFrame, **options) -> float:
    """RMSLE beyond ten epochs of the form fitted to runs of at most ten."""
    import numpy as np

    early, late = frame[frame.epochs <= EPOCHS], frame[frame.epochs > EPOCHS]
    return float(np.sqrt(np.mean(_errors(_fit(form, early, **options), late) ** 2)))


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

    from analysis.bootstrap import Method

    frame = runs(folder)
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
    scored = {
        name: ahead("repeats", runs_of, loss="huber")
        for name, runs_of in (("224", as_published(frame)), ("229", frame))
    }
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
        row("repeats: RMSLE beyond 10 epochs, fitted to at most 10", scored["224"], 0.15),
        Row("repeats: the same with the five largest losses", f"{scored['229']:.4f}", "", None),
        Row("repeats with excess: RMSLE beyond 10 epochs, 10-fold", f"{crossed:.4f}", "", None),
    ]
