"""Training of classifiers: exact resumption, layouts, the record, the numbers of an evaluation."""

import functools
import math

import jax
import numpy as np
import pytest

from lab.core.store import Store
from lab.metrics.interval import wilson
from lab.train.classifier_step import cross_entropies
from lab.train.loop import Status
from tests.train.classifier_jobs import CLASSES, KINDS, job
from tests.train.jobs import record, train

# Both kinds take the same steps: the second one is compiled in the slow tests.
FIRST, *OTHERS = KINDS
FAST_FIRST = [FIRST, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)]

OWN = {"conv": {}, "patch": {"optimizer.ema_decay": 0.9, "classifier.label_smoothing": 0.0}}


def rows_of(made, kind):
    return [r for r in record(made) if r["kind"] == kind]


def state_of(made):
    with Store(made.directory / "checkpoints", keep_last=2, writable=False) as store:
        return store.restore(made.abstract_state).tree


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A function from a kind to its job, trained without a stop; once a kind."""

    @functools.cache
    def made(kind):
        found = job(tmp_path_factory.mktemp(kind), kind, **OWN[kind])
        assert train(found).status is Status.FINISHED
        return found

    return made


OFTEN = ["conv", pytest.param("patch", marks=pytest.mark.slow)]  # compiling takes the time


@pytest.mark.parametrize("kind", OFTEN)
def test_stop_and_go_on_is_bit_exact(tmp_path, straight, kind):
    made = job(tmp_path, kind, **OWN[kind])
    assert train(made, stop_at=7).status is Status.INTERRUPTED
    again = job(tmp_path, kind, **OWN[kind])
    assert train(again).status is Status.FINISHED
    assert record(again) == record(straight(kind))
    states = [jax.tree.leaves(state_of(each)) for each in (again, straight(kind))]
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        pytest.param("patch", "fsdp_tp", marks=pytest.mark.slow),
        pytest.param("patch", "fsdp", marks=pytest.mark.slow),
        pytest.param("conv", "ddp", marks=pytest.mark.slow),
    ],
)
def test_every_layout_has_the_same_losses(tmp_path, straight, kind, layout):
    made = job(tmp_path, kind, layout=layout, devices=8, **OWN[kind])
    assert train(made).status is Status.FINISHED
    for ours, theirs in zip(rows_of(made, "train"), rows_of(straight(kind), "train"), strict=True):
        for name in set(ours) - {"kind"}:
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize("kind", FAST_FIRST)
def test_the_first_loss_is_that_of_knowing_nothing(straight, kind):
    made = straight(kind)
    first = rows_of(made, "train")[0]
    assert first["loss_nats_per_image"] == pytest.approx(math.log(CLASSES), rel=1e-6)
    assert first[made.training_loss.key] == pytest.approx(math.log(CLASSES), rel=1e-6)
    assert made.loss_limit == pytest.approx(3 * math.log(CLASSES))


def test_smoothed_labels_have_a_name_of_their_own(straight):
    conv, patch = straight("conv"), straight("patch")
    assert conv.training_loss.key == "loss_smoothed_nats_per_image"
    assert record(conv)[0]["training_loss"]["key"] == conv.training_loss.key
    assert patch.training_loss == patch.loss
    assert "training_loss" not in record(patch)[0]
    last = rows_of(conv, "train")[-1]
    assert last["loss_smoothed_nats_per_image"] != last["loss_nats_per_image"]


def test_cross_entropies_against_float64():
    """-sum_k q_k log p_k with q the label, and the label mixed with a uniform draw."""
    rng = np.random.default_rng(0)
    logits, label = rng.normal(0, 3, (5, 4)), np.array([0, 1, 2, 3, 1])
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    q = np.eye(4)[label]
    smooth = 0.7 * q + 0.3 / 4
    nats, smoothed = cross_entropies(np.float32(logits), np.int32(label), label_smoothing=0.3)
    np.testing.assert_allclose(nats, -(q * log_p).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(smoothed, -(smooth * log_p).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("kind", FAST_FIRST)
def test_an_evaluation_counts_what_was_right(straight, kind):
    made = straight(kind)
    row = [r for r in rows_of(made, "evaluation") if r["weights"] == "raw"][-1]
    saved = np.load(made.directory / "validation.npz")
    labels = made.images.validation.rows.labels
    np.testing.assert_array_equal(saved["label"], labels)
    params = state_of(made)["params"]
    images = made.images.validation.rows.tokens.reshape(-1, *made.shape)
    logits = np.asarray(params.logits(params.features(images)), np.float64)
    np.testing.assert_array_equal(saved["predicted"], logits.argmax(axis=1))
    right = int((logits.argmax(axis=1) == labels).sum())
    assert row["examples"] == 37 and row["accuracy"] == right / 37
    interval = wilson(right, 37, 0.9)
    assert (row["accuracy_low"], row["accuracy_high"]) == (interval.low, interval.high)
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(37), labels]
    np.testing.assert_allclose(saved["nats_per_image"], nats, rtol=1e-4, atol=1e-5)
    assert row["loss_nats_per_image"] == pytest.approx(nats.mean(), rel=1e-4)
    assert row["loss_se_nats_per_image"] == pytest.approx(nats.std(ddof=1) / 37**0.5, rel=1e-3)
    weights = {r["weights"] for r in rows_of(made, "evaluation")}
    assert weights == ({"raw", "ema"} if made.run.optimizer.ema_decay else {"raw"})


@pytest.mark.parametrize("kind", OFTEN)
def test_it_learns(tmp_path, kind):
    more = {"train.duration": "80 steps", "train.evaluate_every_steps": 0}
    made = job(tmp_path, kind, **{**more, "optimizer.learning_rate": 4e-3})
    train(made)
    assert rows_of(made, "evaluation")[-1]["accuracy"] > 0.9


@pytest.mark.parametrize("kind", FAST_FIRST)
def test_the_record_counts_what_there_is(straight, kind):
    made = straight(kind)
    header, last = record(made)[0], rows_of(made, "train")[-1]
    leaves = jax.tree.leaves(made.abstract_state["params"])
    assert sum(header["params"].values()) == sum(leaf.size for leaf in leaves)
    assert header["family"] == "classifier" and header["classes"] == CLASSES
    assert header["data"]["name"] == "made_up/1"
    assert last["examples_seen"] == 80
    assert last["flops"] == 80 * 3 * sum(header["forward_flops_per_image"].values())
