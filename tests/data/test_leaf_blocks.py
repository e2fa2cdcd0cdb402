"""Dead leaves by several processes: the same images in the same order, and clean ends."""

import io
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from lab.core import cores
from lab.core.errors import LabError
from lab.data import leaf_blocks, leaves
from lab.data.leaves import BLOCK, Knobs

SMALL = Knobs(size=8, leaves=20)


@pytest.fixture
def processes(monkeypatch):
    """Three processes, even for a few blocks, whose streams are buffered as anywhere."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.setattr(leaf_blocks, "_cores", lambda: 3)
    monkeypatch.setattr(leaf_blocks, "PAYS_FROM", 1)


def children() -> list[int]:
    listed = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(each) for each in listed.split()]


@pytest.mark.parametrize("count", [3 * BLOCK, 4 * BLOCK + 5])
def test_images_are_those_of_the_generator_in_order(processes, count):
    found = list(leaf_blocks.examples_of(SMALL, 7, "train", count))
    blocks = [leaves.make_block(SMALL, 7, "train", block) for block in range(5)]
    images = np.concatenate([block.images for block in blocks])[:count]
    labels = np.concatenate([block.labels for block in blocks])[:count]
    assert [label for _, label in found] == labels.tolist()
    decoded = [np.asarray(PIL.Image.open(io.BytesIO(image))) for image, _ in found]
    np.testing.assert_array_equal(decoded, images)


def test_one_process_makes_the_same_bytes(processes, monkeypatch):
    many = list(leaf_blocks.examples_of(SMALL, 0, "validation", 3 * BLOCK))
    monkeypatch.setattr(leaf_blocks, "_cores", lambda: 1)
    assert many == list(leaf_blocks.examples_of(SMALL, 0, "validation", 3 * BLOCK))


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_reader_that_stops_leaves_no_process(processes):
    before = children()
    found = leaf_blocks.examples_of(SMALL, 0, "train", 3000 * BLOCK)
    list(itertools.islice(found, 5))
    assert len(children()) == len(before) + 3
    found.close()
    assert children() == before


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_killed_process_is_one_line(processes):
    before = children()
    found = leaf_blocks.examples_of(SMALL, 0, "train", 3000 * BLOCK)
    next(found)
    os.kill(next(each for each in children() if each not in before), signal.SIGKILL)
    with pytest.raises(LabError, match=r"a process that makes images ended early \(SIGKILL\)"):
        list(found)
    assert children() == before


def test_a_process_that_fails_says_why_in_that_line(processes, capfd):
    with pytest.raises(LabError, match=r"\(exit code 1: ValueError: tuple.index"):
        list(leaf_blocks.examples_of(SMALL, 0, "none", 3 * BLOCK))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wish_to_stop_is_for_the_reader(processes, number):
    before = children()
    found = leaf_blocks.examples_of(SMALL, 0, "train", 30 * BLOCK)
    first = list(itertools.islice(found, 2 * BLOCK + 1))  # from each of the three
    made = [each for each in children() if each not in before]
    assert all(os.getsid(each) != os.getsid(0) for each in made)
    for each in made:
        os.kill(each, number)
    assert len(first) + len(list(found)) == 30 * BLOCK


def test_the_code_is_that_of_the_reader_wherever_it_stands(processes, monkeypatch, tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").write_text("raise RuntimeError('another lab')")
    monkeypatch.chdir(tmp_path)
    assert len(list(leaf_blocks.examples_of(SMALL, 0, "train", 3 * BLOCK))) == 3 * BLOCK


def test_a_reader_that_knows_no_interpreter_makes_images_itself(monkeypatch):
    monkeypatch.setattr(leaf_blocks, "PAYS_FROM", 1)
    monkeypatch.setattr(sys, "executable", "")
    assert len(list(leaf_blocks.examples_of(SMALL, 0, "train", 3 * BLOCK))) == 3 * BLOCK


def test_a_process_ends_with_a_killed_reader():
    asked = '{"knobs": {}, "seed": 0, "split": "train", "blocks": [0, 1000000, 1]}'
    made = subprocess.Popen(
        [sys.executable, "-m", "lab.data.leaf_blocks", asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=leaf_blocks.ROOT,
    )
    assert made.stdout is not None and made.stderr is not None
    assert len(made.stdout.read(8)) == 8
    made.stdout.close()  # as the system does for a dead reader
    began_s = time.monotonic()
    assert made.wait(timeout=30) == 0
    assert made.stderr.read() == b""
    made.stderr.close()
    assert time.monotonic() - began_s < 30


def test_makers_have_the_cores_that_their_reader_was_given(monkeypatch):
    """A reader keeps to one of two, as a worker of a sweep does."""
    kept = []

    class Ended(Exception):
        """The first maker would begin here."""

    def popen(*given, **more):
        kept.append(leaf_blocks.given_core_count())
        raise Ended

    monkeypatch.setattr(cores, "_GIVEN", [0, 1])
    monkeypatch.setattr(cores, "usable_cores", lambda: [1])
    seen = []
    monkeypatch.setattr(cores, "keep_to", lambda wanted: seen.append(list(wanted)))
    monkeypatch.setattr(leaf_blocks.subprocess, "Popen", popen)
    with pytest.raises(Ended):
        list(leaf_blocks.examples_of(SMALL, 0, "train", 2 * leaf_blocks.PAYS_FROM * BLOCK))
    assert (kept, seen) == ([2], [[0, 1], [1]])
