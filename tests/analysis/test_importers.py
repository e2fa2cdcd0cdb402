"""Exports of W&B, TensorBoard and plain CSV: the right numbers, and one line for each fault."""

import argparse
import json
import math

import numpy as np
import pandas as pd
import pytest

from analysis.columns import parse_columns
from analysis.errors import AnalysisError
from analysis.importers import add_arguments, import_runs, run_import
from analysis.run_table import read_table, write_table
from analysis.table import read_runs

MAP = "loss=val/loss:nats/token,N=params:million,D=_step:6144/step,C=6ND"
WANDB = (
    '"Name","State","Notes","ID","params","_step","val/loss"\n'
    '"base, small","finished","","a1","1.5","320","2.5"\n'
    '"big","finished","","a2","6","640","2.25"\n'
    '"broken","crashed","","a3","3","","2.4"\n'
    '"burnt","finished","","a4","3","320","NaN"\n'
    '"blank","finished","","a5","3","320",""\n'
)


def write(path, text):
    path.write_text(text)
    return path


def imported(tmp_path, text, columns, *, kind="csv", name="runs.csv", **options):
    return import_runs(write(tmp_path / name, text), kind=kind, columns=columns, **options)


def test_a_wandb_export_gives_counts_losses_identities_and_the_runs_left_out(tmp_path):
    table = imported(tmp_path, WANDB, MAP, kind="wandb", convention="blocks")
    assert list(table.runs["name"]) == ["base, small", "big"]
    assert list(table.runs["identity"]) == ["a1", "a2"]
    np.testing.assert_array_equal(table.variable("N"), [1.5e6, 6e6])
    np.testing.assert_array_equal(table.variable("D"), [320 * 6144, 640 * 6144])
    np.testing.assert_allclose(
        table.variable("C"), [6 * 1.5e6 * 320 * 6144, 6 * 6e6 * 640 * 6144], rtol=1e-15
    )
    np.testing.assert_array_equal(table.loss, [2.5, 2.25])
    assert [place.rpartition("/")[2] for place in table.runs["source"]] == [
        "runs.csv:2",
        "runs.csv:3",
    ]
    assert (table.convention, table.loss_unit) == ("blocks", "nats/token")
    said = [str(run).replace(str(tmp_path) + "/", "") for run in table.left_out]
    assert said == [
        "broken (a3): runs.csv:4: State is crashed, not finished",
        "burnt (a4): runs.csv:5: loss is NaN (column val/loss)",
        "blank (a5): runs.csv:6: loss is empty (column val/loss)",
    ]


def test_json_lines_of_run_summaries(tmp_path):
    runs = [
        {"name": "a", "id": "1", "state": "finished", "config": {"n": {"desc": None, "value": 2}}},
        {"name": "b", "id": "2", "state": "running", "config": {"n": {"desc": None, "value": 4}}},
    ]
    runs[0]["summary"] = {"val": {"loss": 2.5}, "tokens": 3.0}
    text = "".join(json.dumps(run) + "\n" for run in runs)
    columns = "loss=summary.val.loss:bits/token,N=config.n:billion,D=summary.tokens:trillion"
    table = imported(tmp_path, text, columns, kind="wandb", name="runs.jsonl")
    assert (table.variable("N")[0], table.variable("D")[0]) == (2e9, 3e12)
    assert table.loss[0] == pytest.approx(2.5 * math.log(2), rel=1e-15)
    assert [run.reason.rpartition(": ")[2] for run in table.left_out] == [
        "state is running, not finished"
    ]


PANEL = (
    '"Step","big - val/loss","big - val/loss__MIN","big - val/loss__MAX","small - val/loss"\n'
    '"100","3.0","3.0","3.0","3.5"\n'
    '"150","","","","NaN"\n'
    '"200","2.5","2.5","2.5","3.25"\n'
    '"300","2.25","2.25","2.25",""\n'
)
RUNS = (
    '"Name","State","n"\n"small","finished","10"\n"big","finished","20"\n"late","finished","30"\n'
)


def test_a_wandb_panel_gives_final_losses_and_curves(tmp_path):
    runs = write(tmp_path / "all.csv", RUNS)
    columns = "loss=val/loss:nats/token,N=n:million,D=Step:1e3/step,C=6ND"
    table = imported(tmp_path, PANEL, columns, kind="wandb", runs=runs)
    assert list(table.runs["name"]) == ["small", "big"]
    np.testing.assert_array_equal(table.loss, [3.25, 2.25])
    np.testing.assert_array_equal(table.variable("D"), [2e5, 3e5])
    curve = table.evaluations[table.evaluations["name"] == "big"]
    np.testing.assert_array_equal(curve["tokens"], [1e5, 2e5, 3e5])
    np.testing.assert_array_equal(curve["loss_nats_per_token"], [3.0, 2.5, 2.25])
    np.testing.assert_allclose(curve["flops"], 6 * 2e7 * curve["tokens"])
    said = "\n".join(map(str, table.left_out))
    assert "small at Step 150, this evaluation only" in said
    assert "late (late): " in said and "loss is empty" in said


