"""Branching cooldowns: each branch is the run that it would be alone, bit for bit."""

import json
import shutil

import numpy as np
import pytest

from lab.core.branches import first_step_of_cooldown, trunk_of
from lab.core.config import identity, run_directory
from lab.core.errors import LabError
from lab.core.units import StepSize, parse_duration
from lab.launch.branching import begin_in_trunk, waits_for_trunk
from lab.train.loop import Status
from lab.train.optimizer import learning_rate
from tests.train.jobs import job, record, train
from tests.train.test_dispatch import leaves_of

COMMON = {
    "devices": 1,
    "size": "s1",
    "model.class_dropout": 0.2,
    "model.residual_dropout": 0.1,
    "optimizer.ema_decay": 0.9,
    "optimizer.cooldown_fraction": 0.25,
    "train.log_every_steps": 2,
    "train.evaluate_every_steps": 4,
}
SIZE = StepSize(
    batch_examples=8, epoch_examples=48, tokens_per_example=12, flops_per_token=1.0, parameters=1
)
LENGTHS = ("8 steps", "12 steps", "16 steps")  # cooldowns begin at 6, 9 and 12
TRUNK = {
    **COMMON,
    "optimizer.schedule": "constant",
    "train.duration": "12 steps",
    "execution.branches": ", ".join(LENGTHS),
    "execution.keep_last": 1,
}


def branch(tmp_path, length, **more):
    given = {"train.duration": length, "execution.trunk": "12 steps", **more}
    return job(tmp_path, **{**COMMON, "optimizer.schedule": "wsd", **given})


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """A trunk that was stopped on its way."""
    folder = tmp_path_factory.mktemp("trunk")
    made = job(folder, **TRUNK)
    train(made, stop_at=7)
    assert train(job(folder, **TRUNK)).status is Status.FINISHED
    return folder


def test_a_trunk_keeps_the_steps_where_cooldowns_begin(trunk):
    made = job(trunk, **TRUNK)
    assert made.branch_steps == {6, 9, 12}
    kept = sorted(int(path.name) for path in (made.directory / "checkpoints").iterdir())
    assert kept == [6, 9, 12]


@pytest.mark.parametrize(("length", "begins"), list(zip(LENGTHS, (6, 9, 12), strict=True)))
def test_a_branch_is_the_run_alone_bit_for_bit(trunk, tmp_path, length, begins):
    alone = branch(tmp_path, length, **{"execution.trunk": ""})
    train(alone)
    made = branch(trunk, length)
    warnings = []
    begin_in_trunk(made, warn=warnings.append)
    assert warnings == []
    about = json.loads((made.directory / "branch.json").read_text())
    assert (about["trunk"], about["step"]) == (identity(trunk_of(made.run)), begins)
    begun = record(made)
    assert begun and max(row.get("step", 0) for row in begun) <= begins
    train(made)
    assert made.identity == alone.identity
    assert record(made) == record(alone)
    for ours, theirs in zip(leaves_of(made), leaves_of(alone), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("total", [2, 7, 10, 33])
@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.25, 0.6])
def test_rates_of_trunk_and_branch_are_equal_up_to_the_cooldown(tmp_path, total, fraction):
    run = branch(tmp_path, "8 steps", **{"optimizer.cooldown_fraction": fraction}).run
    duration = parse_duration(f"{total} steps", path="x")
    begins = first_step_of_cooldown(run, duration, SIZE)
    trunk = trunk_of(run)

    def rates(of, steps, length):
        given = {"total_steps": length, "warmup_steps": 2}
        return [learning_rate(of.optimizer, step, **given) for step in range(steps)]

    assert rates(run, begins, total) == rates(trunk, begins, 12)
    if 2 < begins < total - 1:
        assert rates(run, begins + 2, total) != rates(trunk, begins + 2, 12)


@pytest.fixture
def copied(trunk, tmp_path):
    """The trunk without what branched off it in other tests."""
    made = job(trunk, **TRUNK)
    folder = tmp_path / "copied"
    shutil.copytree(made.directory, folder / made.directory.relative_to(trunk))
    return folder


def test_a_branch_with_a_checkpoint_of_its_own_goes_on_from_it(copied):
    made = branch(copied, "16 steps")
    begin_in_trunk(made, warn=pytest.fail)
    train(made, stop_at=2)
    before = sorted(path.name for path in (made.directory / "checkpoints").iterdir())
    begin_in_trunk(made, warn=pytest.fail)
    assert sorted(path.name for path in (made.directory / "checkpoints").iterdir()) == before


def test_without_the_trunks_checkpoint_it_begins_earlier_and_says_so(copied):
    made = branch(copied, "12 steps")
    steps = run_directory(trunk_of(made.run)) / "checkpoints"
    files = [path for path in (steps / "9").rglob("*") if path.is_file()]
    victim = next(path for path in files if path.suffix != ".json" and path.stat().st_size)
    victim.write_bytes(b"")
    warnings = []
    begin_in_trunk(made, warn=warnings.append)
    assert len(warnings) == 1 and "an older one" in warnings[0]
    assert json.loads((made.directory / "branch.json").read_text())["step"] == 6
    for step in (6, 9):
        shutil.rmtree(steps / str(step))
    other = branch(copied, "8 steps")
    begin_in_trunk(other, warn=warnings.append)
    assert "from the beginning" in warnings[1]
    assert not (other.directory / "record.jsonl").exists()


def test_a_trunk_of_other_data_is_refused(copied):
    with pytest.raises(LabError, match="data of the trunk"):
        begin_in_trunk(branch(copied, "16 steps", validation=21), warn=pytest.fail)


def test_which_runs_wait(trunk, tmp_path):
    never, always = (lambda run: False), (lambda run: True)
    made, root = branch(tmp_path, "8 steps"), job(tmp_path, **TRUNK)
    runs = [root.run, made.run]
    assert waits_for_trunk(made.run, runs, never), "the trunk is to be trained first"
    assert not waits_for_trunk(root.run, runs, never)
    assert not waits_for_trunk(made.run, [made.run], never), "nobody trains the trunk"
    assert not waits_for_trunk(made.run, runs, always), "nobody will"
    done = [job(trunk, **TRUNK).run, branch(trunk, "8 steps").run]
    assert not waits_for_trunk(done[1], done, never)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"optimizer.schedule": "cosine", "execution.trunk": "8 steps"}, "config.execution.trunk"),
        ({"optimizer.schedule": "wsd", "execution.branches": "8 steps"}, '"constant"'),
        ({"optimizer.schedule": "constant", "execution.branches": "8 miles"}, "8 miles"),
    ],
)
def test_refusals(tmp_path, more, words):
    with pytest.raises(LabError, match=words):
        job(tmp_path, **{**COMMON, **more})


def test_a_cooldown_that_begins_after_the_trunk_is_refused(tmp_path):
    made = job(tmp_path, **{**TRUNK, "execution.branches": "40 steps"})
    with pytest.raises(LabError, match="begins at step 30; allowed are 2 to 12"):
        made.branch_steps  # noqa: B018
