"""The record: cut back on resume, half-written lines, foreign files."""

import json
import math

import pytest

from lab.core.errors import LabError, NotSaved
from lab.core.record import Record, finished, read_rows

HEADER = {"identity": "abc", "steps": 4}


def write(path, *, upto):
    record = Record(path, HEADER, step=0)
    for step in range(1, upto + 1):
        record.append({"kind": "train", "step": step, "loss": 1 / step})
        record.append({"kind": "evaluation", "step": step})
    record.close()


def test_resume_drops_what_came_after_and_keeps_the_rest_byte_for_byte(tmp_path):
    path = tmp_path / "record.jsonl"
    write(path, upto=4)
    straight = path.read_bytes()
    record = Record(path, HEADER, step=2)
    assert record.steps == {"train": [1, 2], "evaluation": [1, 2]}
    for step in (3, 4):
        record.append({"kind": "train", "step": step, "loss": 1 / step})
        record.append({"kind": "evaluation", "step": step})
    record.close()
    assert path.read_bytes() == straight


def test_half_written_last_line_is_left_out_and_cut_off(tmp_path):
    path = tmp_path / "record.jsonl"
    write(path, upto=2)
    whole = path.read_bytes()
    for cut in (1, 5, 20):
        path.write_bytes(whole[:-cut])
        assert [r["step"] for r in read_rows(path)[1:]] == [1, 1, 2]
    Record(path, HEADER, step=1).close()
    assert path.read_bytes().endswith(b"\n")
    assert [r["step"] for r in read_rows(path)[1:]] == [1, 1]


def test_a_run_from_its_start_begins_the_record_again(tmp_path):
    path = tmp_path / "record.jsonl"
    write(path, upto=3)
    Record(path, HEADER, step=0).close()
    assert [r["kind"] for r in read_rows(path)] == ["header"]


@pytest.mark.parametrize("line", [b"{not json}\n", b"[1]\n", b'{"step": 1}\n'])
def test_a_bad_line_inside_is_an_error_with_its_number(tmp_path, line):
    path = tmp_path / "record.jsonl"
    write(path, upto=1)
    path.write_bytes(path.read_bytes() + line + b'{"kind": "end"}\n')
    with pytest.raises(LabError, match="line 4"):
        read_rows(path)


def test_foreign_records_are_refused(tmp_path):
    path = tmp_path / "record.jsonl"
    write(path, upto=1)
    with pytest.raises(LabError, match="belongs to the run abc, not to xyz"):
        Record(path, {**HEADER, "identity": "xyz"}, step=0)
    with pytest.raises(LabError, match="data was None and is now digest-2"):
        Record(path, {**HEADER, "data": "digest-2"}, step=0)
    Record(path, {**HEADER, "name": "another label"}, step=1).close()
    path.write_text('{"kind": "header", "schema": "other/9"}\n')
    with pytest.raises(LabError, match="other/9"):
        read_rows(path)
    path.unlink()
    with pytest.raises(LabError, match="missing, but a checkpoint of step 3"):
        Record(path, HEADER, step=3)


def test_numbers_that_json_cannot_hold_are_words(tmp_path):
    path = tmp_path / "record.jsonl"
    record = Record(path, HEADER, step=0)
    record.append({"kind": "end", "loss": math.nan, "clock": {"x": -math.inf}})
    record.close()
    text = path.read_text().splitlines()[-1]
    assert json.loads(text) == {"kind": "end", "loss": "nan", "clock": {"x": "-inf"}}
    assert finished(read_rows(path))


def test_a_full_disk_is_no_bad_input_and_names_the_file(tmp_path):
    path = tmp_path / "record.jsonl"
    record = Record(path, HEADER, step=0)
    record._file.close()
    record._file = open("/dev/full", "a", encoding="utf-8")
    line = f"{path}: cannot be written: No space left on device"
    with pytest.raises(NotSaved, match=line):
        record.append({"kind": "train", "step": 1})
    with pytest.raises(NotSaved, match=line):
        record.close()


def test_of_an_evaluation_all_rows_stand_or_none(tmp_path):
    path = tmp_path / "record.jsonl"
    write(path, upto=2)
    for rows, standing in ((1, [1, 2]), (2, [])):
        record = Record(path, HEADER, step=2, evaluation_rows=rows)
        record.close()
        assert record.steps == {"train": [1, 2], "evaluation": standing}
