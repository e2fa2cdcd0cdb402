"""Draws of an evaluation: what decides an image, which classes are drawn, parts on disk."""

from types import SimpleNamespace

import numpy as np

from lab.launch import evaluate_draws


class Labels:
    """A set of images of which only the classes and the identity are asked."""

    identity = "images-a"

    def labels(self, count, progress):
        return np.resize([3, 1, 2], count).astype(np.int32)


def drawing(**settings):
    usual = {"sampler": {"guidance": {"scale": 1.0}}, "seed": 0, "labels": "data", "samples": 7}
    return SimpleNamespace(
        settings={**usual, **settings},
        reference=Labels(),
        trained=SimpleNamespace(step=3, weights="raw", classes=4),
    )


def test_classes_are_those_of_the_reference_or_each_as_often():
    tools = SimpleNamespace(told=lambda what: None)
    wanted = evaluate_draws.wanted_of(drawing(), tools)
    assert wanted.class_N.tolist() == [3, 1, 2, 3, 1, 2, 3]
    assert wanted.number_N.tolist() == list(range(7))
    balanced = evaluate_draws.wanted_of(drawing(labels="balanced"), tools)
    assert balanced.class_N.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert balanced.class_N.dtype == np.int32


def test_draws_are_known_by_all_that_decides_an_image_and_not_by_their_number():
    key = evaluate_draws.draw_key
    one = key(drawing())
    assert key(drawing(samples=900)) == one and key(drawing(level=0.5)) == one
    others = [drawing(seed=1), drawing(labels="balanced"), drawing(sampler={})]
    step = drawing()
    step.trained.step = 4
    assert len({one, *map(key, others), key(step)}) == 5
    other = drawing()
    other.reference.identity = "images-b"
    assert key(other) != one
    balanced = drawing(labels="balanced")
    balanced.reference.identity = "images-b"
    assert key(balanced) == key(drawing(labels="balanced"))


def test_parts_are_read_as_far_as_they_are_whole(tmp_path):
    rng = np.random.default_rng(0)
    for first in (0, 8, 16):
        evaluate_draws.write_part(tmp_path, first, rng.integers(0, 9, (8, 4, 1)))
    assert [len(part) for part in evaluate_draws.read_parts(tmp_path)] == [8, 8, 8]
    path = tmp_path / "00000008.npy"
    path.write_bytes(path.read_bytes()[:-9])
    assert len(evaluate_draws.read_parts(tmp_path)) == 1
    path.unlink()
    assert len(evaluate_draws.read_parts(tmp_path)) == 1
    assert evaluate_draws.read_parts(tmp_path / "none") == []
