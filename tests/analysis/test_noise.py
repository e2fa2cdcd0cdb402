"""The noise model: variances recovered, exact intervals, weights, and what is said of them."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from analysis import AnalysisError, fit, from_frame, read_csv
from analysis.noise import Source, noise_of
from analysis.prediction import Images

COLUMNS = {
    "N": ("N", "count"),
    "loss": ("L", "nats/token"),
    "loss_se": ("SE", "nats/token"),
}
RUN, EVALUATION = 2e-3, 3e-3  # log units


def replicated(rng, *, seeds, run=RUN, evaluation=EVALUATION, sizes=6, shared=0.0):
    """Runs of sizes by seeds; standard errors that differ by a factor of four between runs."""
    n = np.repeat(np.geomspace(3e4, 1e6, sizes), seeds)
    law = 2.0 + 9.0 * n**-0.35
    spread = evaluation * np.exp(rng.uniform(-0.7, 0.7, len(n)))
    errors = run * rng.standard_normal(len(n)) + shared * rng.standard_normal()
    loss = law * np.exp(errors + spread * rng.standard_normal(len(n)))
    frame = pd.DataFrame({"N": n, "L": loss, "SE": spread * loss})
    return from_frame(frame, columns=COLUMNS), spread


def by_reml(log_loss, spread, group):
    """The restricted likelihood of the run-to-run variance, maximised by itself."""

    def negative(log_variance):
        out = 0.0
        for number in np.unique(group):
            y, v = log_loss[group == number], spread[group == number] ** 2
            w = 1.0 / (np.exp(log_variance) + v)
            mean = np.sum(w * y) / w.sum()
            out += 0.5 * (np.log(w.sum()) - np.log(w).sum() + np.sum(w * (y - mean) ** 2))
        return out

    return float(np.exp(optimize.minimize_scalar(negative, bounds=(-18, -6), method="bounded").x))


def test_both_variances_are_recovered_from_many_replicates():
    table, spread = replicated(np.random.default_rng(0), seeds=400)
    found = noise_of(table, ("N",), images=Images.OTHER)
    assert found.source is Source.REPLICATES and found.freedom == 6 * 399
    np.testing.assert_allclose(found.evaluation_variance, spread**2, rtol=1e-9)
    assert found.run_variance**0.5 == pytest.approx(RUN, rel=0.06)
    assert found.low < RUN**2 < found.high
    group = np.repeat(np.arange(6), 400)
    reml = by_reml(np.log(table.loss), spread, group)
    assert found.run_variance == pytest.approx(reml, rel=0.15)  # the efficient one: other weights
    np.testing.assert_allclose(
        found.weights, np.median(found.variance) / (found.run_variance + spread**2), rtol=1e-9
    )


def test_intervals_of_the_run_to_run_variance_are_exact():
    rng, repetitions = np.random.default_rng(1), 400
    hits = above = 0
    for _ in range(repetitions):
        found = noise_of(replicated(rng, seeds=3)[0], ("N",), images=Images.OTHER)
        hits += found.low <= RUN**2 <= found.high
        above += found.run_variance > RUN**2
    error = 3 * np.sqrt(0.9 * 0.1 / repetitions)
    assert abs(hits / repetitions - 0.9) < error
    assert 0.35 < above / repetitions < 0.55  # a variance estimate lies below the truth more often


def test_an_error_of_common_images_cancels():
    """Of a common error nothing is left within replicates: analysis of variance by hand."""
    table, _ = replicated(np.random.default_rng(2), seeds=4, evaluation=0.0, shared=0.05)
    found = noise_of(table, ("N",), images=Images.SAME)
    log_loss = np.log(table.loss).reshape(6, 4)
    within = np.sum((log_loss - log_loss.mean(axis=1, keepdims=True)) ** 2) / 18
    assert found.run_variance == pytest.approx(within, rel=1e-6)
    ends = within * 18 / stats.chi2.ppf([0.95, 0.05], 18)
    assert (found.low, found.high) == pytest.approx(tuple(ends), rel=1e-6)
    assert np.all(found.weights == 1.0)
    assert "evaluation errors cancel" in found.assumed


def test_without_replicates_the_law_is_asked_and_the_fit_says_so():
    table, spread = replicated(np.random.default_rng(3), seeds=1, sizes=200)
    assert noise_of(table, ("N",), images=Images.OTHER) is None
    found = fit(
        "power_floor_N", table, loss="squares", weights="noise", images=Images.OTHER, draws=50
    )
    assert found.noise.source is Source.RESIDUALS and found.noise.freedom == 197
    assert found.noise.low < RUN**2 < found.noise.high
    np.testing.assert_allclose(found.estimate.points.weight, found.noise.weights)
    assert any("so it holds what the law misses" in note for note in found.notes)
    assert "run-to-run sd" in found.summary()


def test_the_variance_about_a_law_is_that_of_linear_meta_regression():
    """A power is a line in logs: Paule and Mandel's equation by dense least squares."""
    rng = np.random.default_rng(5)
    n = np.geomspace(1e4, 1e7, 12)
    spread = rng.uniform(1e-3, 4e-3, 12)
    errors = 3e-3 * rng.standard_normal(12) + spread * rng.standard_normal(12)
    loss = 9 * n**-0.1 * np.exp(errors)
    table = from_frame(pd.DataFrame({"N": n, "L": loss, "SE": spread * loss}), columns=COLUMNS)
    found = fit("power_N", table, loss="squares", weights="noise", images=Images.OTHER)

    def squares(variance):
        w = (variance + spread**2) ** -0.5
        design = np.stack([w, w * np.log(n)], axis=-1)
        return np.linalg.lstsq(design, w * np.log(loss), rcond=None)[1][0]

    expected = optimize.brentq(lambda variance: squares(variance) - 10, 1e-8, 1e-3, xtol=1e-14)
    assert found.noise.run_variance == pytest.approx(expected, rel=1e-5)
    w = (expected + spread**2) ** -0.5
    line = np.linalg.lstsq(
        np.stack([w, w * np.log(n)], axis=-1), w * np.log(loss), rcond=None
    )[0]  # fmt: skip
    assert found.params["a"] == pytest.approx(-line[1], rel=1e-6)


