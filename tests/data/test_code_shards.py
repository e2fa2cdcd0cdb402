"""Folders of codes: round trips, the bytes of a record, what a killed writer leaves."""

import json
import os
import resource
import sys
import threading

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from lab.core.codes import CodeKind
from lab.core.errors import LabError
from lab.data.code_format import Codes
from lab.data.code_manifest import MAKING
from lab.data.code_shards import CodeShards, Verify, most_readers
from lab.data.code_writer import begin, finish, shard_entry, write_shard
from tests.data.code_sets import (
    COMMAND,
    KINDS,
    batches,
    code_set,
    contents,
    draw,
    plan,
    record_by_hand,
    write,
)


@pytest.mark.parametrize("limit_bytes", [2**30, 0], ids=["memory", "file"])
@pytest.mark.parametrize("verify", list(Verify))
@pytest.mark.parametrize("kind, size", KINDS)
def test_rows_are_what_was_written(tmp_path, kind, size, verify, limit_bytes):
    what = code_set(kind, size)
    codes = draw(what)
    write(tmp_path, codes, plan(what))
    shards = CodeShards(tmp_path, verify=verify, limit_bytes=limit_bytes)
    assert (len(shards), shards.views, shards.in_memory) == (23, 2, limit_bytes > 0)
    assert shards.what == what
    rng = np.random.default_rng(1)
    indices, views = rng.integers(0, 23, 50), rng.integers(0, 2, 50)
    found = shards.rows(indices, views)
    assert found.codes.dtype == what.alphabet.dtype and found.labels.dtype == np.int32
    assert (found.codes == codes.codes[indices, views]).all()
    assert (found.labels == codes.labels[indices]).all()
    assert (shards.rows([4, 4, 0]).codes == codes.codes[[4, 4, 0], 0]).all()
    assert (shards.rows([4, 22], 1).codes == codes.codes[[4, 22], 1]).all()
    assert shards.rows([]).codes.shape == (0, *what.view_shape)
    found.codes[:] = 0  # new arrays: the next reader sees none of it
    assert (shards.rows(indices, views).codes == codes.codes[indices, views]).all()


@pytest.mark.parametrize("views", ["none", "flip", "ten_crop"])
@pytest.mark.parametrize("kind, size", KINDS)
def test_records_are_the_bytes_that_the_format_states(tmp_path, kind, size, views):
    what = code_set(kind, size, views=views, examples=5)
    codes = draw(what)
    manifest = write(tmp_path, codes, plan(what, shards=2))
    records = []
    for entry in manifest.shards:
        records += ArrayRecordReader(str(tmp_path / entry.file)).read_all()
    assert records == [record_by_hand(c, int(n), what) for c, n in zip(*codes, strict=True)]
    assert {len(record) for record in records} == {what.record_bytes}


def test_names_spans_and_manifest(tmp_path):
    codes = draw(code_set())
    write(tmp_path, codes, plan(code_set()))
    names = [f"codes-{i:05d}-of-00004.array_record" for i in range(4)]
    assert sorted(os.listdir(tmp_path)) == [*names, "manifest.json"]
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["schema"] == "lab.codes/1"
    assert content["views"] == {"name": "flip", "count": 2}
    assert content["alphabet"] == {"kind": "bits", "size": 6}
    assert (content["storage"], content["grid"], content["dims_per_image"]) == (
        "packbits",
        [3, 3],
        432,
    )
    assert [(s["file"], s["examples"]) for s in content["shards"]] == list(
        zip(names, [5, 6, 6, 6], strict=True)
    )
    for entry in content["shards"]:
        assert (tmp_path / entry["file"]).stat().st_size == entry["bytes"]


