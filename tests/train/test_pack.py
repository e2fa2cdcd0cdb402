"""Packs: runs updated together are the runs alone, whatever the others do."""

import dataclasses
import threading

import jax
import numpy as np
import pytest

from configs.layouts import LAYOUTS
from lab.core.layout import make_layout
from lab.core.program import program
from lab.train.loop import Loop, Status
from lab.train.pack import Pack
from tests.compiling import COMPILED_AS_USERS_DO, passes_as_users_compile
from tests.train import tokenizer_jobs
from tests.train.jobs import hooks, job, losses, record, train
from tests.train.test_dispatch import leaves_of

COMMON = {
    "size": "s1",
    "model.class_dropout": 0.2,
    "model.residual_dropout": 0.1,
    "optimizer.ema_decay": 0.9,
    "execution.steps_per_dispatch": 4,
}
MEMBERS = [
    {"seed": 0},
    {"seed": 1, "optimizer.learning_rate": 0.003},
    {"seed": 0, "optimizer.weight_decay": 0.3, "optimizer.schedule": "cosine"},
    {"seed": 2, "train.duration": "7 steps", "train.log_every_steps": 2},
]


def seated(folder, seat, make=job, **given):
    """A job on the device of a seat."""
    made = make(folder, devices=1, **given)
    layout = make_layout("ddp", LAYOUTS, [seat.device])
    made.layout = dataclasses.replace(layout, traced=seat.traced)
    seat.sit(made)
    return made


