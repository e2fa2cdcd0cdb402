"""What lab writes analysis reads: the run directory, from both sides."""

import json

import numpy as np
import pytest

from analysis import read_runs
from analysis.errors import AnalysisError
from lab.launch.runner import write_config
from tests.train.jobs import job, train


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    jobs = [job(folder, devices=1, size=size, **{"name": size}) for size in ("s1", "s3")]
    for made in jobs:
        train(made)
    return folder / "default", jobs


def test_analysis_reads_what_lab_wrote(study):
    folder, jobs = study
    table = read_runs(folder)
    assert sorted(table.runs["name"]) == ["s1", "s3"]
    for made in jobs:
        row = table.runs[table.runs["identity"] == made.identity].iloc[0]
        counted = made.model.parameters()
        assert row["params_blocks"] == counted.blocks
        assert row["params_total"] == counted.total
        with np.load(made.directory / "validation.npz") as saved:
            nats = saved["nats_per_image"].astype(np.float64)
        assert row["loss_nats_per_token"] == pytest.approx(nats.mean() / 12)
    assert list(table.loss) == list(table.runs["loss_nats_per_token"])


def test_unfinished_and_half_written(study, tmp_path):
    made = job(tmp_path, devices=1, size="s2", **{"name": "s2"})
    train(made, stop_at=7)
    other = job(tmp_path, devices=1, size="s1", **{"name": "s1"})
    train(other)
    with open(made.directory / "record.jsonl", "a") as file:
        file.write('{"kind": "tra')
    table = read_runs(tmp_path / "default")
    assert list(table.runs["name"]) == ["s1"]
    assert any("s2" in str(left) or made.identity in str(left) for left in table.left_out)


def test_two_units_are_refused(study, tmp_path):
    a = job(tmp_path, devices=1, size="s1", **{"name": "a"})
    b = job(tmp_path, devices=1, size="s2", **{"name": "b"})
    train(a)
    train(b)
    path = b.directory / "record.jsonl"
    lines = path.read_text().splitlines()
    header = json.loads(lines[0])
    header["units"]["loss"] = "bits/token"
    path.write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n")
    with pytest.raises(AnalysisError, match="bits/token"):
        read_runs(tmp_path / "default")


def test_a_checkpoint_that_contradicts_the_record_is_refused(tmp_path):
    made = job(tmp_path, devices=1, size="s1", **{"name": "a"})
    train(made)
    path = made.directory / "record.jsonl"
    text = path.read_text().splitlines()
    rows = [json.loads(line) for line in text]
    for row in rows:
        if row["kind"] == "evaluation" and row["step"] == 10:
            row["loss_nats_per_token"] += 0.5
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(AnalysisError):
        read_runs(tmp_path / "default")


def test_runs_of_two_learning_rates_are_no_ladder(tmp_path):
    """A law of mixed recipes is refused by the field's name, and `where` chooses one."""
    for size, rate in (("s1", 0.006), ("s2", 0.006), ("s3", 0.05)):
        made = job(
            tmp_path, devices=1, size=size, **{"name": size, "optimizer.learning_rate": rate}
        )
        train(made)
        write_config(made.directory, made.run)
    with pytest.raises(AnalysisError, match=r"optimizer\.learning_rate differs: 0\.006 .* 0\.05"):
        read_runs(tmp_path / "default")
    table = read_runs(tmp_path / "default", where={"optimizer.learning_rate": 0.006})
    assert sorted(table.runs["name"]) == ["s1", "s2"]
