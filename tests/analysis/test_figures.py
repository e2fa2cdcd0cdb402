"""Figures say what the numbers say, on any background, and the same each time."""

import re

import numpy as np
import pytest

from analysis import figures, fit, forecast, neighbours, read_runs


@pytest.fixture
def table(ladder):
    return read_runs(ladder)


@pytest.fixture
def law(table):
    return fit("power_floor_N", table)


def test_the_law_shows_runs_band_forecast_and_measured(law, table):
    point = figures.point_of(forecast(law, N=331_776), 2.2)
    (axes,) = figures.law(law, point).axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["measured"].get_xydata(), [[331_776, 2.2]])
    curve = max(axes.lines, key=lambda line: len(line.get_xdata()))
    x = np.asarray(curve.get_xdata())
    np.testing.assert_allclose(curve.get_ydata(), law.predict(N=x).loss)
    assert x.max() > 331_776 and x.min() < table.variable("N").min()
    assert [text.get_text() for text in axes.get_legend().get_texts()].count("measured") == 1


def test_residuals_are_in_per_cent(law):
    (axes,) = figures.residuals(law).axes
    (dots,) = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots.get_ydata(), 100 * law.residuals)


def test_differences_are_those_of_neighbours(table):
    found = neighbours(table)
    (axes,) = figures.differences(found).axes
    (dots,) = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots.get_xdata(), [pair.difference_nats_per_token for pair in found])


def test_learning_curves_start_after_the_first_tokens(table):
    (axes,) = figures.learning_curves(table).axes
    assert len(axes.lines) == len(table)
    assert all(np.min(line.get_xdata()) > 0 for line in axes.lines)


def test_svg_is_transparent_text_and_repeatable(law):
    first, second = (figures.svg(figures.law(law), "law") for _ in range(2))
    assert first == second and first.startswith("<svg") and ">runs (± SE)</text>" in first
    (patch,) = re.findall(r'id="patch_1">\s*<path [^>]*style="([^"]*)"', first)
    assert "fill: none" in patch or "opacity: 0" in patch


def test_plot_writes_a_file(law, tmp_path):
    law.plot(tmp_path / "law.svg")
    assert (tmp_path / "law.svg").read_text().startswith("<svg")
