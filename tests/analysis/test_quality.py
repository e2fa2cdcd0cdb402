"""quality.jsonl is read as it is written; columns never mix; the best setting knows its rivals."""

import json
import re
import shutil

import numpy as np
import pytest

from analysis import AnalysisError
from analysis.__main__ import main
from analysis.figures_quality import MOST_NAMED, drawn, write_figures
from analysis.quality import read_quality
from analysis.quality_best import best_of
from analysis.quality_table import (
    by_settings,
    columns_of,
    headline,
    read_evaluated,
    shown_settings,
)
from tests.analysis import quality_rows as rows

SIZES = (3000, 6000, 12_000, 24_000, 48_000)


@pytest.fixture
def study(tmp_path, run_writer):
    """Five sizes with distances, probes, attention and a grid of settings each."""
    folder = tmp_path / "study"
    for n in SIZES:
        run = run_writer(folder, n=n)
        rows.append(run, rows.fd(n), rows.fd(n, scale=2.0, step=160), rows.probe(n))
        rows.append(run, rows.attention(n), *rows.randomness(n))
    return folder


def run_of(study):
    return sorted(study.iterdir())[0]


def test_values_are_those_of_the_file(study):
    task, *_ = read_quality(run_of(study))
    assert (task.what, task.step, task.weights) == ("fd", 320, "raw")
    assert task.extractor_name == "conv-s@0123456789ab"
    assert task.reference_name == "eurosat train 4,096 images@ba9876543210"
    (final,) = [v for v in task.values if (v.metric, v.samples) == ("fd_eurosat", 1024)]
    half = 0.02 * rows.truth(3000)
    assert final.value == rows.truth(3000)
    assert final.se == pytest.approx(half / rows.QUANTILE)  # Student's, as it was made


def test_no_standard_error_is_read_from_an_interval_that_does_not_say_its_quantile(tmp_path):
    before = {
        name: one for name, one in rows.value("kid_x", 1.0, 0.1).items() if name != "quantile"
    }
    values = [before, rows.value("recall_x", 0.5, 0.1, quantile=None),
              rows.value("exact_x", 2.0, 0.0, quantile=None)]  # fmt: skip
    rows.append(tmp_path, rows.row(values))
    (task,) = read_quality(tmp_path)
    assert [str(value.se) for value in task.values] == ["nan", "nan", "0.0"]
    assert task.values[0].high == 1.1 and {value.penalty_at_edge for value in task.values} == {None}


def test_half_a_line_is_dropped_and_other_damage_is_refused(study):
    path = run_of(study) / "quality.jsonl"
    known = read_quality(path.parent)
    with path.open("a") as file:
        file.write('{"schema": "lab.quality/1", "key": "00')
    assert read_quality(path.parent) == known
    with path.open("a") as file:
        file.write("\n")
    with pytest.raises(AnalysisError, match=rf"quality.jsonl:{len(known) + 1}: not JSON"):
        read_quality(path.parent)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"schema": "lab.quality/2"}, r":1: schema 'lab.quality/2'; this reader knows"),
        ({"step": "320"}, ":1: step = '320' is not a whole number"),
        ({"values": None}, ":1: values is not a list"),
        ({"values": [rows.value("fd_x", 1.0, 0.1) | {"value": "many"}]}, "value = 'many' is not"),
        ({"values": [rows.value("fd_x", 1.0, 0.1, level=90)]}, "level = 90.0; allowed is between"),
        ({"values": [rows.value("fd_x", 1.0, 0.1, better="more")]}, "better = 'more'; allowed"),
        ({"values": [rows.value("fd_x", 1.0, 0.1, quantile=0)]}, "quantile = 0.0; allowed is abov"),
        ({"values": [rows.value("x", 1, 0.1, penalty_at_edge=1)]}, "penalty_at_edge = 1; allowed"),
        ({"extractor": "conv"}, "extractor = 'conv' is not an object"),
    ],
)
def test_a_row_of_another_kind_is_refused_with_its_line(tmp_path, change, said):
    rows.append(tmp_path, rows.keyed(rows.fd(3000) | change))
    with pytest.raises(AnalysisError, match=said):
        read_quality(tmp_path)


