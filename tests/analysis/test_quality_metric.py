"""A metric in the place of the loss; groups of a study; laws of several families."""

import json
import re

import numpy as np
import pytest

from analysis import AnalysisError, fit, read_runs
from analysis.__main__ import main
from analysis.families import families
from analysis.study import read_study
from tests.analysis import quality_rows as rows
from tests.analysis.quality_rows import QUANTILE as Q

SIZES = (3000, 6000, 12_000, 24_000, 48_000, 96_000)


@pytest.fixture
def study(tmp_path, run_writer):
    folder = tmp_path / "study"
    for n in SIZES:
        run = run_writer(folder, n=n, name=f"n{n}")
        rows.append(run, rows.fd(n), rows.fd(n, scale=2.0, step=160), rows.probe(n))
        rows.append(run, *rows.randomness(n, guidances=(1.0,)))
    return folder


@pytest.fixture
def mixed(tmp_path, run_writer):
    """Two families of five sizes, each with a tokenizer and a likelihood of its own."""
    folder = tmp_path / "mixed"
    for family, scale, tokens in (("elm", 1.0, 192), ("mlm", 1.25, 64)):
        for place, n in enumerate(SIZES[:5]):
            tokenizer = {"name": f"of-{family}", "vocabulary": 32, "dims_per_image": 192,
                         "tokens_per_image": tokens}  # fmt: skip
            changes = {"family": family, "tokenizer": tokenizer, "size": f"s{place}",
                       "likelihood": "exact" if family == "elm" else "bound"}  # fmt: skip
            run = run_writer(
                folder, n=n + len(family) * (family == "mlm"), name=f"{family}-{place}",
                changes=changes, loss=scale * (1.8 + 40.0 * n**-0.4),
            )  # fmt: skip
            rows.append(run, rows.fd(n, scale=scale))
    return folder


def test_the_metric_takes_the_place_of_the_loss(study):
    table = read_runs(study, metric="fd_eurosat")
    assert (table.loss_unit, table.quantity, table.loss_word) == ("fd_eurosat",) * 3
    np.testing.assert_allclose(table.loss, [rows.truth(n) for n in SIZES])
    np.testing.assert_allclose(table.loss_se, [0.02 * rows.truth(n) / Q for n in SIZES])
    law = fit("power_floor_N", table)
    np.testing.assert_allclose([law.params[k] for k in ("E", "A", "a")], [4, 900, 0.5], rtol=1e-4)
    plain = read_runs(study)
    np.testing.assert_array_equal(table.variable("C"), plain.variable("C"))
    assert table.digest != plain.digest
    early = table.evaluations[table.evaluations["step"] == 160]
    np.testing.assert_allclose(early[table.loss_column], [2 * rows.truth(n) for n in SIZES])
    np.testing.assert_allclose(early["flops"], table.variable("C") / 2)


def test_what_is_better_higher_is_fitted_as_an_error(study):
    table = read_runs(study, metric="probe_top1")
    assert table.loss_unit == "1 - probe_top1 at the best layer"
    np.testing.assert_allclose(table.loss, [n**-0.1 for n in SIZES])
    np.testing.assert_allclose(table.loss_se, 0.01 / Q)
    last = read_runs(study, metric="probe_top1:last")
    np.testing.assert_allclose(last.loss, [n**-0.1 + 0.05 for n in SIZES])
    assert read_runs(study, metric="probe_top1:0").loss_unit == "1 - probe_top1 at layer 0"
    assert fit("power_N", table).params["a"] == pytest.approx(0.1, rel=1e-5)


def test_points_of_a_grid_are_used_only_when_they_are_asked_for(study):
    where = {"what": "randomness", "settings.sampler.temperature": "0.85"}
    table = read_runs(study, metric="fd_eurosat", where=where)
    assert set(table.runs["samples"]) == {512}
    with pytest.raises(AnalysisError, match=r"settings.sampler.temperature of fd_eurosat differs"):
        read_runs(study, metric="fd_eurosat", where={"what": "randomness"})


def test_values_measured_in_two_ways_are_refused_and_one_can_be_chosen(study):
    run = sorted(study.iterdir())[0]
    rows.append(run, rows.fd(3000, extractor={"name": "patch", "identity": "ee"}))
    with pytest.raises(AnalysisError, match=r"extractors of fd_eurosat differ: conv-s@01.*patch@"):
        read_runs(study, metric="fd_eurosat")
    table = read_runs(study, metric="fd_eurosat", where={"extractor": "conv-s@0123456789ab"})
    assert len(table) == len(SIZES)