def test_tensorboard_csv_and_json(tmp_path):
    runs = write(tmp_path / "all.csv", "run,n\na,1\nb,4\nc,9\n")
    files = [
        write(
            tmp_path / "run-a-tag-loss.csv",
            "Wall time,Step,Value\n1700000000.1,10,3.5\n1700000009,20,3.0\n",
        ),
        write(tmp_path / "b.json", "[[1700000000.5, 10, 3.25], [1700000001.5, 30, 2.75]]"),
        write(tmp_path / "c.json", "[[1700000000.5, 10, 3.25], [1700000001.5, 30, NaN]]"),
    ]
    columns = "loss=Value:nats/token,N=n:thousand,D=Step:256/image,name=run"
    table = import_runs(files, kind="tensorboard", columns=columns, runs=runs)
    assert list(table.runs["name"]) == ["a", "b"]
    np.testing.assert_array_equal(table.variable("N"), [1e3, 4e3])
    np.testing.assert_array_equal(table.variable("D"), [20 * 256, 30 * 256])
    np.testing.assert_array_equal(table.loss, [3.0, 2.75])
    assert len(table.evaluations) == 4
    assert "loss is NaN" in str(table.left_out[0])


def test_units_against_arithmetic(tmp_path):
    def one(loss, unit):
        return imported(tmp_path, f"y\n{loss}\n", f"loss=y:{unit}")

    assert one(8.0, "perplexity").loss[0] == pytest.approx(3 * math.log(2), rel=1e-15)
    assert one(0.5, "nats/dim").loss[0] == pytest.approx(0.5 / math.log(2), rel=1e-15)
    assert one(0.5, "nats/dim").loss_unit == "bits/dim"
    assert one(100.0, "bits/image").loss[0] == pytest.approx(100 * math.log(2), rel=1e-15)
    table = imported(tmp_path, "y,c\n2,3\n", "loss=y:nats/token,C=c:petaflop/s-days")
    assert table.variable("C")[0] == pytest.approx(3 * 1e15 * 24 * 3600)


def test_headers_with_commas_and_colons(tmp_path):
    text = '"loss, smoothed: 0.6","n"\n2.5,7\n'
    table = imported(tmp_path, text, "loss=loss, smoothed: 0.6:nats/token,N=n:count")
    assert (table.loss[0], table.variable("N")[0]) == (2.5, 7.0)


def test_where_keeps_rows_and_names_without_identity_are_hashes_of_the_numbers(tmp_path):
    text = "y,n,lr\n2.5,7,0.1\n2.4,7,0.2\n2.2,9,0.1\n"
    columns = "loss=y:nats/token,N=n:count"
    table = imported(tmp_path, text, columns, where={"lr": "0.1"})
    np.testing.assert_array_equal(table.loss, [2.5, 2.2])
    again = imported(tmp_path, "y,n,lr\n2.2,9,0.1\n", columns)
    assert again.runs["identity"][0] == table.runs["identity"][1]
    assert table.runs["identity"].is_unique