def test_one_key_with_two_values_is_refused(tmp_path):
    first = rows.fd(3000)
    rows.append(tmp_path, first, first)
    assert len(read_quality(tmp_path)) == 1
    rows.append(tmp_path, rows.fd(6000))
    with pytest.raises(AnalysisError, match=f":3: key {first['key']} is there twice"):
        read_quality(tmp_path)


def test_an_edited_line_does_not_have_its_key(tmp_path):
    rows.append(tmp_path, rows.fd(3000) | {"weights": "ema"})
    with pytest.raises(AnalysisError, match=r":1: its fields give the key \w{12}, it says \w{12}"):
        read_quality(tmp_path)


def test_lab_and_analysis_agree_about_the_file(tmp_path):
    from lab.core.quality import append_quality
    from lab.core.quality import read_quality as read_as_lab

    row = rows.fd(3000)
    row["values"][0]["low"] = float("nan")
    append_quality(tmp_path, row)
    (written,), (task,) = read_as_lab(tmp_path), read_quality(tmp_path)
    assert (task.key, task.what, dict(task.settings)) == (
        written["key"], "fd", written["settings"],
    )  # fmt: skip
    assert np.isnan(task.values[0].low) and task.values[1].low == written["values"][1]["low"]
    assert len(task.values) == len(written["values"])


def test_columns_hold_one_extractor_reference_and_number_of_samples(study):
    run = run_of(study)
    other = rows.REFERENCE | {"identity": "cccccccccccc"}
    rows.append(run, rows.fd(3000, scale=1.1, reference=other))
    rows.append(run, rows.fd(3000, scale=1.2, extractor=rows.EXTRACTOR | {"identity": "dd"}))
    rows.append(run, rows.fd(3000, scale=1.3, weights="ema"))
    found = [
        column for column in columns_of(headline(read_evaluated([study]).values))
        if column.metric == "fd_eurosat"
    ]  # fmt: skip
    assert len(found) == 5  # three that were added, the first, and the grid of 512 samples
    for column in found:
        for name in ("extractor", "reference", "samples", "level", "weights"):
            assert column.rows[name].nunique() == 1
            assert str(column.same[name])[:5].replace("1024", "1,024") in column.title or (
                name == "level"
            )
    (grid,) = [column for column in found if column.same["what"] == "randomness"]
    assert grid.varied == ("settings.sampler.temperature", "settings.sampler.guidance")
    pieces = by_settings(grid)
    assert len(pieces) == 8 and all(len(piece.rows) == len(SIZES) for piece in pieces)


def test_a_setting_that_a_family_does_not_have_does_not_cut_the_column(study, run_writer):
    sampler = rows.SETTINGS["sampler"] | {"rounds": 12}
    run = run_writer(study, n=5000, changes={"family": "mlm"})
    rows.append(run, rows.fd(5000, settings=rows.SETTINGS | {"sampler": sampler}))
    values = headline(read_evaluated([study], where={"what": "fd"}).values)
    (column,) = [one for one in columns_of(values) if one.metric == "fd_eurosat"]
    assert set(column.rows["family"]) == {"elm", "mlm"} and column.varied == ()
    assert "rounds 12 (mlm)" in shown_settings(column)
    other = sampler | {"temperature": 0.5}
    rows.append(run, rows.fd(5000, settings=rows.SETTINGS | {"sampler": other}))
    values = headline(read_evaluated([study], where={"what": "fd"}).values)
    (column,) = [one for one in columns_of(values) if one.metric == "fd_eurosat"]
    assert column.varied == ("settings.sampler.temperature",) and len(by_settings(column)) == 2


