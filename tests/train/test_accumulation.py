"""A batch in parts against the whole one: losses, gradients, memory, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.core.keys import Stream
from lab.models import families
from lab.train.step import loss_and_gradients
from tests.models.worlds import config, stirred
from tests.train.family_jobs import WORLDS, family_job
from tests.train.jobs import job, losses, train

ALL_DROPOUT = {
    "model.class_dropout": 0.3,
    "model.embedding_dropout": 0.2,
    "model.residual_dropout": 0.2,
    "model.mlp_dropout": 0.2,
}


def found_in(parts, model, batch):
    def of(model, batch):
        return loss_and_gradients(model, batch, jax.random.key(3), parts=parts)

    return jax.jit(of).lower(model, batch).compile()


@pytest.mark.parametrize(
    "name", [n if n == "mlm" else pytest.param(n, marks=pytest.mark.slow) for n in WORLDS]
)
def test_parts_give_the_loss_and_the_gradients_of_the_whole(tmp_path, name):
    """With every dropout, masks, times and noise, and images of weight 0 spread unevenly."""
    made = family_job(tmp_path, name, devices=1, **ALL_DROPOUT)
    model = stirred(made.run, made.codes, noise=0.1)
    batch = made.place(made.train_batches().at(0), Stream.TRAIN, 0)
    batch["weight"] = jnp.array([1.0, 0, 1, 1, 0, 0, 1, 0])
    (loss, gradients), (other_loss, other) = (
        found_in(parts, model, batch)(model, batch) for parts in (1, 4)
    )
    assert float(other_loss) == pytest.approx(float(loss), rel=5e-6)
    leaves = jax.tree.leaves(gradients)
    size = max(float(jnp.abs(leaf).max()) for leaf in leaves)
    for a, b in zip(leaves, jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-4, atol=1e-6 * size)


@pytest.mark.slow
def test_a_run_in_parts_has_the_losses_of_one_that_is_not(tmp_path):
    """Over two devices with sharded weights; the identity is the same."""
    dropout = {"model.residual_dropout": 0.1, "train.batch_size": 16, "train.duration": "4 steps"}
    place = {"layout": "fsdp", "devices": 2, "train.evaluate_every_steps": 0}
    whole = job(tmp_path / "whole", **place, **dropout)
    parts = job(tmp_path / "parts", **place, **dropout, **{"execution.accumulation": 4})
    assert whole.identity == parts.identity
    for made in (whole, parts):
        train(made)
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=1e-5)


def test_parts_take_less_memory():
    """Temporary bytes of the compiled gradients: a quarter of the activations, and the sums."""
    run = config("s7", **{"model.depth": 4})
    codes = families.Codes(vocabulary=16, grid=(8, 8, 1), classes=4)
    make = families.builder(run.model, codes, families.Running(compute_dtype="float32"))
    model = jax.eval_shape(make, jax.random.key(0))
    batch = {
        "codes": jax.ShapeDtypeStruct((32, 64, 1), jnp.int32),
        "label": jax.ShapeDtypeStruct((32,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((32,), jnp.float32),
    }
    one, four = (
        found_in(parts, model, batch).memory_analysis().temp_size_in_bytes for parts in (1, 4)
    )
    assert four < one / 2.5, (one, four)


def test_what_does_not_divide_is_refused(tmp_path):
    with pytest.raises(LabError) as refused:
        job(tmp_path, devices=2, **{"train.batch_size": 24, "execution.accumulation": 5})
    words = ["config.execution.accumulation = 5", "the 12 images", "allowed are 1, 2, 3, 4, 6, 12"]
    for word in words:
        assert word in str(refused.value)
