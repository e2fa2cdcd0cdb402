"""Whole curves: reading, forecasts of other schedules, held-out runs, coverage, the command."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis import AnalysisError, Schedule, Status, fit_curves, read_curves
from analysis.__main__ import main
from analysis.figures_curves import curves as figure_of
from tests.analysis.curves import TOKENS, CurveTruth, branches

RECORDS = Path(__file__).parents[2] / "experiments" / "06_surface" / "results"
EUROSAT = RECORDS / "surface_eurosat"


@pytest.fixture(scope="module")
def eurosat():
    return read_curves(EUROSAT)


def test_every_measurement_counts_once_with_its_schedule(eurosat):
    """Branches repeat the evaluations of their trunk: counted from the files alone."""
    seen, runs = set(), 0
    for path in EUROSAT.glob("*/record.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        runs += 1
        seen |= {
            (rows[0]["params"]["blocks"], row["step"], row["loss_nats_per_token"])
            for row in rows
            if row["kind"] == "evaluation" and row["step"] > 20
        }
    table = eurosat.table(10.0)
    assert runs == len(eurosat.names) == 48 and len(table) == len(seen)
    assert eurosat.points["path"].nunique() == 8 and len(eurosat.points) > len(table)
    trunk = table.runs[table.runs["name"].str.contains("trunk")]
    assert (trunk["R_relative_rate"] == 1).all()
    np.testing.assert_allclose(trunk["S_tokens"], trunk["tokens"])
    assert table.digest == eurosat.table(10.0).digest


def copied(target: Path, name: str, old: str, new: str) -> None:
    """A run of EuroSAT by its name, one text of its config changed."""
    (source,) = (path.parent for path in EUROSAT.glob("*/config.json") if name in path.read_text())
    shutil.copytree(source, target / source.name)
    config = target / source.name / "config.json"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))


def test_evaluations_inside_a_warm_up_are_left_out(tmp_path):
    copied(tmp_path, '"s1-2M"', '"20 steps"', '"600 steps"')
    assert list(read_curves(tmp_path).points["step"]) == [1000, 1302]
    copied(tmp_path, '"s1-0.5M"', '"20 steps"', '"600 steps"')
    with pytest.raises(AnalysisError, match="326 steps: too few for 600 of warm-up"):
        read_curves(tmp_path)


def test_runs_of_other_peak_rates_are_refused(tmp_path):
    copied(tmp_path, '"s1-2M"', "0.006", "0.006")
    copied(tmp_path, '"s1-1M"', "0.006", "0.007")
    with pytest.raises(AnalysisError, match="optimizer.learning_rate differs"):
        read_curves(tmp_path)


def test_without_noise_other_schedules_sizes_and_lengths_are_forecast_exactly():
    truth = CurveTruth()
    found = fit_curves(branches(truth), memory_steps=truth.H, starts=8, draws=50)
    for schedule in (
        Schedule("cosine", 5000, TOKENS, 20, 0.0, 0.1),
        Schedule("wsd", 9000, TOKENS, 20, 0.4, 0.0),
        Schedule("constant", 700, TOKENS, 20),
    ):
        steps = np.array([100, schedule.steps // 2, schedule.steps])
        made = found.predict(N=1e6, schedule=schedule, steps=steps)
        np.testing.assert_allclose(made.loss, truth.loss(1e6, schedule, steps), rtol=1e-6)
        np.testing.assert_array_equal(made.tokens, steps * TOKENS)
        assert (made.low <= made.loss).all() and (made.loss <= made.high).all()
        assert list(made.frame()["steps"]) == list(steps)
    assert found.predict(N=1e6, schedule=schedule).steps == [700]


def test_the_end_of_a_run_is_forecast_from_its_constant_rate_and_other_runs():
    """Trunks of all sizes, and cooldowns of half of them: the other half's ends."""
    truth = CurveTruth()
    curves = branches(truth)
    sizes = np.unique(curves.points["N"])[1::2]
    of_half = curves.points["N"].isin(sizes) & ~curves.points["name"].str.contains("constant")
    kept, held = curves.split(set(curves.points["identity"][of_half]))
    found = fit_curves(kept, memory_steps=truth.H, starts=8, draws=50)
    rows = found.forecast_of(held)
    assert len(rows) == 5 * len(sizes) and rows["log_error"].abs().max() < 1e-6
    assert set(rows["N"]) == set(sizes)


