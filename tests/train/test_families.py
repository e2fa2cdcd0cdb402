"""Every family under the one trainer: exact resumption, layouts, records, bounds, FLOPs."""

import math

import jax
import numpy as np
import pytest

from lab.core import counts
from lab.core.store import Store
from lab.models import families
from lab.models.objective import NATS
from lab.train.loop import Status
from lab.train.step import training_loss
from tests.train.family_jobs import WORLDS, family_job
from tests.train.jobs import record, train


def state_of(made):
    with Store(made.directory / "checkpoints", keep_last=2, writable=False) as store:
        return store.restore(made.abstract_state).tree


def training_losses(made):
    key = made.training_loss.key
    return np.array([r[key] for r in record(made) if r["kind"] == "train"])


def validation(made):
    with np.load(made.directory / "validation.npz") as saved:
        return saved["nats_per_image"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of each family on eight devices, made when it is first asked for."""
    done = {}

    def of(name):
        if name not in done:
            done[name] = family_job(tmp_path_factory.mktemp(name), name)
            assert train(done[name]).status is Status.FINISHED
        return done[name]

    return of


# Of each kind of order and head one is fast; the others take minutes to compile.
FAST = ("mlm",)


def all_worlds(*fast):
    """Every family; those not named are slow."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in WORLDS]


@pytest.mark.parametrize("name", all_worlds(*FAST))
def test_stop_and_go_on_is_bit_exact(tmp_path, straight, name):
    train(family_job(tmp_path, name), stop_at=7)
    again = family_job(tmp_path, name)
    assert train(again).status is Status.FINISHED
    assert record(again) == record(straight(name))
    for a, b in zip(
        jax.tree.leaves(state_of(again)), jax.tree.leaves(state_of(straight(name))), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(validation(again), validation(straight(name)))


@pytest.mark.parametrize(
    "layout", [*(pytest.param(n, marks=pytest.mark.slow) for n in ("fsdp", "hsdp")), "fsdp_tp"]
)
@pytest.mark.parametrize("name", all_worlds("mlm"))
def test_every_layout_gives_the_same_losses(tmp_path, straight, name, layout):
    other = family_job(tmp_path, name, layout=layout)
    train(other)
    np.testing.assert_allclose(training_losses(other), training_losses(straight(name)), rtol=2e-4)
    np.testing.assert_allclose(validation(other), validation(straight(name)), rtol=2e-3, atol=1e-2)


@pytest.mark.parametrize("name", all_worlds(*FAST))
def test_the_record_says_what_the_numbers_are(straight, name):
    rows = record(straight(name))
    header, last = rows[0], [r for r in rows if r["kind"] == "evaluation"][-1]
    exact = name in ("elm",)
    assert header["likelihood"] == ("exact" if exact else "bound")
    assert header["units"]["loss"] == "nats/token"
    nats = validation(straight(name)).astype(np.float64)
    ema = [r for r in rows if r["kind"] == "evaluation" and r["weights"] == "raw"][-1]
    dims = header["tokenizer"]["dims_per_image"]
    assert ema["loss_nats_per_image"] == pytest.approx(nats.mean(), rel=1e-6)
    assert ema["bits_per_dim"] == pytest.approx(nats.mean() / dims / math.log(2), rel=1e-6)
    key = straight(name).training_loss.key
    if exact:
        assert key == NATS and "training_loss" not in header
    else:
        assert header["training_loss"]["key"] == key != NATS
        assert math.isfinite(last[key])
    assert sum(header["params"].values()) == sum(
        leaf.size for leaf in jax.tree.leaves(state_of(straight(name))["params"])
    )


@pytest.mark.parametrize("name", all_worlds("mlm"))
def test_the_draws_of_a_bound_belong_to_the_image(tmp_path, straight, name):
    """Whatever the batch of the evaluation: the same masks, times and noise."""
    batches = {"train.evaluation_batch_size": 8, "train.evaluate_every_steps": 0}
    other = family_job(tmp_path, name, **batches)
    params = state_of(straight(name))["params"]
    found = other.evaluate(other.steps(), params, between=lambda: None)
    np.testing.assert_allclose(
        found.nats_per_image, validation(straight(name)), rtol=1e-4, atol=1e-3
    )


SLACK = {"mar": 1.35, "dit": 1.25, "dit-pixels": 1.25}


@pytest.mark.parametrize("name", WORLDS)
def test_counted_flops_against_xla(tmp_path, name):
    """Forward, unrolled, in wide heads: XLA counts element-wise work too, so it may be above."""
    wide = {"model.heads": 2, "execution.unroll_layers": True, "train.batch_size": 2}
    made = family_job(tmp_path, name, devices=1, **wide)
    make = families.builder(
        made.run.model, made.codes, families.Running(compute_dtype="float32", unroll=True)
    )
    model = jax.eval_shape(make, jax.random.key(0))
    spec = made.spec
    shape = (2, spec.tokens_per_image, spec.channels or spec.subcodes)
    batch = {
        "codes": jax.ShapeDtypeStruct(shape, np.float32 if spec.channels else np.int32),
        "label": jax.ShapeDtypeStruct((2,), np.int32),
        "weight": jax.ShapeDtypeStruct((2,), np.float32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    compiled = jax.jit(lambda m, b, k: training_loss(m, b, k)).lower(model, batch, key).compile()
    counted = model.forward_flops_per_image()
    full = made.model.order.__class__.__name__ == "RasterOrder"
    if full:  # one block of queries makes the pairs that the mask hides
        hidden = model.backbone.forward_flops(spec.tokens_per_image, causal=False)
        counted = counts.ByRole(counted.embedding, counted.blocks, counted.head, hidden.attention)
    ratio = compiled.cost_analysis()["flops"] / 2 / counted.total
    assert 1.0 <= ratio < SLACK.get(name, 1.35), ratio
