"""The figure of the sensitivity to conventions."""

import numpy as np
import pandas as pd

from analysis.figures_sensitivity import exponents
from analysis.sensitivity import COLUMNS


def rows_of(*rows):
    made = [
        dict(zip(("convention", "flops", "road", "exponent_N"), row, strict=True)) for row in rows
    ]
    frame = pd.DataFrame(made, columns=list(COLUMNS))
    frame["exponent_N"] = frame["exponent_N"].astype(float)
    return frame.assign(
        exponent_N_low=frame["exponent_N"] - 0.1, exponent_N_high=frame["exponent_N"] + 0.05
    )


def test_each_road_stands_in_the_row_of_its_convention_with_its_interval():
    figure = exponents(
        rows_of(
            ("blocks", "6ND", "isoFLOP", 0.5),
            ("blocks", "6ND", "isoFLOP", 0.5),  # at another target: the same exponent
            ("blocks", "6ND", "parametric", np.nan),
            ("total", "6ND", "isoFLOP", 0.6),
            ("total", "6ND", "parametric", 0.4),
        )
    )
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "N of total, C 6ND", "N of blocks, C 6ND",
    ]  # fmt: skip
    dots = {one.get_label(): one.lines[0].get_xydata() for one in axes.containers}
    np.testing.assert_allclose(dots["isoFLOP"], [[0.5, 1.0], [0.6, 0.0]])
    np.testing.assert_allclose(dots["parametric"][:, 0], [0.4])
    bars = axes.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([bar[:, 0] for bar in bars], [[0.4, 0.55], [0.5, 0.65]])


def test_a_table_of_refusals_says_so():
    (axes,) = exponents(rows_of(("blocks", "6ND", "isoFLOP", np.nan))).axes
    assert [text.get_text() for text in axes.texts] == ["no road has numbers"]
