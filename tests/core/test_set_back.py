"""A run that is set back: checkpoints that are held or forgotten, rows that stand or fall."""

import json

import numpy as np
import pytest

from lab.core import store as stores
from lab.core.errors import LabError, NotSaved
from lab.core.record import Record
from lab.core.store import Store

TREE = {"w": np.arange(4.0, dtype=np.float32)}


def fill(store, steps):
    for step in steps:
        store.save(step, {"w": TREE["w"] + step}, metrics={})
    store.wait()


def test_held_steps_are_not_pushed_out_and_go_when_they_are_let_go(tmp_path):
    with Store(tmp_path, keep_last=1) as store:
        store.held = frozenset({2, 3})
        fill(store, [1, 2, 3, 4, 5])
        assert store.steps() == (2, 3, 5)
        store.held = frozenset()
        fill(store, [6])
        assert store.steps() == (6,)


def test_a_run_that_is_set_back_restores_up_to_a_step_and_forgets_the_newer_ones(tmp_path):
    with Store(tmp_path, keep_last=9) as store:
        fill(store, [2, 4, 6, 8])
        found = store.restore(TREE, up_to=6)
        assert found.step == 6 and found.tree["w"][0] == 6
        assert store.restore(TREE, up_to=5).step == 4
        assert store.restore(TREE, up_to=1) is None
        store.forget_after(4)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]
        assert store.restore(TREE).step == 4


@pytest.mark.parametrize("failures", [1, 2])
def test_a_deadline_that_passes_is_a_jump_of_the_clock_once_and_a_slow_disk_twice(
    tmp_path, monkeypatch, failures
):
    real, left = stores.write_arrays, [failures]

    def late(folder, arrays):
        left[0] -= 1
        if left[0] >= 0:
            folder.mkdir()  # what a save that failed leaves
            raise TimeoutError("Overall save timeout exceeded.")
        real(folder, arrays)

    monkeypatch.setattr(stores, "write_arrays", late)
    with Store(tmp_path) as store:
        store.save(3, TREE, metrics={})
        if failures == 1:
            store.wait()
            assert store.restore(TREE).step == 3
        else:
            with pytest.raises(NotSaved, match="3: not saved: Overall save timeout exceeded"):
                store.wait()
            assert list(tmp_path.iterdir()) == []


HEADER = {"identity": "a"}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def train(step):
    return {"kind": "train", "step": step}


def back(number, *, step, to_step):
    return {"kind": "spike", "step": step, "to_step": to_step, "rollback": number}


def test_setting_back_drops_rows_and_keeps_the_rollbacks_that_lie_behind(tmp_path):
    path = tmp_path / "record.jsonl"
    record = Record(path, HEADER, step=0)
    for step in range(1, 6):
        record.append(train(step))
        if step == 2:
            record.append({"kind": "evaluation", "step": 2})
    record.set_back(2, rollbacks=0)
    record.append(back(1, step=5, to_step=2))
    record.append(train(3))
    kept = [train(1), train(2), {"kind": "evaluation", "step": 2}, back(1, step=5, to_step=2)]
    assert rows(path) == [*kept, train(3)]
    assert record.steps == {"train": [1, 2], "evaluation": [2]}, "not evaluated again"
    record.close()
    # Restored at step 3: with the rollback behind it, or at a checkpoint from before it.
    for rollbacks, standing in ((1, kept), (0, kept[:3])):
        again = Record(path, HEADER, step=3, rollbacks=rollbacks)
        again.close()
        assert rows(path) == [*standing, train(3)]


def test_a_follower_knows_the_same_steps_and_writes_nothing(tmp_path):
    path = tmp_path / "record.jsonl"
    record = Record(path, HEADER, step=0, follows=True)
    for row in (train(1), {"kind": "evaluation", "step": 1}, train(2)):
        record.append(row)
    record.set_back(1, rollbacks=0)
    assert record.steps == {"train": [1], "evaluation": [1]}
    assert not path.exists()


def test_a_check_before_the_commit_stops_it(tmp_path):
    """As of a run that another process has taken over while this one wrote."""

    def check():
        raise LabError("taken over")

    with Store(tmp_path / "run") as store:
        store.save(1, {"x": np.ones(3)}, metrics={})
    store = Store(tmp_path / "run", check=check)
    store.save(2, {"x": np.ones(3)}, metrics={})
    with pytest.raises(LabError, match="taken over"):
        store.wait()
    store.close()
    assert store.steps() == (1,)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["1"]
