"""The encode job: what it writes, on any hosts and devices, after any kill."""

import argparse
import json
import shlex
import signal
import time

import jax
import numpy as np
import pytest

from lab.core.codes import CodeKind
from lab.core.errors import LabError, Stopped
from lab.data.code_manifest import MAKING
from lab.data.code_shards import CodeShards
from lab.data.sources import open_source
from lab.data.views import framed_view
from lab.launch import encode
from lab.launch.claim import claimed
from lab.launch.encode_job import EncodeJob, Hooks, Share, Status, ahead, plan_of
from tests.data.code_sets import contents
from tests.launch.commands import command, refused, start
from tests.launch.test_door import HEAVY, imported
from tests.launch.thresholds import Thresholds, codes_of

EXAMPLES = 150
COMMAND = ("-m", "tests.launch.thresholds")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def source(data_dir):
    return open_source("dead_leaves", split="train", examples=EXAMPLES, data_dir=data_dir)


def job(source, out, *, kind="bits", views="flip", share=None, devices=1, shards=7, **hooks):
    tokenizer = Thresholds(kind, devices=jax.devices()[:devices])
    plan = plan_of(source, tokenizer, views=views, shards=shards, command="the command")
    silent = {"should_stop": lambda: False, "progress": lambda *_: None, "warn": print}
    return EncodeJob(
        source,
        tokenizer,
        plan,
        out,
        share=share or Share(),
        devices=devices,
        hooks=Hooks(**{**silent, **hooks}),
    )


@pytest.fixture(scope="session")
def expected(source, tmp_path_factory):
    """The files of one host with one device."""
    folder = tmp_path_factory.mktemp("codes")
    assert job(source, folder).run().status is Status.FINISHED
    return contents(folder)