def test_bytes_do_not_depend_on_order_batches_or_rests(tmp_path):
    what = code_set()
    codes, made = draw(what), plan(what)
    write(tmp_path / "a", codes, made)
    folder = tmp_path / "b"
    begin(folder, made)
    for index in (3, 1, 0, 2):
        draft = folder / MAKING / f"{made.file(index)}.draft"
        draft.write_bytes(b"what a killed writer left")
        if index == 1:
            (folder / made.file(index)).write_bytes(b"not said to be done")
            assert shard_entry(folder, made, index) is None
        write_shard(folder, made, index, batches(codes, made.span(index), size=index + 1))
    assert finish(folder, made) is not None
    assert contents(folder) == contents(tmp_path / "a")


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    what = code_set()
    codes, made = draw(what), plan(what)
    begin(tmp_path, made)
    before = contents(tmp_path)

    def stops():
        yield Codes(codes.codes[:3], codes.labels[:3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, made, 0, stops())
    assert contents(tmp_path) == before
    with pytest.raises(LabError, match="00000-of-00004.* 3 examples, 5 are its share"):
        write_shard(tmp_path, made, 0, batches(codes, range(3)))
    assert contents(tmp_path) == before and finish(tmp_path, made) is None


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    what = code_set(CodeKind.IDS, 100_000, examples=4000)
    codes, made = draw(what), plan(what, shards=1)
    begin(tmp_path, made)
    before, limits = contents(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(LabError, match="00000-of-00001.*cannot be written: .*too large"):
            write_shard(tmp_path, made, 0, batches(codes, range(4000), size=100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "kind, size, change, words",
    [
        (CodeKind.BITS, 6, lambda c: c + 2, "allowed: 0 to 1"),
        (CodeKind.IDS, 200, lambda c: np.full_like(c, 200), "allowed: 0 to 199"),
        (CodeKind.IDS, 100_000, lambda c: c - 100_001, "allowed: 0 to 99999"),
        (CodeKind.IDS, 4096, lambda c: c.astype(np.int64), "uint16 .b, 2, 3, 3. is expected"),
        (CodeKind.GAUSSIAN, 4, lambda c: c * np.float32(np.inf), "not finite"),
        (CodeKind.BITS, 6, lambda c: c[:, :1], "is expected"),
    ],
)
def test_codes_outside_of_the_alphabet_are_refused(tmp_path, kind, size, change, words):
    what = code_set(kind, size)
    codes = draw(what)
    begin(tmp_path, plan(what))
    with pytest.raises(LabError, match=words):
        write_shard(tmp_path, plan(what), 0, [Codes(change(codes.codes[:5]), codes.labels[:5])])


def test_half_finished_folders_say_how_far_they_are(tmp_path):
    codes, made = draw(code_set()), plan(code_set())
    assert write(tmp_path, codes, made, skip=(1,)) is None
    with pytest.raises(LabError) as caught:
        CodeShards(tmp_path)
    assert f"{tmp_path}: half-finished: 3 of 4 shards are there" in str(caught.value)
    assert COMMAND in str(caught.value)
    write(tmp_path, codes, made)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(LabError, match="no manifest.json: 4 of 4 shards are there"):
        CodeShards(tmp_path)
    with pytest.raises(LabError, match="no codes: no manifest.json, no shards"):
        CodeShards(tmp_path.parent)
    with pytest.raises(LabError, match="nowhere: no such folder"):
        CodeShards(tmp_path / "nowhere")


def test_a_folder_of_other_codes_is_not_gone_on_with(tmp_path):
    begin(tmp_path, plan(code_set()))
    begin(tmp_path, plan(code_set()))
    with pytest.raises(LabError, match="tokenizer is identity binary/1:a.*not identity binary/1:b"):
        begin(tmp_path, plan(code_set(tokenizer="binary/1:b")))
    with pytest.raises(LabError, match="shard_count is 4, not 5"):
        begin(tmp_path, plan(code_set(), shards=5))
    for shards in (0, 24):
        with pytest.raises(LabError, match="allowed: 1 to 23"):
            plan(code_set(), shards=shards)


def test_a_shard_of_another_plan_is_not_taken_for_ours(tmp_path):
    """Where two jobs began at the same moment and one's plan replaced the other's."""
    ours, theirs = plan(code_set()), plan(code_set(tokenizer="binary/1:b"))
    write(tmp_path, draw(code_set()), ours, skip=(3,))
    assert shard_entry(tmp_path, ours, 0) is not None
    assert shard_entry(tmp_path, theirs, 0) is None and finish(tmp_path, theirs) is None


def test_indices_and_views_that_are_not_there(tmp_path):
    write(tmp_path, draw(code_set()), plan(code_set()))
    shards = CodeShards(tmp_path)
    for indices, views in (([23], None), ([-1], None), ([0], 2), ([0, 1], np.array([0, -1]))):
        with pytest.raises(IndexError, match="outside of"):
            shards.rows(indices, views)


def test_threads_may_read_one_folder(tmp_path):
    codes = draw(code_set())
    write(tmp_path, codes, plan(code_set()))
    shards = CodeShards(tmp_path, limit_bytes=0)
    wrong = []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            indices = rng.integers(0, 23, 8)
            if not (shards.rows(indices).codes == codes.codes[indices, 0]).all():
                wrong.append(indices)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.fixture
def few_files():
    """At most a dozen files more than are open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 12, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_shards_than_files_may_be_open(tmp_path, few_files, monkeypatch):
    """ImageNet's size has up to 1,024 shards, as many as a process may have files by default."""
    what = code_set(views="none", examples=80)
    codes = draw(what)
    write(tmp_path, codes, plan(what, shards=40))
    monkeypatch.setattr("lab.data.code_shards.most_readers", lambda: 8)
    shards = CodeShards(tmp_path, limit_bytes=0)
    for _ in range(2):
        assert (shards.rows(range(80)).codes == codes.codes[:, 0]).all()
    assert len(shards._readers) == 8


@pytest.mark.parametrize(
    ("soft", "most"), [(1024, 341), (2, 1), (resource.RLIM_INFINITY, sys.maxsize)]
)
def test_a_third_of_the_files_that_may_be_open_are_shards(monkeypatch, soft, most):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, resource.RLIM_INFINITY))
    assert most_readers() == most


def test_a_shard_is_verified_once_however_often_it_is_opened(tmp_path, monkeypatch):
    what = code_set(views="none", examples=8)
    write(tmp_path, draw(what), plan(what, shards=4))
    seen = []
    monkeypatch.setattr(
        "lab.data.code_shards.check_shard", lambda folder, entry: seen.append(entry.file)
    )
    monkeypatch.setattr("lab.data.code_shards.most_readers", lambda: 1)
    shards = CodeShards(tmp_path, limit_bytes=0)
    assert seen == []  # nothing of the size of the data is read where a folder is opened
    for _ in range(3):
        shards.rows(range(8))
    assert len(seen) == len(set(seen)) == 4
