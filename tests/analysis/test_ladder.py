"""Which runs a law is of: the same for fit, forecast, families and compare."""

import numpy as np
import pandas as pd
import pytest

from analysis import compare, fit, from_frame
from analysis.ladder import runs_for

COLUMNS = {"N": ("N", "count"), "D": ("D", "count"), "loss": ("loss", "nats/token")}


def table_of(n, d):
    n, d = np.asarray(n, float), np.asarray(d, float)
    loss = 1.8 + 4.0 * n**-0.3 + 60.0 * d**-0.35
    return from_frame(pd.DataFrame({"N": n, "D": d, "loss": loss}), columns=COLUMNS)


def grid():
    n, d = np.meshgrid(np.geomspace(1e4, 1e6, 5), np.geomspace(1e6, 1e8, 4))
    return table_of(n.ravel(), d.ravel())


@pytest.mark.parametrize(("variables", "runs"), [(("N", "D"), 20), (("D",), 20), (("N",), 5)])
def test_a_law_of_n_alone_is_of_one_d(variables, runs):
    kept = runs_for(variables, grid())
    assert len(kept) == runs and kept.held.get("D") == (1e8 if runs == 5 else None)


def test_along_a_ray_and_at_one_size_every_run_is_kept():
    n = np.geomspace(1e4, 1e6, 8)
    assert len(runs_for(("N",), table_of(n, 20 * n))) == 8
    assert len(runs_for(("C",), table_of(np.full(8, 1e4), 1e3 * n))) == 8


def test_runs_of_one_d_say_which():
    n = np.geomspace(1e4, 1e6, 8)
    assert runs_for(("N",), table_of(n, np.full(8, 1e7))).held == {"D": 1e7}


def test_fit_and_compare_are_of_the_same_runs(capsys, tmp_path):
    from analysis.__main__ import main
    from analysis.run_table import write_table

    n = np.geomspace(1e4, 1e6, 8)
    ray = table_of(n, 20 * n)
    path = write_table(ray, tmp_path / "ray.csv")
    assert main(["fit", str(path), "--form", "power_floor_N"]) == 0
    assert "8 runs" in capsys.readouterr().out
    assert len(compare(ray, ["power_floor_N"]).points.loss) == 8
    assert len(fit("power_floor_N", runs_for(("N",), ray), draws=1).residuals) == 8
