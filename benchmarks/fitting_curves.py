"""Benchmark A: 92 learning curves of Alabdulmohsin et al. 2022, continued to twice their length.

Fit on train == 1, judge on train == 0; of equal x the last y counts. The error of a curve is the
root mean square of log(forecast / measured), 1 where nothing could be fitted.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.rows import Row, row


def curves(folder: Path) -> list[Row]:
    """Means over all curves and over the image classifiers, failures, CPU seconds."""
    import numpy as np
    import pandas as pd

    from analysis.compare import compare
    from analysis.errors import AnalysisError
    from analysis.table import from_frame

    frame = pd.read_csv(folder / "alabdulmohsin92.csv")
    columns = {"D": ("x", "count"), "loss": ("y", "error rate")}
    errors, inside, start = [], [], time.process_time()
    for (suite, *_), rows in frame.groupby(["suite", "task", "model"], sort=False):
        kept = rows.drop_duplicates("x", keep="last")
        ahead = kept[kept.train == 0]
        try:
            found = compare(from_frame(kept[kept.train == 1], columns=columns))
            made = found.predict(D=ahead.x.to_numpy())
        except AnalysisError:
            errors.append((suite, 1.0))
            continue
        measured = ahead.y.to_numpy()
        errors.append((suite, float(np.sqrt(np.mean(np.log(made.loss / measured) ** 2)))))
        inside.append(float(np.mean((measured >= made.low) & (measured <= made.high))))
    spent = time.process_time() - start
    values = np.array([error for _, error in errors])
    images = np.array([error for suite, error in errors if suite == "IC"])
    return [
        row("A: 92 curves, mean RMSLE", values.mean(), 0.0320),
        row("A: image classifiers, mean RMSLE", images.mean(), 0.0385),
        Row("A: median RMSLE, all", f"{np.median(values):.4f}", "", None),
        row("A: curves that could not be fitted", len(values) - len(inside), 0, form=".0f"),
        Row("A: coverage of 90 % intervals", f"{np.mean(inside):.3f}", "", None),
        row("A: CPU seconds, all curves", spent, 35, form=".1f"),
    ]
