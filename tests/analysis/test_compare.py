"""Comparison of laws: weights by their formula, intervals by simulation, refusals by name."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import AnalysisError, compare, forward, from_frame
from analysis.calibration import calibrate
from analysis.forecast import as_json, as_text, forecast, freeze, read_frozen
from analysis.forms import power, power_floor
from analysis.prediction import Images


def grid(side=6, noise=0.0, seed=0, law=None):
    n, d = (
        g.ravel() for g in np.meshgrid(np.geomspace(1e6, 1e9, side), np.geomspace(1e8, 1e11, side))
    )
    loss = law(n, d) if law else 1.7 + 300 * n**-0.33 + 900 * d**-0.36
    loss = loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(n)))
    return table_of(N=n, D=d, loss=loss)


def table_of(**columns):
    frame = pd.DataFrame(columns)
    units = {key: (key, "count") for key in columns if key in "NDC"}
    units |= {key: (key, "nats/token") for key in columns if key.startswith("loss")}
    return from_frame(frame, columns=units)


def test_the_true_law_forecasts_exactly_and_wrong_ones_weigh_nothing():
    found = compare(grid(), ["separable", "shared_exponent"])
    best = found.members[0]
    assert best.form.name == "separable" and best.weight > 0.999
    assert best.params["E"] == pytest.approx(1.7, rel=1e-6)
    made = found.predict(N=1e10, D=1e12)
    assert made.loss[0] == pytest.approx(1.7 + 300 * 1e10**-0.33 + 900 * 1e12**-0.36, rel=1e-4)
    assert made.distance[0] == pytest.approx(100.0)


def test_weights_and_spread_follow_their_formulas():
    rng = np.random.default_rng(4)
    x = np.geomspace(1e3, 1e6, 40)
    table = table_of(N=x, loss=(1.0 + 20 * x**-0.3) * np.exp(0.01 * rng.normal(size=40)))
    found = compare(table, [power("N"), power_floor("N")])
    squares = np.array(
        [
            [np.mean(law.error[i + 1][w.ahead] ** 2) for i, w in enumerate(found.windows)]
            for law in found.rolled
        ]
    ).mean(axis=1)
    inside = np.array([law.residual_rms[0] ** 2 for law in found.rolled])
    weight = (squares + inside.min()) ** (-len(found.windows) / 2)
    weight /= weight.sum()
    np.testing.assert_allclose(found.calibration.weights, weight, rtol=1e-12)
    assert found.calibration.noise_log == pytest.approx(np.sqrt(weight @ inside), rel=1e-12)
    made = found.predict(N=4e6, level=0.8)
    laws = np.array([law.log_loss(np.array([[4e6]]))[0] for law in found.rolled])
    mean = weight @ laws
    variance = (
        found.calibration.noise_log**2
        + found.calibration.drift_log**2 * np.log(4.0)
        + weight @ (laws - mean) ** 2
    )
    half = stats.t.ppf(0.9, len(found.windows)) * np.sqrt(variance)
    assert made.loss[0] == pytest.approx(np.exp(mean), rel=1e-12)
    assert np.log(made.high[0] / made.low[0]) == pytest.approx(2 * half, rel=1e-9)


def walking(seed):
    """A power law whose error walks at random in log size, as the calibration supposes."""
    rng = np.random.default_rng(seed)
    log_x = np.linspace(np.log(1e3), np.log(1e7), 61)
    walk = np.cumsum(rng.normal(size=61)) * 0.01 * np.sqrt(np.diff(log_x)[0])
    loss = np.exp(2.0 - 0.15 * log_x + walk + 0.003 * rng.normal(size=61))
    return np.exp(log_x), loss


def test_intervals_cover_where_laws_drift():
    """50 walks: the last run, half a decade to a decade ahead, lies inside about 90 %."""
    inside, factor = [], 8.0
    for seed in range(50):
        x, loss = walking(seed)
        kept = x <= x.max() / factor
        found = compare(table_of(N=x[kept], loss=loss[kept]), ["power_N", "power_floor_N"])
        ahead = x > x.max() / factor * 3
        made = found.predict(N=x[ahead])
        inside.append(np.mean((loss[ahead] >= made.low) & (loss[ahead] <= made.high)))
    assert 0.82 <= np.mean(inside) <= 0.99, np.mean(inside)


def test_the_history_uses_only_what_was_known_then():
    rng = np.random.default_rng(1)
    x = np.geomspace(1e3, 1e7, 40)
    loss = (1.0 + 20 * x**-0.3) * np.exp(0.01 * rng.normal(size=40))
    found = compare(table_of(N=x, loss=loss))
    last = x > found.windows[0].reached
    changed = compare(table_of(N=x, loss=np.where(last, loss * 1.3, loss)))
    then, now = found.past[1], changed.past[1]
    assert then.runs_used == now.runs_used and then.inside is not None
    half = [
        calibrate(c.rolled, c.windows, c.size, row=1, known=c.windows[0].kept)
        for c in (found, changed)
    ]
    np.testing.assert_allclose(half[0].weights, half[1].weights, rtol=1e-6)
    assert half[0].drift_log == pytest.approx(half[1].drift_log, rel=1e-5)
    assert found.past[-1].inside is None  # nothing had been forecast before the first origin


def test_one_ray_is_read_as_a_curve_and_surfaces_are_refused_on_it():
    n = np.geomspace(1e6, 1e9, 12)
    table = table_of(N=n, D=20 * n, loss=1.7 + 300 * n**-0.33)
    assert compare(table).variables == ("N",)
    refused = compare(table, ["separable", "skaling"])
    assert refused.status.refused
    with pytest.raises(AnalysisError, match="no law could be fitted: .*move together"):
        refused.predict(N=1e9, D=1e10)
    assert "under-determined" in refused.summary() and refused.as_json()["past"] == []


def test_too_few_runs_give_a_note_and_a_wide_interval():
    x = np.geomspace(1e3, 1e5, 5)
    found = compare(table_of(N=x, loss=1.0 + 20 * x**-0.3), ["power_N", "power_floor_N"])
    assert found.calibration.origins == 0 and any("no origin" in note for note in found.notes)
    assert found.calibration.quantile(0.9) == pytest.approx(stats.t.ppf(0.95, 1))


def test_laws_of_different_variables_are_refused():
    with pytest.raises(AnalysisError, match="different variables"):
        compare(grid(), ["separable", "power_N"])
    constant = table_of(N=[1e6] * 8, D=[1e8] * 8, loss=np.linspace(2, 3, 8))
    with pytest.raises(AnalysisError, match="none of N, D and C varies"):
        compare(constant)


def test_other_images_add_the_standard_error():
    x = np.geomspace(1e3, 1e6, 30)
    loss = (1.0 + 20 * x**-0.3) * np.exp(0.002 * np.random.default_rng(0).normal(size=30))
    found = compare(table_of(N=x, loss=loss, loss_se=0.01 * loss))
    same, other = (found.predict(N=2e6, images=images) for images in (Images.SAME, Images.OTHER))
    half = [np.log(made.high[0] / made.low[0]) / 2 for made in (same, other)]
    quantile = found.calibration.quantile(0.9)
    assert np.sqrt(half[1] ** 2 - half[0] ** 2) == pytest.approx(0.01 * quantile, rel=1e-6)


def test_a_comparison_is_frozen_like_a_fit(tmp_path):
    found = compare(grid(noise=0.003))
    made = forecast(found, N=1e10, D=1e12)
    path = freeze(made, tmp_path / "forecast.json", date="2026-01-01")
    kept = read_frozen(path)
    assert kept.loss == made.loss and kept.fit["laws"][0]["form"] == found.members[0].form.name
    assert json.loads(json.dumps(as_json(made)))["fit"]["origins"] == len(found.windows)
    frame = found.frame()
    assert list(frame["form"]) == [member.form.name for member in found.members]
    assert frame["weight"].sum() == pytest.approx(1.0)
    text = found.plot(tmp_path / "c.svg")
    assert text is not None and (tmp_path / "c.svg").read_text().startswith("<svg")


def test_windows_are_those_of_forward():
    found = compare(grid())
    assert [w.reached for w in found.windows] == [w.reached for w in forward.windows(found.size)]


def test_a_law_of_n_is_compared_at_one_d():
    n = np.tile(np.geomspace(1e6, 1e8, 8), 2)
    d = np.repeat([1e9, 1e10], 8)
    table = table_of(N=n, D=d, loss=1.7 + 300 * n**-0.33 + 900 * d**-0.36)
    found = compare(table)
    assert found.variables == ("N",) and found.table.held == {"D": 1e10}
    assert len(found.points.loss) == 8
    made = found.predict(N=1e8)
    assert made.loss[0] == pytest.approx(1.7 + 300 * 1e8**-0.33 + 900 * 1e10**-0.36, rel=2e-3)


def test_a_law_at_a_bound_says_so():
    x = np.geomspace(1e3, 1e6, 30)
    found = compare(table_of(N=x, loss=9.0 * x**-0.1), ["power_N", "power_floor_N"])
    floor = next(m for m in found.members if m.form.name == "power_floor_N")
    assert floor.status.value == "at a bound" and "no irreducible loss" in floor.reason
    assert any("power_floor_N" in note for note in found.notes)


def test_losses_without_noise_keep_an_interval_of_six_digits():
    found = compare(grid(), ["separable", "shared_exponent"])
    made = found.predict(N=1e10, D=1e12)
    assert np.log(made.high[0] / made.low[0]) >= 2e-6
    assert any("six digits" in note for note in found.notes)


@pytest.mark.parametrize("local", [-1.0, np.nan, np.inf, 1000.0])
def test_a_locality_without_sense_is_refused(local):
    with pytest.raises(AnalysisError, match="local .*: allowed is 0 to 4"):
        compare(grid(), local=local)


def test_what_has_no_logarithm_is_refused_by_name():
    table = table_of(N=[0.0, 1e6, 1e7, 1e8, 1e9], D=[1e9] * 5, loss=[5.0, 4.0, 3.0, 2.5, 2.2])
    with pytest.raises(AnalysisError, match="row 0: variable"):
        compare(table)
    with pytest.raises(AnalysisError, match="column 'N': not numbers"):
        table_of(N=["1.3B", "2"], loss=[1.0, 2.0])


def test_json_is_strict_where_a_law_failed_at_an_origin():
    rng = np.random.default_rng(0)
    x = np.geomspace(1e3, 1e7, 8)
    table = table_of(N=x, loss=(1.5 + 30 * x**-0.4) * np.exp(0.01 * rng.normal(size=8)))
    found = compare(table)
    text = as_text(found.as_json())
    assert "NaN" not in text and "null" in text and json.loads(text)["points"] == 8


def test_the_same_law_twice_counts_once():
    assert len(compare(grid(), ["separable", "separable"]).members) == 1


def test_a_look_back_at_small_runs_carries_a_note():
    found = compare(grid(noise=0.003))
    assert "smaller runs scatter more" in found.predict(N=1e6, D=1e8).notes[-1]
    assert not any("scatter" in note for note in found.predict(N=2e9, D=2e11).notes)
