"""Damage to a checkpoint: fall back by name, or stop."""

import os

import numpy as np
import pytest

from lab.core.errors import LabError
from lab.core.store import Skipped, Store
from tests.core.checkpoints import assert_same, damage, fill, tree


def test_no_checkpoint_is_none(tmp_path):
    with Store(tmp_path / "new" / "checkpoints", keep_last=1) as opened:
        assert opened.restore(tree(0)) is None
    assert Store(tmp_path / "never_made", writable=False).restore(tree(0)) is None


def test_damage_falls_back_to_the_newest_good_step_and_names_the_rest(tmp_path):
    fill(tmp_path, [10, 20, 30])
    name = damage(tmp_path, 20)
    (tmp_path / "30" / "manifest.json").unlink()
    reader = Store(tmp_path, writable=False)
    restored = reader.restore(tree(0))
    assert restored.step == 10 and restored.metrics == {"tokens": 10}
    assert_same(restored.tree, tree(10))
    assert restored.skipped == (
        Skipped(30, "manifest.json is missing: the step was never committed"),
        Skipped(20, f"{name}: the digest differs"),
    )
    assert reader.steps() == (10, 20)
    damage(tmp_path, 10)
    with pytest.raises(LabError, match="no good checkpoint: step 30: .*; step 20: .*; step 10: "):
        reader.restore(tree(0))


def test_a_step_asked_for_by_number_is_that_or_an_error(tmp_path):
    reader = Store(fill(tmp_path, [10, 20]), writable=False)
    assert_same(reader.restore(tree(0), step=10).tree, tree(10))
    with pytest.raises(LabError, match="no step 15; there are 10, 20"):
        reader.restore(tree(0), step=15)
    damage(tmp_path, 20)
    with pytest.raises(LabError, match="no good checkpoint: step 20: "):
        reader.restore(tree(0), step=20)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": np.empty((3, 4), "f4")}, 'leaf "b" is in it and not expected'),
        ({"a": np.empty(1), **tree(0)}, 'leaf "a" is not in it'),
        (
            tree(0) | {"w": np.empty((4, 3), "f4")},
            r'leaf "w" is float32\[3,4\] in it, float32\[4,3',
        ),
        (
            tree(0) | {"b": np.empty(5, "f4")},
            r'leaf "b" is int32\[5\] in it, float32\[5\] expected',
        ),
    ],
)
def test_another_tree_is_an_error_and_no_damage(tmp_path, like, message):
    with Store(tmp_path, keep_last=2) as opened:
        opened.save(1, like, metrics={})  # one that would fit is there, and older
        opened.save(2, tree(2), metrics={})
        with pytest.raises(LabError, match=f"2: the checkpoint is of another tree: {message}"):
            opened.restore(like)
        assert sorted(os.listdir(tmp_path)) == ["1", "2"]
        assert opened.restore(tree(0)).step == 2  # and it is not held to be damaged


def test_a_damaged_step_never_pushes_out_a_good_one(tmp_path):
    fill(tmp_path, [10, 20])
    damage(tmp_path, 20)
    with Store(tmp_path, keep_last=1) as opened:
        assert opened.restore(tree(0)).step == 10
        opened.save(15, tree(15), metrics={})
        opened.wait()
        assert opened.steps() == (15,)
        assert opened.restore(tree(0)).step == 15
        opened.save(20, tree(20), metrics={})  # the run comes by again: replaced
        restored = opened.restore(tree(0))
        assert (restored.step, restored.skipped) == (20, ())
    assert os.listdir(tmp_path) == ["20"]


def test_a_damaged_step_does_not_count_among_the_last(tmp_path):
    fill(tmp_path, [10, 20])
    damage(tmp_path, 20)
    with Store(tmp_path, keep_last=2) as opened:
        opened.restore(tree(0))
        opened.save(30, tree(30), metrics={})
        opened.wait()
        assert opened.steps() == (10, 30)
        opened.save(40, tree(40), metrics={})
        opened.wait()
        assert opened.steps() == (30, 40)
