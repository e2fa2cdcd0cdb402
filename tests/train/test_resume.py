"""Where a run goes on from: whatever was cut short, or could not be read for a while."""

import shutil

import pytest

from lab.core.errors import LabError
from lab.train import loop as loops
from lab.train.hooks import Doing
from lab.train.loop import Status
from tests.train.jobs import hooks, job, record, train
from tests.train.test_guard import ROLLBACK, harmed
from tests.train.test_guard import job as guarded

SMALLEST = {"devices": 1, "size": "s1", "validation": 16}


def trained_steps(made):
    return [row["step"] for row in record(made) if row["kind"] == "train"]


def test_a_checkpoint_that_cannot_be_read_for_a_while_does_not_come_back(tmp_path):
    """Stopped at 8, gone on from 6 to 7: step 8 would stand behind a record without its row."""
    every = {**SMALLEST, "execution.checkpoint_every_steps": 3, "execution.keep_last": 3}
    straight = job(tmp_path / "straight", **every)
    train(straight)
    train(job(tmp_path, **every), stop_at=8)
    made = job(tmp_path, **every)
    manifest = made.directory / "checkpoints" / "8" / "manifest.json"
    content = manifest.read_bytes()
    manifest.unlink()
    warnings = []
    shown = job(tmp_path, **every)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.train.jobs.made_start", lambda made: 6)
        assert train(shown, stop_at=7, warn=warnings).step == 7
    assert len(warnings) == 1 and "falling back to step 6" in warnings[0]
    assert not manifest.exists(), "the step is set aside"
    (aside,) = (made.directory / "checkpoints").glob(".damaged-*")
    (aside / "manifest.json").write_bytes(content)
    train(job(tmp_path, **every))
    assert trained_steps(made) == list(range(1, 11))
    assert record(made) == record(straight)
    assert not list((made.directory / "checkpoints").glob(".damaged-*"))


@pytest.mark.parametrize("step", [5, pytest.param(10, marks=pytest.mark.slow)])
def test_an_evaluation_whose_second_row_is_missing_is_made_anew(tmp_path, step):
    averaged = {**SMALLEST, "optimizer.ema_decay": 0.9, "execution.checkpoint_every_steps": 5}
    straight = job(tmp_path / "straight", **averaged)
    train(straight)
    made = job(tmp_path / "cut", **averaged)
    train(made, stop_in=step, looks=1)  # saved without the evaluation
    path = made.directory / "record.jsonl"
    row = next(
        line
        for line in (straight.directory / "record.jsonl").read_text().splitlines(keepends=True)
        if f'"evaluation", "step": {step},' in line and '"raw"' in line
    )
    path.write_text(path.read_text() + row)
    train(job(tmp_path / "cut", **averaged))
    assert record(made) == record(straight)


def test_a_rollback_to_the_beginning_is_not_forgotten_by_a_stop_there(tmp_path):
    straight = harmed(guarded(tmp_path / "straight", **ROLLBACK), bad=(1,))
    train(straight)
    assert [r["to_step"] for r in record(straight) if r["kind"] == "spike"] == [0]
    outcome = train(harmed(guarded(tmp_path, **ROLLBACK), bad=(1,)), stop_at=3)
    assert (outcome.status, outcome.step) == (Status.INTERRUPTED, 0)
    made = harmed(guarded(tmp_path, **ROLLBACK), bad=(1,))
    train(made)
    assert record(made) == record(straight)


def test_a_rollback_with_no_checkpoint_to_return_to_deletes_none(tmp_path):
    kept = {**ROLLBACK, "execution.keep_last": 1}
    made = harmed(guarded(tmp_path, **kept), bad=(7,))
    train(made, stop_at=7)
    folder = made.directory / "checkpoints"
    for path in folder.iterdir():
        if path.name != "7":
            shutil.rmtree(path)
    with pytest.raises(LabError, match="no checkpoint up to step 6, to which the spike of step 8"):
        train(harmed(guarded(tmp_path, **kept), bad=(7,)))
    assert [path.name for path in folder.iterdir()] == ["7"]


@pytest.mark.parametrize("ends", ["diverged", "stopped"])
def test_a_wait_for_a_save_is_told_to_the_watchdog(tmp_path, monkeypatch, ends):
    """A save may take ten times as long as an update, and a watchdog allows for it."""
    wild = {"optimizer.learning_rate": 1e6, "optimizer.clip_norm": 0.0, "train.explode_factor": 1.5}
    more = wild if ends == "diverged" else {}
    beats, waits = [], []
    real = loops.Loop._wait_for_save

    def watched(self):
        real(self)
        waits.append(beats[-1])

    monkeypatch.setattr(loops.Loop, "_wait_for_save", watched)
    given = hooks(
        should_stop=lambda: ends == "stopped" and len(beats) > 12,
        beat=lambda doing, step: beats.append(doing),
    )
    outcome = loops.Loop(job(tmp_path, **SMALLEST, **more), given).run()
    assert outcome.status is (Status.DIVERGED if ends == "diverged" else Status.INTERRUPTED)
    assert waits == [Doing.SAVING] and beats[-1] is Doing.SAVING


def test_nothing_is_saved_or_ended_after_a_claim_is_lost(tmp_path):
    """It is another's by the time of the save: what was written before stays, nothing is added."""

    class Lost(Exception):
        pass

    made = job(tmp_path, **SMALLEST, **{"execution.checkpoint_every_steps": 3})
    lost = []

    def check():
        if lost:
            raise Lost

    def beat(doing, step):
        if doing is Doing.UPDATING and step == 2:
            lost.append(True)

    with pytest.raises(Lost):
        loops.Loop(made, hooks(beat=beat, check_claim=check)).run()
    assert trained_steps(made) == [1], "row 2 would be written beside update 3"
    assert not list((made.directory / "checkpoints").iterdir())