def together(folders, members, *, devices=1, stop=None, make=job, common=COMMON):
    """Train the members in one pack, each in a thread; the jobs, and what came of them."""
    pack = Pack(len(members), jax.devices()[:devices])
    jobs = [
        seated(folder, seat, make, **{**common, **member})
        for folder, seat, member in zip(folders, pack.seats, members, strict=True)
    ]
    outcomes = {}

    def run(number):
        looks = iter(range(1000))
        wish = stop.get(number) if stop else None
        given = hooks(should_stop=lambda: wish is not None and next(looks) >= wish)
        try:
            loop = Loop(jobs[number], given, pack.seats[number])
            outcomes[number] = loop.run()
        except Exception as error:  # noqa: BLE001 a test looks at it
            outcomes[number] = error
        finally:
            pack.seats[number].leave()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
        assert not thread.is_alive()
    return jobs, [outcomes[number] for number in range(len(jobs))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Every member by itself."""
    made = [
        job(tmp_path_factory.mktemp("alone"), devices=1, **COMMON, **member) for member in MEMBERS
    ]
    for each in made:
        assert train(each).status is Status.FINISHED
    return made


def folders(tmp_path, count):
    return [tmp_path / str(number) for number in range(count)]


def assert_finished(outcomes):
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome.status is Status.FINISHED, outcome


def assert_same(made, alone, *, bits):
    """With `bits` they are equal as users compile, and else nearly so."""
    bits = bits and COMPILED_AS_USERS_DO
    for ours, theirs in zip(made, alone, strict=True):
        assert ours.identity == theirs.identity
        if bits:
            assert record(ours) == record(theirs)
        np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-5)
        places = [(row["kind"], row.get("step")) for row in record(theirs)]
        assert [(row["kind"], row.get("step")) for row in record(ours)] == places
        for left, right in zip(leaves_of(ours), leaves_of(theirs), strict=True):
            np.testing.assert_allclose(
                left, right, rtol=0 if bits else 1e-3, atol=0 if bits else 1e-5
            )


def test_members_differ_in_numbers_only(alone):
    assert len({program(made.run) for made in alone}) == 1
    assert len({made.identity for made in alone}) == len(MEMBERS)


def test_each_is_the_run_alone_on_one_device(tmp_path, alone):
    made, outcomes = together(folders(tmp_path, 4), MEMBERS)
    assert_finished(outcomes)
    assert_same(made, alone, bits=True)


@pytest.mark.skipif(COMPILED_AS_USERS_DO, reason="the test above has shown it")
def test_each_is_the_run_alone_bit_for_bit_as_users_compile():
    said = passes_as_users_compile(f"{__file__}::test_each_is_the_run_alone_on_one_device")
    assert not said, said


SLOW = pytest.mark.slow


@pytest.mark.parametrize("devices", [pytest.param(2, marks=SLOW), pytest.param(3, marks=SLOW), 4])
def test_each_is_the_run_alone_on_several_devices(tmp_path, alone, devices):
    """On four each has its own; on two or three some share one, and a seat may be empty."""
    made, outcomes = together(folders(tmp_path, 4), MEMBERS, devices=devices)
    assert_finished(outcomes)
    assert_same(made, alone, bits=True)


@pytest.mark.slow
def test_side_by_side_is_the_same_to_rounding(tmp_path, alone, monkeypatch):
    from lab.train import pack

    plain = pack.program
    monkeypatch.setattr(
        pack, "program", lambda update, **given: plain(update, **{**given, "side_by_side": True})
    )
    made, outcomes = together(folders(tmp_path, 4), MEMBERS)
    assert_finished(outcomes)
    assert_same(made, alone, bits=False)


def test_a_diverged_member_does_not_touch_the_others(tmp_path, alone):
    wild = {"seed": 0, "optimizer.learning_rate": 1e9}
    made, outcomes = together(folders(tmp_path, 4), [*MEMBERS[:2], wild, MEMBERS[3]])
    assert [str(outcome.status) for outcome in outcomes] == [
        "finished",
        "finished",
        "diverged",
        "finished",
    ]
    kept = [0, 1, 3]
    assert_same([made[i] for i in kept], [alone[i] for i in kept], bits=True)


def test_a_member_that_is_stopped_goes_on_elsewhere_bit_for_bit(tmp_path, alone):
    """One leaves early; then it goes on in another pack, where the others are at other steps."""
    places = folders(tmp_path, 4)
    _, outcomes = together(places, MEMBERS, stop={1: 2})
    assert [str(outcome.status) for outcome in outcomes].count("interrupted") == 1
    order = [1, 2]
    fresh = tmp_path / "fresh"
    made, outcomes = together([places[1], fresh], [MEMBERS[1], MEMBERS[2]])
    assert_finished(outcomes)
    assert_same(made, [alone[i] for i in order], bits=True)


def test_a_failed_member_leaves_its_seat(tmp_path, alone, monkeypatch):
    plain = Loop._save

    def fails(self, step, metrics):
        if self.job.run.seed == 1:
            raise OSError("no room")
        plain(self, step, metrics)

    monkeypatch.setattr(Loop, "_save", fails)
    made, outcomes = together(folders(tmp_path, 4), MEMBERS)
    assert isinstance(outcomes[1], OSError)
    assert_same([made[i] for i in (0, 2, 3)], [alone[i] for i in (0, 2, 3)], bits=True)


def test_an_error_of_the_program_reaches_everyone(tmp_path, monkeypatch):
    def fails(self, asked):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Pack, "_update", fails)
    _, outcomes = together(folders(tmp_path, 2), MEMBERS[:2])
    assert [str(outcome) for outcome in outcomes] == ["out of memory"] * 2


@pytest.mark.slow
def test_a_guard_sets_one_back_and_not_the_others(tmp_path):
    """Skipped updates are those of the run alone."""
    common = {"size": "s1", "train.guard.policy": "skip", "train.guard.window": 8}
    common |= {
        "train.guard.threshold": 0.5,
        "train.guard.most_skips": 8,
        "train.duration": "16 steps",
    }
    members = [{"seed": 0}, {"seed": 3}, {"seed": 4, "optimizer.learning_rate": 0.03}]
    want = []
    for number, member in enumerate(members):
        want.append(job(tmp_path / f"alone{number}", devices=1, **common, **member))
        train(want[-1])
    made, _ = together(folders(tmp_path, 3), members, common=common)
    assert any(row["kind"] == "spike" for each in want for row in record(each))
    assert_same(made, want, bits=True)


@pytest.mark.slow
def test_tokenizers_pack_too(tmp_path):
    members = [{"seed": 0}, {"seed": 1}]

    def make(folder, *, devices, **given):
        return tokenizer_jobs.job(
            folder, "vq", devices=devices, **{"execution.steps_per_dispatch": 2, **given}
        )

    want = [make(tmp_path / f"alone{i}", devices=1, **member) for i, member in enumerate(members)]
    for each in want:
        train(each)
    made, outcomes = together(folders(tmp_path, 2), members, make=make, common={})
    assert_finished(outcomes)
    for ours, theirs in zip(made, want, strict=True):
        assert record(ours) == record(theirs)