def test_held_out_runs_move_no_number_of_the_fit():
    curves = branches(CurveTruth(), noise=0.004)
    kept, held = curves.split(curves.longest())
    changed = curves.points.copy()
    late = changed["identity"].isin(held.names)
    changed.loc[late & changed["is_end"], curves.loss_column] *= 1.5
    again = type(curves)(changed, curves.schedules, "blocks", "changed")
    one, other = (
        fit_curves(each.split(curves.longest())[0], starts=8, draws=50) for each in (curves, again)
    )
    assert one.params == other.params
    assert set(held.names) == {f"s{size}-wsd-2600" for size in range(8)}


def test_intervals_keep_the_errors_of_a_path_together():
    """Resampled by run, the exponent of N looks better known than it is."""
    curves = branches(CurveTruth(), noise=0.001, of_path=0.01, seed=2)
    width = {}
    for cluster in ("path", "run"):
        found = fit_curves(curves, memory_steps=10, starts=8, draws=200, cluster=cluster)
        width[cluster] = found.intervals["a"].high - found.intervals["a"].low
    assert width["path"] > 1.3 * width["run"]


@pytest.mark.slow
@pytest.mark.parametrize("noise, of_path", [(0.005, 0.0), (0.004, 0.004)])
def test_intervals_cover_parameters_and_new_runs(noise, of_path):
    """At least nominal less three binomial deviations; memory chosen by each refit."""
    truth, count, names = CurveTruth(), 30, ("E", "A", "a", "B", "b", "C", "H")
    far = Schedule("wsd", 10_400, TOKENS, 20, 0.2, 0.0)
    hits, rng = dict.fromkeys((*names, "far"), 0), np.random.default_rng(1)
    for seed in range(count):
        curves = branches(truth, noise=noise, of_path=of_path, seed=seed)
        found = fit_curves(curves, draws=200, starts=12, seed=seed)
        for name in names:
            one = found.intervals[name]
            hits[name] += one.low <= getattr(truth, name) <= one.high
        made = found.predict(N=3.3e5, schedule=far)
        error = noise * rng.standard_normal() + of_path * rng.standard_normal()
        new = truth.loss(3.3e5, far, np.array([10_400]))[0] * np.exp(error)
        hits["far"] += made.low[0] <= new <= made.high[0]
    least = 0.9 - 3 * np.sqrt(0.9 * 0.1 / count)
    assert {name: hit / count for name, hit in hits.items() if hit / count < least} == {}


def test_few_paths_are_named_and_another_cluster_may_be_chosen():
    curves = branches(CurveTruth(), sizes=4, noise=0.002)
    found = fit_curves(curves, memory_steps=10, starts=8, draws=50)
    assert found.status is Status.CONVERGED
    assert "no intervals: simulated: 4 paths to resample; at least 5" in found.summary()
    assert "--cluster run" in found.as_json()["intervals_problem"]
    by_run = fit_curves(curves, memory_steps=10, starts=8, draws=50, cluster="run")
    assert by_run.intervals["b"].low < 0.44 < by_run.intervals["b"].high


def test_eurosat_ends_are_forecast_within_three_per_cent(eurosat):
    kept, held = eurosat.split(eurosat.longest())
    found = fit_curves(kept, draws=50)
    errors = found.forecast_of(held)["log_error"]
    assert len(errors) == 8 and errors.abs().max() < 0.03