SIMPLE = "loss=y:nats/token,N=n:count"


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("y,n\n2,7\n", "loss=z:nats/token", r"runs.csv: no column 'z'; there are y, n"),
        ("y,n\n2,7\n", "loss=y", r"no unit; allowed is loss=HEADER:UNIT"),
        ("y,n\n2,7\n", "loss=y:nats", r"unit of the loss 'nats'; allowed are nats/token"),
        ("y,n\n2,7\n", "loss=y:nats/token,N=n:parsec", r"unit of N 'parsec'; allowed are count"),
        ("y,n\n2,7\n", "loss=y:nats/token,N=n:7/step", r"unit of N '7/step'"),
        ("y,n\n2,7\n", "loss=y:nats/token,D=n:0/step", r"unit of D '0/step'; .* such as 6144/step"),
        ("y,n\n2,7\n", "N=n:count", r"columns name no loss"),
        ("y,n\n2,7\n", "loss=y:nats/token,loss=n:nats/token", r"loss is given twice"),
        ("y,n\n2,7\n", "loss=y:nats/token,loss_se=n:bits/token", r"loss_se in 'bits/token'"),
        ("y,n\n2,7\n", "loss=y:nats/token,C=6ND", r"C=6ND needs N and D"),
        ("y,n\n2,7\n", "width=n:count", r"KEY one of N, D, C"),
        ("y,n\n2,7\n3,1.3B\n", SIMPLE, r"runs.csv:3: N = '1.3B' \(column n\) is not a number"),
        ("y,n\n2,7\n3,\n", SIMPLE, r"runs.csv:3: N is empty \(column n\)"),
        ("y,n\n2,-7\n", SIMPLE, r"runs.csv:2: N is '-7' \(column n\); allowed .* above zero"),
        ("y,n\n2,inf\n", SIMPLE, r"runs.csv:2: N is 'inf'"),
        ("y,n\n0,7\n", SIMPLE, r"runs.csv:2: loss is '0'"),
        ("y,n\n2,7\n2,7\n", SIMPLE, r"runs.csv:3: run 'row-\w+' is already at .*runs.csv:2$"),
        ("y,n\nnan,7\n", SIMPLE, r"no finished run; left out: .*loss is nan"),
        ("y,n\n2\n", SIMPLE, r"runs.csv:2: 1 cells; the header has 2"),
        ("y,y\n2,7\n", SIMPLE, r"column 'y' is there 2 times"),
        ("", SIMPLE, r"runs.csv: empty"),
        ("y,n\n", SIMPLE, r"runs.csv: no rows"),
        (
            "y,n,m\n2,7,x\n3,8,x\n",
            SIMPLE + ",name=m",
            r"runs.csv:3: run 'x' is already at .*; map identity=COLUMN where names repeat",
        ),
        (
            "y,n,u\n2,7,nats/token\n3,8,bits/dim\n",
            SIMPLE + ",unit=u",
            r"runs.csv:3: unit of the loss 'bits/dim' \(column u\), but the columns say",
        ),
        (
            "y,n,e\n2,7,-1\n",
            SIMPLE + ",loss_se=e:nats/token",
            r"runs.csv:2: loss_se is '-1' \(column e\)",
        ),
    ],
)
def test_refusals_are_one_line_with_file_row_and_value(tmp_path, text, columns, message):
    with pytest.raises(AnalysisError, match=message) as caught:
        imported(tmp_path, text, columns)
    assert "\n" not in str(caught.value)


def test_refusals_of_curves(tmp_path):
    columns = "loss=Value:nats/token,N=n:count,D=Step:10/step,name=run"
    good = write(tmp_path / "a.csv", "Wall time,Step,Value\n1,10,3.5\n")
    back = write(tmp_path / "b.csv", "Wall time,Step,Value\n1,10,3.5\n2,10,3\n")
    twin = write(tmp_path / "run-a-tag-acc.csv", "Wall time,Step,Value\n1,10,0.5\n")
    other = write(tmp_path / "o.csv", "step,loss\n1,2\n")
    broken = write(tmp_path / "c.json", "[[1, 2]]")
    runs = write(tmp_path / "runs.csv", "run,n\na,1\nb,2\n")
    double = write(tmp_path / "double.csv", "run,n\na,1\na,2\n")
    for files, facts, message in (
        ([back], runs, r"b.csv:3: Step 10 after 10: the steps of one run must rise"),
        ([good, twin], runs, r"tag-acc.csv: run 'a' is also in .*a.csv"),
        ([other], runs, r"o.csv: columns step, loss; a TensorBoard export has Wall time"),
        ([broken], runs, r"entry 0 is \[1, 2\], not \[wall time, step, value\]"),
        ([good], double, r"double.csv:3: run 'a' is already at .*double.csv:2"),
        ([good], None, r"no column 'n'; there are Wall time, Step, Value"),
    ):
        with pytest.raises(AnalysisError, match=message):
            import_runs(files, kind="tensorboard", columns=columns, runs=facts)
    only_b = write(tmp_path / "only_b.csv", "run,n\nb,2\n")
    with pytest.raises(AnalysisError, match=r"only_b.csv: no run 'a', which is in"):
        import_runs([good], kind="tensorboard", columns=columns, runs=only_b)
    with pytest.raises(AnalysisError, match="kind 'mlflow': allowed are csv, wandb, tensorboard"):
        import_runs([good], kind="mlflow", columns=columns)


def test_columns_from_a_mapping_equal_those_from_text():
    text = parse_columns(["loss=a:nats/token", "N=b:million,status=State:done,C=6ND,D=t:count"])
    pairs = {"loss": ("a", "nats/token"), "N": ("b", "million"), "D": ("t", "count")}
    assert parse_columns(pairs | {"status": ("State", "done"), "C": ("", "6ND")}) == text


def test_a_written_table_reads_back_the_same(tmp_path):
    runs = write(tmp_path / "all.csv", RUNS)
    columns = "loss=val/loss:bits/token,N=n:million,D=Step:1e3/step,C=6ND"
    table = imported(tmp_path, PANEL, columns, kind="wandb", runs=runs, convention="total")
    path = write_table(table, tmp_path / "out" / "table.csv")
    again = read_table(path)
    assert again.digest == table.digest
    assert (again.convention, again.loss_unit, again.left_out) == (
        table.convention,
        table.loss_unit,
        table.left_out,
    )
    pd.testing.assert_frame_equal(again.runs, table.runs)
    pd.testing.assert_frame_equal(again.evaluations, table.evaluations, check_dtype=False)
    kept = read_table(path, where={"name": "big"})
    assert list(kept.runs["name"]) == ["big"] == list(set(kept.evaluations["name"]))
    assert write_table(table, path) == path  # our own file may be written again


