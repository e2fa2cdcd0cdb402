"""Run directories become a table, and what cannot be compared is refused by name."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, from_frame, neighbours, paired, read_csv, read_runs
from tests.analysis.conftest import write_run


def test_reads_every_column_of_a_run(ladder):
    table = read_runs(ladder)
    row = table.runs.iloc[0]
    record = [json.loads(line) for line in (ladder / row["record"]).read_text().splitlines()]
    final = record[3]
    assert row["N"] == row["params_blocks"] == record[0]["params"]["blocks"] == 3000
    assert (row["params_embedding"], row["params_head"], row["params_total"]) == (500, 700, 4200)
    assert row["loss_nats_per_token"] == final["loss_nats_per_token"]
    assert row["loss_se_nats_per_token"] == final["loss_se_nats_per_token"]
    assert (row["D_tokens"], row["C_flops"]) == (final["tokens"], final["flops"])
    assert row["loss_nats_per_image"] == final["loss_nats_per_image"]
    assert list(table.variable("N")) == sorted(table.variable("N"))
    assert len(table) == 7 and len(table.evaluations) == 21


@pytest.mark.parametrize(
    "convention, n", [("blocks", 3000), ("blocks+head", 3700), ("total", 4200)]
)
def test_convention_decides_n(ladder, convention, n):
    table = read_runs(ladder, convention=convention)
    assert table.variable("N")[0] == n and table.convention == convention


def test_unknown_convention_is_refused(ladder):
    with pytest.raises(AnalysisError, match="'body': allowed are blocks, blocks.head, total"):
        read_runs(ladder, convention="body")


def test_one_run_and_a_half_written_line_are_read(ladder, rewrite):
    run = sorted(ladder.iterdir())[0]
    with (run / "record.jsonl").open("a") as stream:
        stream.write('{"kind": "train", "st')
    assert len(read_runs(run)) == 1


def test_a_broken_line_in_the_middle_is_refused(ladder):
    path = sorted(ladder.iterdir())[0] / "record.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:20]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(AnalysisError, match=r"record.jsonl:2: not JSON"):
        read_runs(ladder)


def test_unfinished_and_diverged_runs_are_left_out_by_name(ladder, run_writer, rewrite):
    run_writer(
        ladder, n=999, name="bad", end={"kind": "end", "status": "diverged", "reason": "NaN"}
    )
    rewrite(run_writer(ladder, n=998, name="cut"), lambda rows: rows[:-1])
    (ladder / "new").mkdir()
    (ladder / "new" / "record.jsonl").write_text('{"kind": "hea')
    table = read_runs(ladder)
    assert len(table) == 7
    reasons = {run.name: run.reason for run in table.left_out}
    assert reasons["bad"] == "diverged: NaN"
    assert reasons["cut"] == "unfinished: stopped at step 320 of 320"
    assert reasons["new"] == "unfinished: empty record"


def _header(**changes):
    return {"changes": changes}


REFUSALS = {
    "unit of loss is 'bits/token'": _header(
        units={"loss": "bits/token", "params": "count", "flops": "count", "tokens": "count"}
    ),
    "schema 'lab.record/2'": _header(schema="lab.record/2"),
    "data differ: dead_leaves/8 .as in n3000., eurosat": _header(
        data={"name": "eurosat", "digest": "d1"}
    ),
    "data digests differ": _header(data={"name": "dead_leaves/8", "digest": "d2"}),
    "tokenizer settings differ": _header(
        tokenizer={"name": "pixels", "vocabulary": 16, "tokens_per_image": 192}
    ),
    "likelihoods differ": _header(likelihood="bound"),
    "loss_nats_per_token = 9.0, but": {"manifest": {"loss_nats_per_token": 9.0}},
}


@pytest.mark.parametrize("message", REFUSALS)
def test_refuses_by_name(ladder, run_writer, message):
    run_writer(ladder, n=400_000, **REFUSALS[message])
    with pytest.raises(AnalysisError, match=message):
        read_runs(ladder)


def test_a_column_picks_one_of_two_data_sets(ladder, run_writer):
    run_writer(ladder, n=400_000, changes={"data": {"name": "eurosat", "digest": "d2"}})
    assert len(read_runs(ladder, where={"data": "eurosat"})) == 1
    assert len(read_runs(ladder, where={"data": "dead_leaves/8"})) == 7
    with pytest.raises(AnalysisError, match="no run with data = cifar; there are"):
        read_runs(ladder, where={"data": "cifar"})


def test_duplicates_of_an_identity_are_refused(ladder):
    run = sorted(ladder.iterdir())[0]
    shutil.copytree(run, ladder / "copy")
    with pytest.raises(AnalysisError, match=f"identity {run.name} is there twice: "):
        read_runs(ladder)


def test_an_infinite_final_loss_is_refused(ladder, rewrite):
    run = sorted(ladder.iterdir())[0]

    def infinite(rows):
        rows[3]["loss_nats_per_token"] = "inf"
        return rows

    rewrite(run, infinite)
    with pytest.raises(AnalysisError, match="loss_nats_per_token = 'inf' is not a finite number"):
        read_runs(ladder)


def test_common_tokens_takes_the_ladder_and_names_the_rest(ladder, run_writer):
    run_writer(ladder, n=3000, tokens=8_000_000, name="longer")
    table = read_runs(ladder).at_common_tokens()
    assert len(table) == 7 and table.not_used == ("longer",) and table.held == {"D": 4e6}


def test_digest_sees_a_loss_and_not_the_folder(ladder, tmp_path, run_writer):
    before = read_runs(ladder).digest
    moved = shutil.move(ladder, tmp_path / "moved")
    assert read_runs(moved).digest == before
    run_writer(tmp_path / "moved", n=400_000)
    assert read_runs(moved).digest != before


def test_paired_differences_agree_with_the_images(ladder):
    table = read_runs(ladder)
    first, second = table.runs["identity"][:2]
    a, b = (
        np.load(ladder / identity / "validation.npz")["nats_per_image"].astype(float) / 192
        for identity in (first, second)
    )
    found = paired(table, first, second)
    assert found.difference_nats_per_token == pytest.approx(np.mean(a - b), rel=1e-12)
    assert found.se_nats_per_token == pytest.approx(np.std(a - b, ddof=1) / 8, rel=1e-12)
    assert found.z == pytest.approx(np.mean(a - b) / (np.std(a - b, ddof=1) / 8))
    assert found.se_nats_per_token < 0.01 * table.loss_se[0]  # the images are common
    assert [pair.first for pair in neighbours(table)] == list(table.runs["name"][:-1])


def test_paired_refuses_a_validation_file_that_contradicts_the_record(ladder):
    table = read_runs(ladder)
    run = ladder / table.runs["identity"][0]
    np.savez(run / "validation.npz", nats_per_image=np.full(64, 300.0), step=320)
    with pytest.raises(AnalysisError, match="mean 300 nats per image, the record says"):
        neighbours(table)
    np.savez(run / "validation.npz", nats_per_image=np.full(64, 300.0), step=160)
    with pytest.raises(AnalysisError, match="of step 160, but the record ends at step 320"):
        neighbours(table)


def test_csv_units(tmp_path):
    path = tmp_path / "t.csv"
    pd.DataFrame({"p": [1.5, 2.5], "y": [3.0, 2.0]}).to_csv(path, index=False)
    table = read_csv(path, columns={"N": ("p", "million"), "loss": ("y", "bits/token")})
    np.testing.assert_allclose(table.variable("N"), [1.5e6, 2.5e6])
    np.testing.assert_allclose(table.loss, np.array([3.0, 2.0]) * np.log(2))
    with pytest.raises(AnalysisError, match="unit of N 'parsec'; allowed are count"):
        read_csv(path, columns={"N": ("p", "parsec"), "loss": ("y", "bits/token")})
    with pytest.raises(AnalysisError, match="no column 'q'"):
        read_csv(path, columns={"N": ("q", "count"), "loss": ("y", "bits/token")})
    with pytest.raises(AnalysisError, match="no variable 'D'; there are N"):
        table.variable("D")


def test_frame_keeps_its_own_loss_unit():
    frame = pd.DataFrame({"n": [1, 2], "err": [0.5, 0.4]})
    table = from_frame(frame, columns={"N": ("n", "count"), "loss": ("err", "error rate")})
    assert (table.loss_unit, table.loss_column) == ("error rate", "loss_error_rate")


def _damage(value, rng):
    """One random change of a JSON tree."""
    if isinstance(value, dict) and value:
        key = str(rng.choice(sorted(value)))
        choice = rng.integers(4)
        if choice == 0:
            return {name: item for name, item in value.items() if name != key}
        return value | {key: _damage(value[key], rng)}
    return [None, "nan", -1, [], {}, True, "x", 1e400][rng.integers(8)]


@pytest.mark.parametrize("seed", range(5))
def test_random_damage_is_an_analysis_error_or_a_table(ladder, seed):
    """No other exception leaves the reader, whatever a line or a file says."""
    rng = np.random.default_rng(seed)
    run = sorted(ladder.iterdir())[1]
    files = [run / "record.jsonl", run / "config.json", run / "checkpoints/320/manifest.json"]
    kept = {path: path.read_text() for path in files}
    refused = 0
    for _ in range(40):
        path = files[rng.integers(3)]
        lines = kept[path].splitlines()
        at = rng.integers(len(lines))
        lines[at] = json.dumps(_damage(json.loads(lines[at]), rng))
        path.write_text("\n".join(lines) + "\n")
        try:
            assert len(read_runs(ladder)) in (6, 7)
        except AnalysisError as error:
            refused += 1
            assert "\n" not in str(error)
        path.write_text(kept[path])
    assert refused >= 5


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"{}"])
def test_a_damaged_validation_file_is_refused(ladder, content):
    table = read_runs(ladder)
    (ladder / table.runs["identity"][0] / "validation.npz").write_bytes(content)
    with pytest.raises(AnalysisError, match="validation.npz: damaged"):
        neighbours(table)


def test_a_trunk_is_left_out_beside_its_branches_unless_it_is_chosen(tmp_path):
    """Its config says that it is one; alone in a study it is a run like any other."""

    def written(n, schedule, **execution):
        run = write_run(tmp_path / "study", n=n)
        document = json.loads((run / "config.json").read_text())
        config = {"optimizer": {"schedule": schedule}, "execution": execution}
        (run / "config.json").write_text(json.dumps({**document, "config": config}))

    written(1000, "constant", branches="1e6 tokens")
    assert len(read_runs(tmp_path / "study")) == 1
    written(2000, "wsd", trunk="1e6 tokens")
    written(3000, "wsd", trunk="1e6 tokens")
    table = read_runs(tmp_path / "study")
    assert table.variable("N").tolist() == [2000, 3000]
    (left,) = table.left_out
    assert left.name == "n1000" and "--where optimizer.schedule=constant" in left.reason
    chosen = read_runs(tmp_path / "study", where={"optimizer.schedule": "constant"})
    assert chosen.variable("N").tolist() == [1000]
    named = read_runs(tmp_path / "study", where={"name": "n1000"})
    assert named.variable("N").tolist() == [1000]