def test_a_setting_that_older_tasks_of_a_run_do_not_state_cuts_the_column(study):
    """Else a run would stand twice in one column, and nothing would say why."""
    newer = {"probe": "ridge", "seed": 0, "penalties": "10 to 1e-07"}
    rows.append(run_of(study), rows.probe(3000) | {"settings": newer})
    with pytest.raises(AnalysisError, match="its fields give the key"):
        read_evaluated([study])  # the key is of the settings too
    (run_of(study) / "quality.jsonl").write_text("")
    old = rows.probe(3000)
    rows.append(run_of(study), old, rows.keyed(old | {"settings": newer}))
    (column,) = columns_of(headline(read_evaluated([study], metric="probe_top1").values))
    assert column.varied == ("settings.penalties",)
    assert sorted(len(piece.rows) for piece in by_settings(column)) == [5, 5 * len(SIZES)]


def test_the_headline_is_of_the_most_samples_and_never_of_real_images(study):
    kept = headline(read_evaluated([study], where={"what": "fd"}).values)
    assert set(kept["samples"]) == {1024}
    assert not kept["metric"].str.endswith("_real").any()


def test_the_table_names_the_conditions_and_what_was_not_measured(study, run_writer, capsys):
    run_writer(study, n=999, name="bare")
    run_writer(study, n=998, name="coder", changes={"family": "tokenizer", "units": {"loss": "L1"}})
    assert main(["quality", str(study), "--metric", "fd_eurosat"]) == 0
    text = capsys.readouterr().out
    assert "1,024 samples; extractor conv-s@0123456789ab; reference eurosat train" in text
    assert "20.43" in text and "[ 20.02, 20.84 ]" in text and "1.5 [ 1.4, 1.6 ]" in text
    assert "without quality.jsonl: bare" in text
    assert "left out: coder" in text and "a tokenizer's run, its loss is in L1" in text
    assert f"next: python -m analysis fit {study} --metric fd_eurosat" in text
    assert "probe_top1" not in text


def test_every_run_has_its_row_of_layers(study, capsys):
    """Tasks of one key, for a key says nothing of the run."""
    assert main(["quality", str(study)]) == 0
    text = capsys.readouterr().out
    table = text[text.index("\nattention_distance_cells") :].partition("\nattention_entropy")[0]
    records = [(run / "record.jsonl").read_text().splitlines()[0] for run in study.iterdir()]
    names = [json.loads(record)["name"] for record in records]
    assert len(names) == len(SIZES)
    assert all(re.search(rf"^ ?{re.escape(name)} ", table, re.M) for name in names)


