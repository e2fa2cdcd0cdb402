"""Rows of benchmarks: what is met, what is written, and what is refused before it is measured."""

import argparse
import json
import math

import pytest

from benchmarks.rows import Row, named, report, row, within


def flags(out=None):
    return argparse.Namespace(json=True, out=out)


@pytest.mark.parametrize(
    ("value", "best", "met"),
    [
        (1.9, "at most", True),
        (2.0, "at most", True),
        (2.1, "at most", False),
        (1.9, "at least", False),
        (2.0, "at least", True),
        (2.1, "at least", True),
        (math.nan, "at most", False),
        (math.nan, "at least", False),
    ],
)
def test_a_target_is_met_on_its_own_side(value, best, met):
    assert row("x", value, 2.0, best=best).met is met


@pytest.mark.parametrize(
    ("low", "high", "met"), [(1.0, 2.0, True), (0.9, 1.5, False), (1.5, 2.1, False)]
)
def test_a_range_lies_inside_its_target(low, high, met):
    assert within("x", low, high, (1.0, 2.0)).met is met


@pytest.mark.parametrize(("met", "code"), [(True, 0), (None, 0), (False, 1)])
def test_the_code_says_whether_a_target_is_missed(tmp_path, capsys, met, code):
    made = Row("x", "1", "2", met)
    out = tmp_path / "new" / "rows.json"
    assert report([named("x", lambda: [made])], flags(out), ["--tag", "two words"]) == code
    document = json.loads(out.read_text())
    assert document["rows"] == [{"name": "x", "value": "1", "target": "2", "met": met}]
    assert document["command"].endswith("--tag 'two words'")
    assert json.loads(capsys.readouterr().out)["rows"] == document["rows"]


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "file" / "x", "")):
        assert report([named("x", pytest.fail)], flags(path), []) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: --out {path}: cannot be written: ") and reason in told
        assert told.count("\n") == 1


def test_what_a_file_holds_stays_until_all_is_measured(tmp_path):
    out = tmp_path / "rows.json"
    out.write_text("before")

    def fails():
        raise RuntimeError("no device")

    with pytest.raises(RuntimeError):
        report([named("x", fails)], flags(out), [])
    assert out.read_text() == "before"