def test_a_table_of_run_directories_can_be_written_too(ladder, tmp_path):
    table = read_runs(ladder)
    again = read_table(write_table(table, tmp_path / "ladder.csv"), convention="blocks")
    assert again.digest == table.digest
    assert again.runs["seed"].dtype == table.runs["seed"].dtype
    assert again.runs["source"][0].endswith("record.jsonl")
    with pytest.raises(AnalysisError, match="N counts 'blocks', not 'total'"):
        read_table(tmp_path / "ladder.csv", convention="total")


def test_damaged_tables_are_refused_by_line(tmp_path):
    table = imported(tmp_path, "y,n,m\n2,7,x\n3,8,z\n", SIMPLE + ",name=m")
    path = write_table(table, tmp_path / "t.csv")
    text = path.read_text()
    raw = write(tmp_path / "raw.csv", "y,n\n2,7\n")
    with pytest.raises(AnalysisError, match="raw.csv: is there and is not a table"):
        write_table(table, raw)
    for changed, message in (
        ("y,n\n2,7\n", r"t.csv: not a table with units; make one: python -m analysis import"),
        (text.replace(",7.0,", ",-7.0,"), r"t.csv:3: N is -7.0; allowed are numbers above zero"),
        (text.replace(",7.0,", ",seven,"), r"t.csv:3: N = 'seven' is not a number"),
        (text + text.splitlines()[-1] + "\n", r"t.csv:5: run 'z' is already at .*t.csv:4"),
        (text + text, r"t.csv:5: \d+ cells; the header has"),
        (
            text.replace('"N": "count"', '"N": "million"'),
            r":1: unit of N 'million'; allowed is count",
        ),
        (text.replace('"held": {}', '"held": 3'), r"line 1 is damaged"),
        (text.replace("analysis.table/1", "analysis.table/12", 1), r"schema is not"),
        (text.replace("N,", "M,", 1).replace("\nidentity,name,N", "\nidentity,name,M"), r"line 1"),
    ):
        assert changed != text
        path.write_text(changed)
        with pytest.raises(AnalysisError, match=message) as caught:
            read_table(path)
        assert "\n" not in str(caught.value)


def test_curves_must_be_those_written_with_the_table(tmp_path):
    runs = write(tmp_path / "all.csv", RUNS)
    columns = "loss=val/loss:nats/token,N=n:million,D=Step:1e3/step"
    table = imported(tmp_path, PANEL, columns, kind="wandb", runs=runs)
    path = write_table(table, tmp_path / "t.csv")
    curves = tmp_path / "t.evaluations.csv"
    curves.write_text(curves.read_text().replace("2.25", "2.20"))
    with pytest.raises(AnalysisError, match="not the file that was written with"):
        read_table(path)
    curves.unlink()
    with pytest.raises(AnalysisError, match="t.evaluations.csv: missing"):
        read_table(path)


def test_the_command_writes_a_table_and_names_what_it_left_out(tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    export = str(write(tmp_path / "runs.csv", WANDB))
    out = str(tmp_path / "table.csv")
    first, second = MAP.split(",", 1)
    words = [export, "--kind", "wandb", "--columns", first, "--columns", second, "--output", out]
    said = []
    run_import(parser.parse_args(words), said.append)
    assert said[0] == f"wrote {out}: 2 runs, losses in nats/token"
    assert [line for line in said if line.startswith("left out: broken (a3): ")]
    assert said[-1] == f"next: python -m analysis fit {out}"
    run_import(parser.parse_args([*words, "--json"]), said.append)
    shown = json.loads(said[-1])
    assert shown["table_sha256"] == read_table(out).digest
    assert [run["name"] for run in shown["left_out"]] == ["broken", "burnt", "blank"]
    with pytest.raises(AnalysisError, match="--where 'State': allowed is HEADER=VALUE"):
        run_import(parser.parse_args([*words, "--where", "State"]), said.append)


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_is_an_analysis_error_or_a_table(tmp_path, seed):
    """No other exception leaves the reader, whatever a cell says."""
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(60):
        text = list(WANDB)
        for _ in range(3):
            text[rng.integers(len(text))] = str(rng.choice(list('",\n\x00-e9N\r:')))
        try:
            table = imported(tmp_path, "".join(text), MAP, kind="wandb")
            assert (table.loss > 0).all() and (table.variable("C") > 0).all()
        except AnalysisError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 10
