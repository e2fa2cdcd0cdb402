"""Where a branch may begin: behind no rollback of the trunk alone, and before its own end."""

import pathlib
import shutil

import numpy as np

from lab.launch.branching import begin_in_trunk
from lab.launch.plan_runs import planned_run
from lab.train.loop import Status
from tests.train.jobs import job, record, train
from tests.train.test_branches import COMMON
from tests.train.test_dispatch import leaves_of
from tests.train.test_guard import harmed

GUARDED = {
    **COMMON,
    "train.evaluate_every_steps": 0,
    "train.guard.policy": "rollback",
    "train.guard.window": 8,
    "train.guard.rollback_steps": 6,
    "execution.keep_last": 1,
}


def trunk(folder, steps, branches, *, bad=(), **more):
    given = {"optimizer.schedule": "constant", "execution.branches": branches, **more}
    made = harmed(job(folder, **{**GUARDED, "train.duration": steps, **given}), bad=bad)
    assert train(made).status is Status.FINISHED
    return made


def branch(folder, steps, trunk_steps, *, bad=(), **more):
    given = {"optimizer.schedule": "wsd", "execution.trunk": trunk_steps, **more}
    return harmed(job(folder, **{**GUARDED, "train.duration": steps, **given}), bad=bad)


def begun(made):
    """Warnings, and the step at which the branch begins."""
    warnings = []
    begin_in_trunk(made, warn=warnings.append)
    folder = made.directory / "checkpoints"
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()] if folder.exists() else []
    return warnings, max(steps, default=0)


def assert_ends_as_alone(made, alone):
    assert train(alone).status is Status.FINISHED
    assert train(made).status is Status.FINISHED
    assert record(made) == record(alone)
    for ours, theirs in zip(leaves_of(made), leaves_of(alone), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_not_behind_a_rollback_that_the_run_alone_does_not_make(tmp_path):
    """The trunk spikes in update 10 and goes back to 6, over step 7, where the branch cools."""
    bad = (9,)
    root = trunk(tmp_path, "12 steps", "9 steps", bad=bad)
    made = branch(tmp_path, "9 steps", "12 steps", bad=bad)
    assert begun(made) == ([], 6)
    plan = planned_run(made.run, made, rung="", identities={root.identity})
    assert (plan.trunk, plan.own_steps) == (root.identity, 3)
    assert_ends_as_alone(made, branch(tmp_path / "alone", "9 steps", "", bad=bad))


def test_not_after_the_step_to_which_a_rollback_may_return(tmp_path):
    """The trunk ends at 9, where the branch cools; a spike in update 11 leads it back to 6."""
    trunk(tmp_path, "9 steps", "12 steps")
    made = branch(tmp_path, "12 steps", "9 steps", bad=(10,))
    assert begun(made) == ([], 6)
    assert_ends_as_alone(made, branch(tmp_path / "alone", "12 steps", "", bad=(10,)))


def test_a_branch_without_a_cooldown_has_the_last_row_of_its_training(tmp_path):
    more = {"optimizer.cooldown_fraction": 0.0, "train.log_every_steps": 3}
    more |= {"train.guard.policy": "stop", "train.guard.window": 128}
    more |= {"train.guard.rollback_steps": 100}
    trunk(tmp_path, "12 steps", "8 steps", **more, **{"execution.keep_last": 9})
    made = branch(tmp_path, "8 steps", "12 steps", **more)
    begin_in_trunk(made, warn=lambda line: None)
    assert_ends_as_alone(made, branch(tmp_path / "alone", "8 steps", "", **more))


def test_rows_of_a_near_checkpoint_are_not_lost(tmp_path):
    """The branch began alone and was killed after step 10; its trunk has step 9 by now."""
    plain = {"train.guard.policy": "stop", "train.guard.window": 128}
    plain |= {"train.guard.rollback_steps": 100}
    near = {"execution.local_checkpoints": str(tmp_path / "near")}
    near |= {"execution.local_checkpoint_every_steps": 2}
    made = branch(tmp_path, "12 steps", "12 steps", **plain, **near)
    train(made, stop_at=11)
    shutil.rmtree(made.directory / "checkpoints")
    trunk(tmp_path, "12 steps", "12 steps", **plain)
    again = branch(tmp_path, "12 steps", "12 steps", **plain, **near)
    begin_in_trunk(again, warn=lambda line: None)
    assert_ends_as_alone(again, branch(tmp_path / "alone", "12 steps", "", **plain))


def test_a_step_that_is_deleted_while_it_is_copied(tmp_path, monkeypatch):
    """By a trunk that is in training yet: an older one is taken."""
    plain = {"train.guard.policy": "stop", "train.guard.window": 128}
    plain |= {"train.guard.rollback_steps": 100, "execution.keep_last": 9}
    plain |= {"execution.checkpoint_every_steps": 3}
    trunk(tmp_path, "12 steps", "8 steps", **plain)
    real = shutil.copytree

    def copies(source, target, *given, **more):
        if pathlib.Path(source).name == "6":
            shutil.rmtree(next(p for p in source.iterdir() if p.is_dir()))
        return real(source, target, *given, **more)

    monkeypatch.setattr(shutil, "copytree", copies)
    made = branch(tmp_path, "8 steps", "12 steps", **plain)
    warnings, first = begun(made)
    assert first == 3 and "6" in warnings[0]
    assert not list((made.directory / "checkpoints").glob(".*"))
    assert_ends_as_alone(made, branch(tmp_path / "alone", "8 steps", "", **plain))
