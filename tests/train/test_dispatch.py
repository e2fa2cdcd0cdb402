"""Several updates in one dispatch: the numbers of one at a time, whichever go together."""

import json

import jax
import numpy as np
import pytest

from lab.core.keys import Stream
from lab.train.loop import Status
from tests.train import classifier_jobs, tokenizer_jobs
from tests.train.jobs import job, losses, record, train
from tests.train.test_guard import ROLLBACK, SKIP, harmed, state_of
from tests.train.test_guard import job as guarded

RANDOM = {
    "devices": 1,
    "size": "s1",
    "model.class_dropout": 0.2,
    "model.residual_dropout": 0.1,
    "optimizer.ema_decay": 0.9,
}
FOUR = {**RANDOM, "execution.steps_per_dispatch": 4}


def leaves_of(made):
    return jax.tree.leaves(state_of(made))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Ten updates by fours: 4, 1 up to the evaluation after 5, 4, 1."""
    made = job(tmp_path_factory.mktemp("straight"), **FOUR)
    assert train(made).status is Status.FINISHED
    return made


def test_they_are_the_updates_of_one_at_a_time(tmp_path, straight):
    """To rounding: it is another program. Rows stand at the same steps."""
    alone = job(tmp_path, **RANDOM)
    assert alone.identity == straight.identity
    train(alone)
    np.testing.assert_allclose(losses(straight), losses(alone), rtol=1e-5)
    places = [(row["kind"], row.get("step")) for row in record(alone)]
    assert [(row["kind"], row.get("step")) for row in record(straight)] == places
    for ours, theirs in zip(leaves_of(straight), leaves_of(alone), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("dispatches", "step"), [(1, 4), (2, 5), (3, 9)])
def test_stop_and_go_on_is_bit_exact(tmp_path, straight, dispatches, step):
    made = job(tmp_path, **FOUR)
    outcome = train(made, stop_at=dispatches)
    assert (outcome.status, outcome.step) == (Status.INTERRUPTED, step)
    assert train(job(tmp_path, **FOUR)).status is Status.FINISHED
    assert record(made) == record(straight)


def test_the_bits_do_not_depend_on_which_updates_go_together(tmp_path, straight):
    """Checkpoints every 2 steps cut the dispatches elsewhere."""
    made = job(tmp_path, **FOUR, **{"execution.checkpoint_every_steps": 2})
    train(made)
    assert record(made) == record(straight)


def test_the_clock_shares_a_dispatch_among_its_updates(straight):
    """The clock of these tests ticks 0.5 s a look: no update took nothing."""
    lines = (straight.directory / "record.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    assert len(rows) == 10
    together = [row["clock"]["step_s"] for row in rows[5:9]]
    assert len(set(together)) == 1 and together[0] > 0


@pytest.mark.parametrize("layout", ["fsdp_tp", pytest.param("hsdp", marks=pytest.mark.slow)])
def test_it_is_sharded_as_one_at_a_time_is(tmp_path, layout):
    runs = [
        job(tmp_path / str(most), layout=layout, **{"execution.steps_per_dispatch": most})
        for most in (1, 3)
    ]
    for made in runs:
        train(made)
    np.testing.assert_allclose(losses(runs[1]), losses(runs[0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("jobs", "kind"),
    [pytest.param(tokenizer_jobs, "vq", marks=pytest.mark.slow), (classifier_jobs, "conv")],
)
def test_other_jobs_take_it_too(tmp_path, jobs, kind):
    of = {"devices": 1, "train.evaluate_every_steps": 0}
    runs = [
        jobs.job(tmp_path / str(most), kind, **of, **{"execution.steps_per_dispatch": most})
        for most in (1, 4)
    ]
    for made in runs:
        assert train(made).status is Status.FINISHED
    rows = [[row for row in record(made) if row["kind"] == "train"] for made in runs]
    key = runs[0].training_loss.key
    ours, theirs = ([row[key] for row in each] for each in rows)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("policy", [pytest.param(SKIP, marks=pytest.mark.slow), ROLLBACK])
def test_a_spike_inside_a_dispatch_is_answered_as_one_alone(tmp_path, policy):
    """Batch 7 is bad: update 8 is left out, or the run goes back to step 6 without it."""
    runs = [
        harmed(guarded(tmp_path / str(most), **policy, **{"execution.steps_per_dispatch": most}))
        for most in (1, 4)
    ]
    for made in runs:
        assert train(made, warn=[]).status is Status.FINISHED
    rows = [record(made) for made in runs]
    places = [[(row["kind"], row.get("step"), row.get("action")) for row in each] for each in rows]
    assert places[0] == places[1] and ("spike", 8, policy["train.guard.policy"]) in places[1]
    np.testing.assert_allclose(losses(runs[1]), losses(runs[0]), rtol=1e-5)


def test_an_evaluation_on_several_cpu_devices_is_over_when_it_returns(tmp_path):
    """Two that run side by side may wait for each other's threads for ever."""
    made = job(tmp_path, size="s1", devices=2)
    batch, _ = next(iter(made.validation_batches()))
    found = made.steps().evaluate(made.initial_state()["params"], batch)
    assert all(values.is_ready() for values in found.values())


def test_batches_of_a_dispatch_lie_as_one_at_a_time_does(tmp_path):
    """One transfer for all: the same rows on the same devices, the last batch again as padding."""
    made = job(tmp_path, size="s1", devices=4, **{"execution.steps_per_dispatch": 3})
    source = made.train_batches()
    batches = [source.at(step) for step in (5, 6)]
    stacked = made.stacked([*batches, batches[-1]], 5)
    for name, rows in stacked.items():
        placed = made.layout.batch_of(rows, axis=1)
        for at, step in enumerate((5, 6, 6)):
            alone = made.place(source.at(step), Stream.TRAIN, step)[name]
            want = {shard.device: np.asarray(shard.data) for shard in alone.addressable_shards}
            for shard in placed.addressable_shards:
                np.testing.assert_array_equal(shard.data[at], want[shard.device])
