"""quality.jsonl: rows that come back as they were written, half-written tails, foreign lines."""

import json
import math

import pytest

from lab.core.errors import LabError
from lab.core.quality import FILE, append_quality, key_of, read_quality

TASK = {
    "what": "fd",
    "step": 30,
    "weights": "raw",
    "settings": {"samples": 16, "seed": 0, "sampler": {"guidance": {"scale": 1.0}}},
    "extractor": {"name": "stub", "identity": "abc"},
    "reference": None,
}


def row_of(seed, **values):
    task = {**TASK, "settings": {**TASK["settings"], "seed": seed}}
    return {**task, "values": [{"metric": "fd_x", "value": 1.5, **values}]}


def test_rows_are_read_as_they_were_written(tmp_path):
    assert read_quality(tmp_path) == []
    written = [
        append_quality(tmp_path, {**row_of(seed), "clock": {"elapsed_s": seed / 3}})
        for seed in range(3)
    ]
    assert read_quality(tmp_path) == written
    assert [row["settings"]["seed"] for row in written] == [0, 1, 2]
    assert all(row["schema"] == "lab.quality/1" for row in written)
    assert written[1]["values"] == [{"metric": "fd_x", "value": 1.5}]


def test_the_key_stands_for_the_task_and_not_for_what_came_out():
    row = row_of(0)
    key = key_of(row)
    assert len(key) == 12 and int(key, 16) >= 0
    assert key_of({**row, "values": [], "clock": {"elapsed_s": 1}, "key": "x"}) == key
    others = [
        {**row, "what": "probe"},
        {**row, "step": 31},
        {**row, "weights": "ema"},
        {**row, "settings": {**row["settings"], "samples": 17}},
        {**row, "extractor": None},
        {**row, "reference": {"images": 4}},
    ]
    assert len({key, *map(key_of, others)}) == 7
    swapped = dict(reversed(row.items()))
    assert key_of(swapped) == key  # the order of fields says nothing
    as_tuple, as_list = ({**row, "settings": {"at": at}} for at in ((1, 2), [1, 2]))
    assert key_of(as_tuple) == key_of(as_list)


def test_a_half_written_tail_is_left_out_and_cut_off(tmp_path):
    path = tmp_path / FILE
    first = append_quality(tmp_path, row_of(0))
    append_quality(tmp_path, row_of(1))
    whole = path.read_bytes()
    for cut in (1, 7, 100):
        path.write_bytes(whole[:-cut])
        assert read_quality(tmp_path) == [first]
    third = append_quality(tmp_path, row_of(2))
    assert read_quality(tmp_path) == [first, third]
    assert path.read_bytes().count(b"\n") == 2
    path.write_bytes(b'{"schema"')
    assert read_quality(tmp_path) == []
    assert append_quality(tmp_path, row_of(0)) == first
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", ["line 2", "not JSON"]),
        ("[1]", ["line 2", "lab.quality/1"]),
        ('{"schema": "lab.quality/2"}', ["line 2", "lab.quality/2"]),
        ('{"schema": "lab.quality/1", "key": "a"}', ["line 2", "what", "missing"]),
    ],
)
def test_a_line_that_is_no_row_is_an_error_with_its_number(tmp_path, line, words):
    append_quality(tmp_path, row_of(0))
    with open(tmp_path / FILE, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(LabError) as caught:
        read_quality(tmp_path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_row_that_was_changed_by_hand_is_refused(tmp_path):
    row = append_quality(tmp_path, row_of(0))
    row["settings"]["samples"] = 50_000
    (tmp_path / FILE).write_text(json.dumps(row) + "\n")
    with pytest.raises(LabError, match=f"it says {row['key']}"):
        read_quality(tmp_path)


def test_numbers_that_json_cannot_hold_are_words_also_inside_lists(tmp_path):
    append_quality(tmp_path, row_of(0, low=-math.inf, per_head=[1.0, math.nan]))
    value = json.loads((tmp_path / FILE).read_text())["values"][0]
    assert value["low"] == "-inf" and value["per_head"] == [1.0, "nan"]
    with pytest.raises(LabError, match="without reference, values"):
        append_quality(tmp_path, {k: v for k, v in TASK.items() if k != "reference"})
