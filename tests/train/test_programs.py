"""Programs that runs share: the runs are the runs alone, traced once, and no job is held."""

import gc
import weakref

import numpy as np
import pytest

from lab.train import step
from lab.train.loop import Status
from lab.train.programs import HELD, Programs
from tests.train import tokenizer_jobs
from tests.train.jobs import job, record, train
from tests.train.test_dispatch import leaves_of

COMMON = {
    "size": "s1",
    "model.class_dropout": 0.2,
    "optimizer.ema_decay": 0.9,
    "execution.steps_per_dispatch": 4,
    "train.guard.policy": "skip",
}
OTHERS = [
    {"seed": 1, "optimizer.learning_rate": 0.003},
    {"seed": 2, "optimizer.weight_decay": 0.3, "optimizer.schedule": "cosine"},
    {"seed": 0, "train.duration": "7 steps", "train.log_every_steps": 2},
]


def trained(made):
    assert train(made).status is Status.FINISHED
    return made


@pytest.fixture
def traces(monkeypatch):
    """How often Python goes through an update's loss."""
    found, plain = [], step.loss_and_gradients

    def counted(*given, **more):
        found.append(1)
        return plain(*given, **more)

    monkeypatch.setattr(step, "loss_and_gradients", counted)
    return found


def test_each_is_the_run_alone_and_nothing_is_traced_again(tmp_path, traces):
    programs = Programs()
    first = job(tmp_path / "shared", devices=1, **COMMON)
    programs.share(first)
    trained(first)
    assert len(traces) == 1
    for number, numbers in enumerate(OTHERS):
        ours = job(tmp_path / "shared", devices=1, **COMMON, **numbers)
        programs.share(ours)
        trained(ours)
        assert len(traces) == 1 + number
        alone = trained(job(tmp_path / "alone", devices=1, **COMMON, **numbers))
        assert len(traces) == 2 + number
        assert record(ours) == record(alone)
        for left, right in zip(leaves_of(ours), leaves_of(alone), strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    "other",
    [
        {"size": "s2"},
        {"layout": "fsdp", "devices": 2},
        {"devices": 4},
        {"execution.steps_per_dispatch": 2},
        {"execution.remat": "full"},
        {"model.residual_dropout": 0.1},
        {"train.guard.policy": "rollback"},
    ],
    ids=str,
)
def test_what_is_another_program_is_not_shared(tmp_path, other):
    programs = Programs()
    given = {"devices": 1, **COMMON}
    one, two = job(tmp_path / "a", **given), job(tmp_path / "b", **{**given, **other})
    programs.share(one)
    programs.share(two)
    assert one.steps() is not two.steps() and one.make_initial is not two.make_initial
    again = job(tmp_path / "c", seed=5, **{**given, **other})
    programs.share(again)
    assert again.steps() is two.steps() and again.make_initial is two.make_initial


def test_the_last_few_are_held_and_no_job(tmp_path):
    programs = Programs()

    def made(width):
        each = job(tmp_path, devices=1, **{**COMMON, "model.mlp_hidden": width})
        programs.share(each)
        return each

    first = made(8)
    kept, job_of = first.steps(), weakref.ref(first)
    del first
    gc.collect()
    assert job_of() is None
    for number in range(1, HELD):
        made(8 + 8 * number)
    assert made(8).steps() is kept  # and is the newest now
    for number in range(HELD, 2 * HELD - 1):
        made(8 + 8 * number)
    assert made(8).steps() is kept
    for number in range(2 * HELD, 3 * HELD):
        made(8 + 8 * number)
    assert made(8).steps() is not kept


def test_of_tokenizers(tmp_path):
    programs = Programs()
    first, second, other = (
        tokenizer_jobs.job(tmp_path, kind, devices=1, seed=seed)
        for seed, kind in enumerate(["kl", "kl", "binary"])
    )
    for each in (first, second, other):
        programs.share(each)
    assert second.steps() is first.steps() and second.make_initial is first.make_initial
    assert other.steps() is not first.steps()
