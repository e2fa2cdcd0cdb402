"""The figure of experiments/08_exponents: frontiers and ratios by hand; a folder without runs."""

import importlib.util
import math
import pathlib
import sys

import numpy as np
import pytest

PATH = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "08_exponents" / "figure.py"


@pytest.fixture
def figure(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("exponents_figure", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_hull_has_the_runs_that_no_cheaper_one_is_as_good_as(figure):
    c, loss = figure.hull(np.array([4.0, 1.0, 3.0, 2.0]), np.array([2.0, 5.0, 3.0, 3.0]))
    assert c.tolist() == [1.0, 2.0, 4.0]
    assert loss.tolist() == [5.0, 3.0, 2.0]


def test_compute_for_a_loss_is_read_log_log_and_not_beyond_the_runs(figure):
    c, loss = np.array([1e2, 1e4]), np.array([4.0, 1.0])
    assert figure.compute_at(c, loss, 2.0) == pytest.approx(1e3)
    assert math.isnan(figure.compute_at(c, loss, 5.0))


def test_ratios_of_power_laws_a_factor_apart(figure):
    c = np.geomspace(1e2, 1e6, 9)
    laws = {"S0": (c, c**-0.25), "S2": (3 * c, c**-0.25)}
    said = figure.ratios(laws, "S2", "S0")
    assert said.startswith("S2 over S0") and said.count("3.00 at") == 3
    apart = {"S0": (c, c**-0.25), "dit": (c, 10 + c**-0.25)}
    assert figure.ratios(apart, "dit", "S0") == "dit over S0: no loss that both reach"


def test_a_folder_without_these_runs_is_one_line_and_draws_nothing(figure, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["figure.py", str(tmp_path / "typo")])
    monkeypatch.setattr(figure, "HERE", tmp_path)
    with pytest.raises(SystemExit, match="typo: holds no exponents_S0, exponents_S1"):
        figure.main()
    assert not list(tmp_path.iterdir())