def test_each_refit_forecasts_with_its_own_memory(eurosat):
    found = fit_curves(eurosat, draws=60)
    schedule = Schedule("wsd", 2604, TOKENS, 20, 0.2)
    made, draws = found.predict(N=55_488, schedule=schedule), found.draws
    assert len(np.unique(draws.memory)) > 1 and made.distance == [1.0]
    runs = []
    for theta, index, noise in zip(draws.theta, draws.memory, draws.noise, strict=True):
        fitted = found.fits[index]
        p = {k: float(v) for k, v in fitted.form.public(theta, fitted.estimate.scale).items()}
        s, r = schedule.seen(np.array([2604]), found.memories[index])
        law = p["E"] + p["A"] * 55_488 ** -p["a"] + p["B"] * s[0] ** -p["b"] + p["C"] * r[0]
        runs.append(np.log(law) + noise)
    np.testing.assert_allclose([made.low[0], made.high[0]], np.exp(np.quantile(runs, [0.05, 0.95])))


def test_refusals_of_a_forecast():
    found = fit_curves(branches(CurveTruth()), memory_steps=10, starts=8, draws=50)
    schedule = Schedule("constant", 700, TOKENS, 20)
    for how, words in (
        ({"schedule": schedule}, "N is missing"),
        ({"schedule": schedule, "N": -1.0}, "N = -1: must be finite and above zero"),
        ({"schedule": schedule, "N": 1e5, "steps": [701]}, "allowed is 1 to 700"),
        ({"schedule": schedule, "N": 1e5, "level": 2.0}, "level 2.0"),
    ):
        with pytest.raises(AnalysisError, match=words):
            found.predict(**how)  # pyrefly: ignore
    with pytest.raises(AnalysisError, match="no run 'nobody'"):
        found.curves.split(["nobody"])


def test_the_command_answers_in_text_json_and_svg(tmp_path, capsys):
    figure = tmp_path / "curves.svg"
    flags = ["--form", "annealing", "--memory", "10", "--hold-out", "longest"]
    flags += ["--at", "N=1e6,steps=5208,schedule=cosine,final_fraction=0.1"]
    assert main(["fit", str(EUROSAT), *flags, "--plot", str(figure)]) == 0
    text = capsys.readouterr().out
    for words in ("s8-4M: measured 1.328", "of 8 inside", "5,208 updates", "H = 10", "8 paths"):
        assert words in text
    assert figure.read_text().startswith("<svg")
    assert main(["fit", str(EUROSAT), *flags, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["params"]["H"] == 10 and len(found["held_out"]) == 8
    assert found["at"][0]["N"] == 1e6 and set(found["intervals"]) == set("EAaBbC")


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--form", "separable", "--memory", "3"], "--memory: of the laws of whole curves only"),
        (["--hold-out", "longest"], "--hold-out: of the laws of whole curves only"),
        (["--form", "annealing", "--method", "pairs"], "--method: not of a law of whole curves"),
        (["--form", "annealing", "--memory", "0.1"], "memory of 0.1 updates: allowed is 1 or more"),
        (["--form", "annealing", "--hold-out", "x"], "no run 'x'"),
        (["--form", "annealing", "--memory", "3", "--at", "steps"], "allowed is KEY=VALUE"),
        (["--form", "annealing", "--memory", "3", "--at", "N=1"], "no steps"),
        (["--form", "annealing", "--memory", "3", "--at", "steps=1.5"], "a whole number"),
        (["--form", "annealing", "--cluster", "who"], "cluster 'who': allowed are path, run"),
    ],
)
def test_bad_flags_are_one_line(flags, words, capsys):
    assert main(["fit", str(EUROSAT), *flags]) == 2
    said = capsys.readouterr().err
    assert words in said and said.startswith("error: ") and said.count("\n") == 1


def test_the_figure_has_a_line_for_every_run_and_a_ring_for_the_held_out():
    curves = branches(CurveTruth(), sizes=5, noise=0.002)
    kept, held = curves.split(curves.longest())
    found = fit_curves(kept, memory_steps=10, starts=8, draws=50)
    (axes,) = figure_of(found, held).axes
    lines = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert len([line for line in lines if np.size(line.get_xdata()) > 2]) >= len(kept.names)
    rings = [line for line in axes.lines if str(line.get_markerfacecolor()) == "none"]
    assert len(rings) == len(held.names) == 5
