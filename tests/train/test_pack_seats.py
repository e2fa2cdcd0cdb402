"""Seats of a pack: whose run is set back, seats that nobody takes, frozen weights, rows."""

import threading

import jax
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.train.dispatch import Asked
from lab.train.loop import Loop, Status
from lab.train.optimizer import Numbers
from lab.train.pack import Lane, Pack
from lab.train.pack_metrics import Fetched, Row
from lab.train.programs import Steps
from tests.train import tokenizer_jobs
from tests.train.family_jobs import family_job
from tests.train.jobs import hooks, job, record, train
from tests.train.test_guard import ROLLBACK, harmed
from tests.train.test_pack import (
    COMMON,
    MEMBERS,
    assert_finished,
    assert_same,
    folders,
    seated,
    together,
)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_rollback_sets_one_member_back_and_not_the_others(tmp_path, devices):
    """It returns to step 6 where the others are at 8; the short ones have left by then."""
    common = {"size": "s1", "validation": 16, **ROLLBACK}
    members = [
        {"seed": 3},
        {"seed": 4},
        {"seed": 5, "train.duration": "4 steps"},
        {"seed": 6, "train.duration": "4 steps"},
    ]

    def make(folder, **given):
        made = job(folder, **given)
        return harmed(made, bad=(7,)) if made.run.seed == 3 else made

    alone = [
        make(tmp_path / f"alone{number}", devices=1, **{**common, **member})
        for number, member in enumerate(members)
    ]
    for each in alone:
        assert train(each).status is Status.FINISHED
    spikes = [[row for row in record(each) if row["kind"] == "spike"] for each in alone]
    assert [len(each) for each in spikes] == [1, 0, 0, 0]
    made, outcomes = together(
        folders(tmp_path, 4), members, devices=devices, make=make, common=common
    )
    assert_finished(outcomes)
    assert_same(made, alone, bits=True)


@pytest.mark.slow
def test_a_device_whose_seats_are_left_before_the_first_update(tmp_path):
    """As where another process was quicker to claim these runs."""
    alone = job(tmp_path / "alone", devices=1, **COMMON, **MEMBERS[1])
    train(alone)
    pack = Pack(2, jax.devices()[:2])
    made = seated(tmp_path / "made", pack.seats[0], **COMMON, **MEMBERS[1])
    pack.seats[1].leave()
    assert Loop(made, hooks(), pack.seats[0]).run().status is Status.FINISHED
    assert_same([made], [alone], bits=True)


@pytest.mark.slow
def test_batches_that_the_devices_draw(tmp_path):
    """Latents are drawn where the run lives; two share the first of two devices."""

    def make(folder, **given):
        return family_job(folder, "mar", **given)

    common = {"execution.steps_per_dispatch": 3, "train.evaluate_every_steps": 0}
    members = [{"seed": 0}, {"seed": 1}, {"seed": 2, "train.duration": "6 steps"}]
    alone = [
        make(tmp_path / f"alone{number}", devices=1, **common, **member)
        for number, member in enumerate(members)
    ]
    for each in alone:
        assert train(each).status is Status.FINISHED
    made, outcomes = together(folders(tmp_path, 3), members, devices=2, make=make, common=common)
    assert_finished(outcomes)
    assert [record(each) for each in made] == [record(each) for each in alone]


def test_what_a_run_alone_is_refused_for_every_member_is(tmp_path):
    """Members share the steps of the first one that sat down, and have lengths of their own."""

    def make(folder, **given):
        adversarial = {**tokenizer_jobs.ADVERSARIAL, "losses.adversarial_start": "5 steps"}
        return tokenizer_jobs.job(folder, "vq", **adversarial, **given)

    pack = Pack(2, jax.devices()[:1])
    made = [
        seated(tmp_path / str(number), pack.seats[number], make, **{"train.duration": duration})
        for number, duration in enumerate(["9 steps", "4 steps"])
    ]
    with pytest.raises(LabError, match="step 5 of a run of 4: the discriminator would never begin"):
        Loop(made[1], hooks(), pack.seats[1])


def asked_on(device, value):
    """One update on a batch that lies on a device."""
    batch = {"x": jax.device_put(np.full((1, 1), value, np.float32), device)}
    numbers = Numbers(np.zeros(1, np.float32), np.zeros(1, np.float32))
    return Asked(batches=batch, seed=0, updates_K=np.arange(1, dtype=np.uint32), numbers_K=numbers,
                 count=1)  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3])
def test_weights_that_do_not_train_are_on_every_device(count):
    devices = jax.devices()[:count]

    def update(state, batch, key, numbers, frozen):
        return {"sum": state["sum"] + batch["x"][0] * frozen["w"]}, {"x": batch["x"][0]}

    frozen = ({"w": jax.device_put(np.float32(10), devices[0])},)

    def evaluate(params, batch):
        return {"x": batch["x"]}

    steps = Steps(train=update, several=None, evaluate=evaluate, update=update, frozen=frozen)
    pack = Pack(3, devices)
    found = {}

    def sit(number):
        device = pack.device_of(number)
        state = {"sum": jax.device_put(np.float32(number), device)}
        for value in (1.0, 2.0):
            row = pack.started(number, steps, state, asked_on(device, value))
            state = Lane(pack, number)
        found[number] = (float(state["sum"]), float(np.asarray(row["x"])[0]))
        pack.leave(number)

    threads = [threading.Thread(target=sit, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == {number: (number + 30.0, 2.0) for number in range(3)}


def test_to_name_a_metric_is_not_to_wait_for_it(monkeypatch):
    """The loop names one right after it has started the updates, and works while they run."""
    waited = []
    plain = Fetched.of

    def of(self, name):
        waited.append(name)
        return plain(self, name)

    monkeypatch.setattr(Fetched, "of", of)
    row = Row(Fetched({"x": jax.numpy.arange(6.0).reshape(2, 3)}), 1)
    named = row["x"]
    assert waited == []
    np.testing.assert_array_equal(np.asarray(named), [3.0, 4.0, 5.0])
    assert waited == ["x"]
