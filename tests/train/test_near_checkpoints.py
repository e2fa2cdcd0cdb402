"""Checkpoints on a host's own disk: gone on from where they are newest and whole."""

import shutil

import pytest

from lab.core.errors import LabError
from lab.train.loop import Loop, Status
from tests.train.jobs import hooks, job, record, train
from tests.train.test_guard import Killed, slow

OFTEN = {
    "size": "s1",
    "validation": 16,
    "execution.checkpoint_every_steps": 6,
    "optimizer.ema_decay": 0.9,
    "model.class_dropout": 0.2,
}


def near(tmp_path, **overrides):
    more = {
        "execution.local_checkpoints": str(tmp_path / "disk"),
        "execution.local_checkpoint_every_steps": 2,
    }
    return job(tmp_path, **{**OFTEN, "layout": "fsdp", **more, **overrides})


def killed_at(made, step):
    """Train and die before that update, with all saves on the disk."""

    def should_stop():
        if loop.step == step:
            loop.store.wait()
            raise Killed
        return False

    loop = Loop(made, hooks(should_stop=should_stop))
    with pytest.raises(Killed):
        loop.run()


def started(made, warnings=None):
    """The loop as it would go on."""
    said = [] if warnings is None else warnings
    return Loop(made, hooks(warn=said.append))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    made = job(tmp_path_factory.mktemp("straight"), layout="fsdp", **OFTEN)
    assert train(made).status is Status.FINISHED
    return made


def left(loop):
    """Close what a run that is not gone on with holds open."""
    loop.store.close()
    loop.record.close()


def disk(tmp_path, made):
    return tmp_path / "disk" / made.directory.parent.name / made.directory.name / "0-of-1"


def ends_the_same(loop, straight):
    assert loop.run().status is Status.FINISHED
    assert record(loop.job) == record(straight)


@pytest.mark.parametrize(("killed", "goes_on"), [slow(5, 4), slow(7, 6), (9, 8)])
def test_a_run_goes_on_bit_for_bit_from_the_newest_of_both(tmp_path, straight, killed, goes_on):
    """Shared at 6, near at 2, 4 and 8: where one is shared none is saved near."""
    made = near(tmp_path)
    assert made.identity == straight.identity
    killed_at(made, killed)
    steps = [path.name for path in disk(tmp_path, made).iterdir()]
    assert steps == [str(goes_on if goes_on != 6 else 4)]
    loop = started(near(tmp_path))
    assert loop.start == goes_on
    ends_the_same(loop, straight)
    assert not disk(tmp_path, made).exists(), "a finished run leaves nothing on the disk"


@pytest.mark.slow
def test_a_host_that_came_new_goes_on_from_what_is_shared(tmp_path, straight):
    killed_at(near(tmp_path), 9)
    shutil.rmtree(tmp_path / "disk")
    loop = started(near(tmp_path))
    assert loop.start == 6
    ends_the_same(loop, straight)


@pytest.mark.parametrize("which", ["*.bin", slow("manifest.json")])
def test_a_damaged_one_is_passed_over_and_named(tmp_path, straight, which):
    made = near(tmp_path)
    killed_at(made, 9)
    (step,) = disk(tmp_path, made).iterdir()
    largest = max(step.glob(which), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 16
    largest.write_bytes(content)
    warnings = []
    loop = started(near(tmp_path), warnings)
    assert loop.start == 6
    (line,) = warnings
    assert (
        "disk" in line
        and ("/8: " in line or "step 8: " in line)
        and line.endswith("falling back to step 6")
    )
    ends_the_same(loop, straight)


@pytest.mark.parametrize("other", [{"layout": "fsdp_tp"}, slow({"devices": 4})])
def test_another_layout_goes_on_from_what_is_shared(tmp_path, other):
    killed_at(near(tmp_path), 9)
    loop = started(near(tmp_path, **other))
    assert loop.start == 6
    left(loop)


def test_an_interrupted_run_is_saved_where_all_can_read_it(tmp_path):
    """It may go on elsewhere."""
    made = near(tmp_path)
    outcome = train(made, stop_at=3)
    assert (outcome.status, outcome.step) == (Status.INTERRUPTED, 3)
    assert (made.directory / "checkpoints" / "3").is_dir()
    killed_at(near(tmp_path), 5)
    loop = started(near(tmp_path))
    assert loop.start == 4
    outcome = loop._interrupted(4)
    assert outcome.step == 4 and (made.directory / "checkpoints" / "4").is_dir()
    left(loop)


@pytest.mark.parametrize(("folder", "every"), [("disk", 0), ("", 5)])
def test_a_place_without_an_interval_is_refused(tmp_path, folder, every):
    more = {
        "execution.local_checkpoints": folder,
        "execution.local_checkpoint_every_steps": every,
    }
    with pytest.raises(LabError, match="both are expected, or none"):
        job(tmp_path, **more)
