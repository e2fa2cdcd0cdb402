"""Every notebook runs from top to bottom, and what its text says is what its numbers say.

Two run with the fast tests, all with the slow ones: NumPy threads share cores with other work,
and here NumPy is loaded before a notebook can ask for one thread.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import PlanStatus, Status
from analysis.frontier import RoadName

FOLDER = Path(__file__).parents[2] / "analysis" / "notebooks"
NAMES = {path.stem for path in FOLDER.glob("*.py")}


def run(name: str) -> dict:
    """The variables of a notebook after all its cells."""
    spec = importlib.util.spec_from_file_location(f"notebook_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outputs, found = module.app.run()
    shown = [output for output in outputs if output is not None]
    assert len(shown) >= 4
    return {"text": "".join(output.text for output in shown), **found}


def test_there_are_five_and_marimo_finds_no_fault():
    assert NAMES == {
        "first_fit", "replication_pitfalls", "isoflop_three_ways", "our_ladder", "what_to_run_next",
    }  # fmt: skip
    words = [sys.executable, "-m", "marimo", "check", "--strict", *map(str, FOLDER.glob("*.py"))]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_first_fit():
    found = run("first_fit")
    law = found["law"]
    assert law.status is Status.CONVERGED and len(found["table"]) >= 5
    assert found["refused"].status is Status.UNDER_DETERMINED
    width = (found["ahead"]["high"] - found["ahead"]["low"]).to_numpy()
    assert (np.diff(width) > 0).all()  # "the interval grows with" the distance
    assert found["made"].sentence in found["text"]


@pytest.mark.slow
def test_replication_pitfalls(monkeypatch):
    monkeypatch.delenv("TFDS_MANUAL_DIR", raising=False)
    found = run("replication_pitfalls")
    assert "synthetic" in found["text"]
    scale = found["by_loss"]["B"].astype(float)
    assert abs(scale["huber 0.001"] / scale["lad"] - 1) < 0.05  # "practically LAD"
    assert abs(scale["squares"] / scale["lad"] - 1) > 0.1
    objective = found["by_scale"]["objective over optimum"].astype(float)
    assert objective["mean over runs"] > 2 and found["by_scale"]["says converged"].iloc[0] == "100%"
    assert objective["sum, times 1e4"] == pytest.approx(1, abs=1e-5)
    errors = found["by_steps"]["SE of a"].to_numpy()
    assert errors[0] < 0.5 * errors[-1] and found["certified"].certified.all()


@pytest.mark.slow
def test_replication_pitfalls_takes_a_public_table_where_there_is_one(monkeypatch, tmp_path):
    folder = tmp_path / "laws"
    folder.mkdir()
    rng = np.random.default_rng(0)
    n, d = np.exp(rng.uniform(17, 23, 60)), np.exp(rng.uniform(21, 26, 60))
    loss = (1.7 + 400 * n**-0.34 + 2000 * d**-0.37) * np.exp(0.005 * rng.standard_normal(60))
    pd.DataFrame({"N": n, "D": d, "loss": loss}).to_csv(folder / "takano_llm.csv", index=False)
    monkeypatch.setenv("TFDS_MANUAL_DIR", str(tmp_path))
    found = run("replication_pitfalls")
    assert "takano_llm.csv, 60 runs" in found["text"] and "synthetic" not in found["text"]


def test_isoflop_three_ways():
    found = run("isoflop_three_ways")
    exact = found["without_noise"].set_index("interpolant")
    assert (
        exact.loc["parabola", "N* off by (%)"] > 10 > 4 > abs(exact.loc["akima", "N* off by (%)"])
    )
    assert (
        not exact.loc["parabola", "low"] <= found["TRUE_EXPONENT"] <= exact.loc["parabola", "high"]
    )
    assert exact.loc["akima", "low"] <= found["TRUE_EXPONENT"] <= exact.loc["akima", "high"]
    assert found["with_noise"]["holds the truth (%)"].min() >= 75
    roads = found["roads"]
    assert roads.road(RoadName.ENVELOPE).frontier is None
    assert roads.road(RoadName.ISOFLOP).frontier and roads.road(RoadName.PARAMETRIC).frontier
    assert found["far"].road.standing.refused and found["few"].road.standing.refused


@pytest.mark.slow
def test_our_ladder():
    found = run("our_ladder")
    assert len(found["verdicts"]) == 3
    for name, verdict in found["verdicts"].items():
        assert verdict.sentence in found["text"]
        last = found["both"][name].past[-1]
        assert last.inside is None  # "from the farthest origin none can be stated"
        broken = [m for m in found["sizes"][name].members if m.form.name == "broken1_N"]
        assert np.isnan(broken[0].forward_rms_log).all()  # "too few to fit it"


@pytest.mark.slow
def test_what_to_run_next():
    found = run("what_to_run_next")
    plan, widths = found["plan"], found["widths"]
    assert (np.diff(widths["width_after"]) < 0).all()
    assert plan.least_width < widths["width_after"].min() < plan.width_before
    assert found["trusting"].width_before < plan.width_before
    assert found["measured"].status is PlanStatus.ALREADY_MEASURED
    assert found["poor"].status is PlanStatus.NOTHING_AFFORDABLE


def test_a_notebook_is_a_script_from_any_folder(tmp_path):
    words = [sys.executable, str(FOLDER / "first_fit.py")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