def test_wrong_and_unusable_metrics_are_refused_in_one_line(study, capsys):
    for metric, said in {
        "fid": r"no metric 'fid' at the last step of n3000, .* n96000; there are fd_eu",
        "fd_eurosat:3": "it is not of layers",
        "probe_top1:deep": "allowed is METRIC, or METRIC:LAYER",
    }.items():
        assert main(["fit", str(study), "--metric", metric]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and re.search(said, error), error
    run = sorted(study.iterdir())[0]
    scores = [rows.value("inception_score_x", 4.2, 0.1, better="higher"),
              rows.value("kid_x", -0.001, 0.002)]  # fmt: skip
    rows.append(run, rows.row(scores, settings={"seed": 1}))
    with pytest.raises(AnalysisError, match="inception_score_x = 4.2: higher is better and it is"):
        read_runs(study, metric="inception_score_x")
    with pytest.raises(AnalysisError, match=r"kid_x = -0.001: a law is of numbers above zero"):
        read_runs(study, metric="kid_x")


def test_runs_without_the_metric_are_left_out_by_name(study, run_writer, capsys):
    rows.append(run_writer(study, n=200_000, name="half"), rows.fd(200_000, step=160))
    run_writer(study, n=300_000, name="bare")
    assert main(["fit", str(study), "--metric", "fd_eurosat", "--form", "power_floor_N"]) == 0
    text = capsys.readouterr().out
    assert "fd_eurosat at step 160 only; the last is 320" in text
    assert re.search("left out: bare .*: no fd_eurosat in quality.jsonl", text)
    assert "L is fd_eurosat; 1,024 samples; extractor conv-s@0123456789ab; reference" in text
    assert text.rstrip().endswith("--metric fd_eurosat")


def test_a_forecast_of_a_metric_names_its_unit_and_is_judged_by_the_same_measurement(
    study, run_writer, capsys
):
    frozen = str(study / "forecast.json")
    command = ["--metric", "fd_eurosat", "--json"]
    assert main(["forecast", str(study), "--n", "200000", "--freeze", frozen, *command]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["loss_fd_eurosat"] == pytest.approx(rows.truth(200_000), rel=1e-3)
    assert made["comparable"]["extractor"] == "conv-s@0123456789ab"
    run = run_writer(study, n=200_000)
    rows.append(run, rows.fd(200_000, extractor={"name": "patch", "identity": "ee"}))
    assert main(["verify", str(study), "--metric", "fd_eurosat", "--where", "N=200000"]) == 2
    assert "the forecast is for extractor conv-s@" in capsys.readouterr().err
    rows.append(run, rows.fd(200_000))
    where = ["--where", "extractor=conv-s@0123456789ab"]
    assert main(["verify", str(study), "--metric", "fd_eurosat", *where]) == 0
    assert "L = 6.0125 fd_eurosat" in capsys.readouterr().out


def test_the_report_of_a_metric_says_how_it_was_measured(study, tmp_path):
    page = tmp_path / "report.html"
    assert main(["report", str(study), "--metric", "fd_eurosat", "--out", str(page)]) == 0
    text = page.read_text()
    assert "fd_eurosat against parameters" in text and "1,024 samples; extractor conv-s@" in text
    assert "Neighbours of the ladder" not in text and "Loss against" not in text


def test_units_of_a_record(study):
    plain, bits = read_runs(study), read_runs(study, unit="bits/image")
    np.testing.assert_allclose(bits.loss, plain.loss * 192 / np.log(2))
    np.testing.assert_allclose(bits.loss_se / bits.loss, plain.loss_se / plain.loss)
    dims = read_runs(study, unit="bits/dim")
    np.testing.assert_allclose(dims.loss, plain.runs["bits_per_dim"])
    np.testing.assert_allclose(
        dims.evaluations[dims.loss_column],
        plain.evaluations["loss_nats_per_token"] / np.log(2),
    )
    with pytest.raises(AnalysisError, match="--unit 'bits/pixel': allowed are nats/token"):
        read_runs(study, unit="bits/pixel")
    with pytest.raises(AnalysisError, match="a metric has its own unit"):
        read_runs(study, unit="bits/dim", metric="fd_eurosat")


def test_a_mixed_study_names_its_groups_and_each_flag_chooses_one(mixed, capsys):
    assert main(["report", str(mixed)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "tokenizers, tokenizer settings, likelihoods" in error
    flags = re.findall(r"5 runs --where (\S+?)=(\S+?);", error)
    assert len(flags) == 2
    for column, value in flags:
        assert len(read_runs(mixed, where={column: value})) == 5
    assert main(["table", str(mixed)]) == 0
    text = capsys.readouterr().out
    assert "10 runs in 2 groups" in text and "--where family=elm: N counts blocks" in text
    assert text.splitlines()[-1] == f"next: python -m analysis report {mixed} --by family"
    assert main(["table", str(mixed), "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert sorted(len(group["runs"]) for group in groups) == [5, 5]


def test_groups_that_one_column_cannot_tell_get_two_flags(tmp_path, run_writer):
    folder, made = tmp_path / "study", 0
    for family in ("elm", "mlm"):
        for tokenizer in ("pixels", "codes"):
            made += 1
            about = {"name": tokenizer, "tokens_per_image": 192}
            run_writer(folder, n=3000 + made, changes={"family": family, "tokenizer": about})
    with pytest.raises(AnalysisError) as error:
        read_runs(folder)
    flags = r"1 run --where family=(\w+) --where tokenizer=(\w+)"
    assert len(set(re.findall(flags, str(error.value)))) == 4


def test_laws_of_families_in_one_unit(mixed):
    found = families(read_study(mixed, unit="bits/image"), ["family"])
    assert [law.label for law in found.laws] == ["elm", "mlm (bound)"]
    for law, scale in zip(found.laws, (1.0, 1.25), strict=True):
        assert law.fitted is not None
        # bits an image of the record, which the writer counts at 192 tokens for all
        assert law.fitted.params["E"] == pytest.approx(scale * 1.8 * 192 / np.log(2), rel=1e-2)
        assert law.fitted.params["a"] == pytest.approx(0.4, rel=2e-2)
    assert "tokenizers differ (of-elm, of-mlm)" in found.notes[0]
    assert found.notes[1].endswith("mlm")


def test_the_figure_of_families_has_a_curve_and_dots_each(mixed, tmp_path, capsys):
    from analysis.figures_families import laws

    found = families(read_study(mixed, unit="bits/image"), ["family"])
    (axes,) = laws(found).axes
    assert len(axes.collections) >= 2
    dots = [line for line in axes.lines if line.get_marker() in ("o", "s")]
    np.testing.assert_allclose(
        dots[0].get_xydata()[:, 1], found.laws[0].runs["loss_bits_per_image"]
    )
    out = tmp_path / "families.svg"
    assert main(["compare", str(mixed), "--by", "family", "--plot", str(out)]) == 0
    assert out.read_text().startswith("<svg") and ">mlm (bound)</text>" in out.read_text()
    assert "note: some losses are bounds" in capsys.readouterr().out


def test_the_report_of_families_is_one_page(mixed, run_writer, tmp_path):
    end = {"kind": "end", "status": "diverged", "reason": "NaN"}
    run_writer(mixed, n=7000, name="burnt", end=end)
    out = tmp_path / "families.html"
    assert main(["report", str(mixed), "--by", "family", "--out", str(out)]) == 0
    text = out.read_text()
    assert text.count("<svg") == 1 and "loss (bits/image)" in text
    assert text.count("/record.jsonl") == 10 and "diverged: NaN" in text
    assert "nats of codes are a rate" in text and text.count(">converged</td>") == 2


def test_families_of_a_metric_share_extractor_and_reference(mixed, run_writer):
    found = families(read_study(mixed, metric="fd_eurosat"), ["family"])
    assert [law.label for law in found.laws] == ["elm", "mlm"]
    assert found.laws[1].fitted.params["E"] == pytest.approx(1.25 * 4.0, rel=0.05)
    run = next(
        run for run in sorted(mixed.iterdir()) if "mlm" in (run / "record.jsonl").read_text()
    )
    (run / "quality.jsonl").write_text("")
    rows.append(run, rows.fd(3000, extractor={"name": "patch", "identity": "ee"}))
    with pytest.raises(AnalysisError, match="extractors differ: conv-s@.*patch@ee"):
        families(read_study(mixed, metric="fd_eurosat"), ["family"])


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--by", "colour"], "--by 'colour': allowed are identity, name"),
        (["--by", "family", "--unit", "nats/token"], "a token is another thing in every family"),
        (["--by", "family", "--n", "1e6"], "--n: not with --by"),
        (["--by", "family", "--form", "separable"], "laws of families are of one variable"),
    ],
)
def test_wrong_families_are_refused(mixed, flags, said, capsys):
    assert main(["compare", str(mixed), *flags]) == 2
    assert said in capsys.readouterr().err


def test_losses_of_other_images_do_not_share_a_plot(mixed, run_writer):
    tokenizer = {"name": "big", "dims_per_image": 768, "tokens_per_image": 192}
    run_writer(mixed, n=5000, changes={"family": "dit", "tokenizer": tokenizer})
    with pytest.raises(AnalysisError, match="dimensions of an image differ: 192.*768"):
        families(read_study(mixed, unit="bits/image"), ["family"])