def test_penalties_at_the_edge_are_counted(study, capsys):
    assert main(["quality", str(study)]) == 0
    text = capsys.readouterr().out
    table = text[text.index("\nprobe_top1") :].partition("\nattention")[0]
    assert "penalty at the edge" in table and table.count("1 of 5") == len(SIZES)
    assert text.count("penalty at the edge") == 1
    assert main(["quality", str(study), "--metric", "probe_top1"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert sum(line.endswith("yes") for line in lines) == len(SIZES)
    assert sum(line.endswith("no") for line in lines) == 4 * len(SIZES)


def test_the_kernel_distance_is_drawn_against_samples_where_there_are_several(study):
    run = run_of(study)
    values = [
        rows.value("kid_eurosat", 0.02, 0.05 / count**0.5, samples=count)
        for count in (128, 256, 512, 1024)
    ]
    rows.append(run, rows.row(values, settings=rows.SETTINGS | {"kid_counts": [128, 256, 512]}))
    found = read_evaluated([study], metric="kid_eurosat")
    made = {name: figure for name, figure, _ in drawn(found)}
    (axes,) = made["kid_eurosat-samples"].axes
    curves = [line for line in axes.lines if len(line.get_xdata()) == 4]
    np.testing.assert_allclose(np.asarray(curves[0].get_ydata(), float), 0.02)


def test_curves_of_more_runs_than_a_legend_holds_are_named_by_family(tmp_path, run_writer):
    for place in range(MOST_NAMED + 1):
        family = "elm" if place % 2 else "mlm"
        run = run_writer(tmp_path / "study", n=3000 + place, changes={"family": family})
        rows.append(run, rows.fd(3000 + place))
    found = read_evaluated([tmp_path / "study"], metric="fd_eurosat")
    made = {name: figure for name, figure, _ in drawn(found)}
    (axes,) = made["fd_eurosat-samples"].axes
    names = axes.get_legend_handles_labels()[1]
    assert sorted(names) == ["elm", "mlm", "real images"]


def test_json_has_every_value(study, capsys):
    assert main(["quality", str(study), "--json", "--metric", "probe_top1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["values"]) == 5 * len(SIZES)
    assert {row["layer"] for row in found["values"]} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--metric", "fid"], "no 'fid' in 5 runs; there are attention_distance_cells, .*fd_euro"),
        (["--where", "samples=7"], "no run with samples = 7; there are 1024"),
        (["--where", "colour=red"], "where 'colour': allowed are run, identity, family"),
        (["--convention", "body"], "convention 'body': allowed are blocks"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(study, flags, said, capsys):
    assert main(["quality", str(study), *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error), error


def test_a_study_without_files_says_how_to_make_them(ladder, capsys):
    assert main(["quality", str(ladder)]) == 2
    assert "7 finished runs, none with values in a quality.jsonl; make them: python -m" in (
        capsys.readouterr().err
    )


def grid_of(values, half):
    import pandas as pd

    made = [
        {"value": v, "low": v - half, "high": v + half, "level": 0.9,
         "better": "lower", "run": "ladder", "family": "elm", "N": 3000,
         "settings.temperature": str(index)}
        for index, v in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(made)


def test_the_best_setting_is_told_from_those_beyond_the_interval_of_the_difference():
    # half intervals of 1: two differ beyond their noise from sqrt(2) on
    best = best_of(grid_of([12.0, 10.0, 11.40, 11.43], 1.0))
    assert best.row["value"] == 10.0
    assert list(best.rivals["value"]) == [11.40]
    said = best.sentence(("settings.temperature",))
    assert said.endswith("at temperature 1, not told from 1 of 3: temperature 2")
    alone = best_of(grid_of([12.0, 10.0, 11.40], 0.1))
    assert "told from all 2 others" in alone.sentence(("settings.temperature",))
    upward = best_of(grid_of([0.5, 0.7, 0.6], 0.01).assign(better="higher"))
    assert upward.row["value"] == 0.7


def test_figures_show_the_numbers(study):
    found = read_evaluated([study])
    figures = {name: figure for name, figure, _ in drawn(found)}
    assert {
        "fd_eurosat-samples", "fd_eurosat-size", "kid_eurosat-size", "fd_eurosat-temperature",
        "fd_eurosat-guidance", "probe_top1-layers", "attention_distance_cells-layers",
    } <= set(figures)  # fmt: skip
    left, right = figures["fd_eurosat-size"].axes
    (dots,) = [line for line in left.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots.get_xydata(), [(n, rows.truth(n)) for n in SIZES])
    earlier = [line for line in right.lines if line.get_marker() == "None" and line.get_alpha()]
    assert len(earlier) == len(SIZES)
    (axes,) = figures["fd_eurosat-samples"].axes
    curve = axes.lines[0]
    np.testing.assert_array_equal(curve.get_xdata(), [128, 256, 512, 1024])
    panel = figures["attention_distance_cells-layers"].axes[0]
    heads = [line for line in panel.lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in heads] == [4, 4, 4, 4]
    (probe,) = figures["probe_top1-layers"].axes
    assert len(probe.collections) == len(SIZES)  # a band each


def test_files_are_the_same_each_time_and_have_captions(study, tmp_path):
    for run in sorted(study.iterdir())[2:]:
        shutil.rmtree(run)
    names = []
    for folder in ("a", "b"):
        found = read_evaluated([study], metric="fd_eurosat")
        names.append([path.name for path, _ in write_figures(found, tmp_path / folder)])
    assert names[0] == names[1] and len(names[0]) == 4
    for name in (*names[0], "captions.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    captions = (tmp_path / "a" / "captions.md").read_text()
    assert captions.count("extractor conv-s@0123456789ab") == 4
    assert "told from all 7 others" in captions