def block_sums(frames):
    """Sums of 4 x 4 blocks by loops."""
    sums = np.zeros((len(frames), 3, 3, 3), np.int64)
    for b, row, column, channel in np.ndindex(len(frames), 12, 12, 3):
        sums[b, row // 4, column // 4, channel] += frames[b, row, column, channel]
    return sums


@pytest.mark.parametrize(
    "kind, views", [("bits", "none"), ("bits", "ten_crop"), ("ids", "flip"), ("gaussian", "flip")]
)
def test_codes_are_those_of_each_view_of_each_image(source, tmp_path, kind, views):
    job(source, tmp_path, kind=kind, views=views).run()
    shards = CodeShards(tmp_path)
    shards.require(tokenizer_identity=f"thresholds/1:{kind}", data_digest=source.info.digest)
    chosen = [0, 149, 64, 21, 22]
    examples = source.read(chosen)
    images = np.stack([example["image"] for example in examples])
    for view in range(shards.views):
        frames = framed_view(images, Thresholds.frames, views, view, side=12)
        found = shards.rows(chosen, view)
        assert (found.codes == codes_of(block_sums(frames), CodeKind(kind))).all()
        assert found.labels.tolist() == [example["label"] for example in examples]
    spread = shards.rows(range(EXAMPLES)).codes
    assert 0.1 < spread.mean() < 0.9 if kind == "bits" else spread.std() > 0


@pytest.mark.parametrize("hosts", [2, 4, 9])
def test_any_number_of_hosts_gives_the_same_bytes(source, expected, tmp_path, hosts):
    for host in reversed(range(hosts)):
        outcome = job(source, tmp_path, share=Share(host, hosts)).run()
        last = host == 0
        assert outcome.status is (Status.FINISHED if last else Status.SHARE_DONE)
    assert contents(tmp_path) == expected


@pytest.mark.parametrize("devices", [2, 8])
def test_any_number_of_devices_gives_the_same_bytes(source, expected, tmp_path, devices):
    job(source, tmp_path, devices=devices).run()
    assert contents(tmp_path) == expected


def test_a_stop_at_any_batch_and_a_second_start_give_the_same_bytes(source, expected, tmp_path):
    for batches in range(0, 8, 2):
        folder, seen = tmp_path / str(batches), []

        def should_stop(seen=seen, batches=batches):
            seen.append(1)
            return len(seen) > batches

        with pytest.raises(Stopped):
            job(source, folder, should_stop=should_stop).run()
        assert not list(folder.rglob("*.draft"))
        with pytest.raises(LabError, match=f"half-finished: {min(batches, 7)} of 7.*the command"):
            CodeShards(folder)
        outcome = job(source, folder).run()
        assert outcome.images == 2 * sum(len(outcome.plan.span(i)) for i in range(batches, 7))
        assert contents(folder) == expected


def test_a_finished_folder_is_verified_and_mended(source, expected, tmp_path):
    job(source, tmp_path).run()
    again = job(source, tmp_path).run()
    assert (again.status, again.images, again.bytes) == (Status.VERIFIED, 0, 0)
    assert contents(tmp_path) == expected
    damaged = sorted(tmp_path.glob("*.array_record"))[2]
    data = bytearray(damaged.read_bytes())
    data[-70_000] ^= 1
    damaged.write_bytes(data)
    said = []
    mended = job(source, tmp_path, warn=said.append).run()
    assert mended.status is Status.FINISHED
    assert mended.images == 2 * len(mended.plan.span(2))
    assert len(said) == 1 and damaged.name in said[0]
    assert contents(tmp_path) == expected


def test_a_finished_folder_of_other_codes_is_left_alone(source, expected, tmp_path):
    job(source, tmp_path).run()
    for other in ({"kind": "ids"}, {"views": "none"}, {"shards": 6}):
        with pytest.raises(LabError, match="manifest.json: .*choose another --out"):
            job(source, tmp_path, **other).run()
    assert contents(tmp_path) == expected


def test_a_shard_is_made_by_one_process_at_a_time(source, expected, tmp_path):
    with claimed(tmp_path / MAKING / "claim-00003"):
        with pytest.raises(LabError, match="codes-00003-of-00007.*another process is making"):
            job(source, tmp_path).run()
        assert not (tmp_path / "codes-00003-of-00007.array_record").exists()
    outcome = job(source, tmp_path).run()
    assert outcome.images == 2 * len(outcome.plan.span(3))
    assert contents(tmp_path) == expected


def test_images_of_several_shapes(source, tmp_path):
    """Those of one shape are framed together; the order stays."""

    class Mixed:
        info = source.info

        def read(self, indices):
            examples = source.read(indices)
            for index, example in zip(indices, examples, strict=True):
                if index % 3 == 0:
                    example["image"] = example["image"][:-4]
            return examples

    job(Mixed(), tmp_path, views="none").run()
    shards = CodeShards(tmp_path)
    for index in (0, 1, 2, 3, 149):
        image = Mixed().read([index])[0]["image"][None]
        frames = framed_view(image, Thresholds.frames, "none", 0, side=12)
        assert (shards.rows([index]).codes == codes_of(block_sums(frames), CodeKind.BITS)).all()


def test_the_plan_depends_on_the_images_alone(source):
    tokenizer = Thresholds("bits", devices=jax.devices()[:1])
    assert plan_of(source, tokenizer, views="none", shards=None, command="").shards == 1
    with pytest.raises(LabError, match="151 shards of 150 examples"):
        plan_of(source, tokenizer, views="none", shards=151, command="")


def test_reading_ahead_keeps_order_and_raises():
    def work(items):
        if 13 in items:
            raise LabError("13")
        return list(items)

    assert list(ahead(work, [[i] for i in range(10)])) == [[i] for i in range(10)]
    assert list(ahead(work, [])) == []
    with pytest.raises(LabError, match="13"):
        list(ahead(work, [[1], [13], [2]]))


def run_directory(folder, **content):
    """A run directory of the thresholds."""
    folder.mkdir(exist_ok=True)
    (folder / "thresholds.json").write_text(json.dumps({"kind": "bits", **content}))
    return folder


def flags(tmp_path, data_dir, *more, out="out", **content):
    run = run_directory(tmp_path / "run", **content)
    given = {"tokenizer": run, "data": "dead_leaves", "out": tmp_path / out, "data-dir": data_dir}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    return [*words, "--split", "train", "--examples", EXAMPLES, "--views", "flip", *more]


SHARDS = ("--shards", 7)


def test_the_command_that_finishes_a_folder_finds_the_same_images(tmp_path):
    words = [str(word) for word in flags(tmp_path, tmp_path / "data", "--manual-dir", "by hand")]
    given = encode.parser().parse_args(words)
    given.split = [given.split]
    said = shlex.split(encode.command_of(given))
    again = encode.parser().parse_args(said[3:])
    again.split = [again.split]
    assert said[:3] == ["python", "-m", "lab.launch.encode"] and vars(again) == vars(given)


def test_the_command_writes_says_and_verifies(source, expected, tmp_path, data_dir):
    words = flags(tmp_path, data_dir, *SHARDS, "--devices", 2)
    made = command(*COMMAND, *words)
    assert made.returncode == 0, made.stderr
    assert contents(tmp_path / "out" / "train") == expected
    for word in ("finished", "7 of 7 shards", "images/s", "tokens/s", "MB written"):
        assert word in made.stdout
    assert f"next: python -m lab.launch.tokens {tmp_path / 'out' / 'train'}" in made.stdout
    share = command(*COMMAND, *words[:5], tmp_path / "two", *words[6:], "--host=1", "--hosts=2")
    assert "share done" in share.stdout and "3 of 7 shards" in share.stdout
    assert "lab.launch.tokens" not in share.stdout
    again = command(*COMMAND, *words, "--json")
    (said,) = json.loads(again.stdout)
    assert (said["status"], said["images_encoded"]) == ("verified", 0)


def test_killed_jobs_end_with_the_same_bytes(source, expected, tmp_path, data_dir):
    words = flags(tmp_path, data_dir, *SHARDS, delay_s=0.2)
    folder = tmp_path / "out" / "train"
    for wanted in (1, 4):  # two kills, the second in the work of the process after the first
        process = start(*COMMAND, *words)
        wait_for_shards(folder, wanted)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with pytest.raises(LabError, match=r"half-finished: \d of 7"):
            CodeShards(folder)
    process = start(*COMMAND, *words)
    wait_for_shards(folder, 5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "the same command goes on" in errors
    others = [start(*COMMAND, *words, "--host", host, "--hosts", 2) for host in range(2)]
    for process in others:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert contents(folder) == expected


def wait_for_shards(folder, count):
    for _ in range(600):
        if len(list(folder.glob("*.array_record"))) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {count} shards after 12 s")


def test_help_has_an_example_and_loads_nothing_heavy():
    result = command("-X", "importtime", "-m", "lab.launch.encode", "--help")
    assert result.returncode == 0
    assert result.stdout.count("lab.launch.encode") >= 2, "usage and an example"
    assert not imported(result.stderr) & set(HEAVY)


def test_shares_are_those_of_a_distributed_job_unless_flags_say_otherwise(monkeypatch):
    none = argparse.Namespace(host=None, hosts=None)
    assert encode.share_of(none) == Share(0, 1)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 3)
    monkeypatch.setattr(jax, "process_count", lambda: 8)
    assert encode.share_of(none) == Share(3, 8)
    assert encode.share_of(argparse.Namespace(host=1, hosts=2)) == Share(1, 2)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--views", "flips"], ["'flips'", "none, flip, ten_crop"]),
        (["--split", "trian"], ["--split trian", "train, validation, test"]),
        (["--split", "train,train"], ["each split once"]),
        (["--examples", 0], ["--examples 0", "at least 1"]),
        (["--host", 0], ["--host and --hosts"]),
        (["--host", 2, "--hosts", 2], ["--host 2", "0 to 1"]),
        (["--tokenizer", "nowhere"], ["--tokenizer nowhere", "no such run directory"]),
        (["--config.seed=3"], ["--config.seed", "no config"]),
        (["--shard", 3], ["--shard", "no such flag"]),
    ],
)
def test_wrong_flags_are_refused_in_one_line(tmp_path, more, words):
    base = flags(tmp_path, tmp_path)
    refused(command("-m", "lab.launch.encode", *base, *more), *words)


def test_too_many_shards_and_a_run_of_something_else_are_refused(source, tmp_path, data_dir):
    base = flags(tmp_path, data_dir)
    refused(command(*COMMAND, *base, "--shards", 151), "151 shards of 150 examples")
    refused(command("-m", "lab.launch.encode", *base), "run", "config.json")