def test_weights_of_the_noise_narrow_what_equal_weights_leave_wide():
    """Half of the runs are measured on few images: the error of a over 60 tables."""
    rng, errors = np.random.default_rng(6), {"equal": [], "noise": []}
    n = np.tile(np.geomspace(3e4, 1e6, 8), 2)
    for _ in range(60):
        spread = np.where(np.arange(16) < 8, 1e-3, 2e-2)
        noise = 1e-3 * rng.standard_normal(16) + spread * rng.standard_normal(16)
        loss = 9 * n**-0.1 * np.exp(noise)
        table = from_frame(pd.DataFrame({"N": n, "L": loss, "SE": spread * loss}), columns=COLUMNS)
        for weights, rows in errors.items():
            found = fit("power_N", table, loss="squares", weights=weights, images=Images.OTHER)
            rows.append(found.params["a"] - 0.1)
    assert np.std(errors["noise"]) < 0.3 * np.std(errors["equal"])


def test_runs_alike_in_all_are_no_replicates_and_missing_errors_are_named():
    table, _ = replicated(np.random.default_rng(0), seeds=2)
    table.runs["seed"] = np.tile([1, 2], 6)
    assert noise_of(table, ("N",)).freedom == 6
    table.runs["seed"] = 1
    with pytest.raises(AnalysisError, match="row 0 and row 1 are alike, seed and all"):
        noise_of(table, ("N",))
    bare = from_frame(
        table.runs[["N", "loss_nats_per_token"]],
        columns={"N": ("N", "count"), "loss": ("loss_nats_per_token", "nats/token")},
    )
    with pytest.raises(AnalysisError, match="needs every standard error"):
        noise_of(bare, ("N",), images=Images.OTHER)


def test_a_refused_design_keeps_its_status():
    table, _ = replicated(np.random.default_rng(0), seeds=1, sizes=3)
    found = fit("power_floor_N", table, weights="noise", images=Images.OTHER)
    assert found.status.refused and found.noise is None


def _gadre(tmp_path):
    place = os.environ.get("TFDS_MANUAL_DIR")
    folders = [Path(place)] if place else []
    folders.append(Path(__file__).parents[3] / "shared" / "data")
    for folder in folders:
        path = folder / "laws" / "gadre_c4_original_00000001.csv"
        if path.is_file():
            return path
    return pytest.skip("no gadre_c4_original_00000001.csv in TFDS_MANUAL_DIR or ../shared/data")


def test_gadre_intervals_are_read_as_standard_errors(tmp_path):
    """Their columns lo and hi are 95 % bootstrap intervals of the loss."""
    frame = pd.read_csv(_gadre(tmp_path))
    frame["se"] = (frame["hi"] - frame["lo"]) / (2 * 1.96)
    path = tmp_path / "gadre.csv"
    frame.to_csv(path, index=False)
    table = read_csv(
        path,
        columns={
            "N": ("N", "count"), "D": ("D", "count"), "loss": ("loss", "nats/token"),
            "loss_se": ("se", "nats/token"),
        },
    )  # fmt: skip
    found = fit("separable", table, loss="squares", weights="noise", images=Images.OTHER, draws=100)
    assert not found.status.refused
    assert found.noise.source is Source.RESIDUALS
    np.testing.assert_allclose(
        found.noise.evaluation_variance**0.5, frame["se"] / frame["loss"], rtol=1e-9
    )
    same = fit("separable", table, loss="squares", weights="noise", draws=100)
    assert np.all(same.estimate.points.weight == 1.0)
