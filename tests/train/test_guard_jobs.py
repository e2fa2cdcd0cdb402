"""The guard on every kind of job: whatever a state holds, a suspicious update moves none of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.keys import Stream, key
from lab.train.guard import Verdict
from lab.train.optimizer import numbers_at
from tests.train import classifier_jobs, tokenizer_jobs
from tests.train.test_guard import W, job


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generator", "vq", "kl", "conv"])
def test_no_leaf_of_any_job_moves_in_a_suspicious_update(tmp_path, kind):
    """Discriminator, usage of codes and restarted codes included; the step and the guard count."""
    on = {"train.guard.policy": "skip", "train.guard.window": W, "optimizer.ema_decay": 0.9}
    more = {"losses.restart_below": 0.5} if kind == "vq" else {}
    made = {
        "generator": lambda: job(tmp_path, **on),
        "vq": lambda: tokenizer_jobs.job(
            tmp_path, kind, devices=1, **on, **more, **tokenizer_jobs.ADVERSARIAL
        ),
        "kl": lambda: tokenizer_jobs.job(tmp_path, kind, devices=1, **on),
        "conv": lambda: classifier_jobs.job(tmp_path, kind, **on),
    }[kind]()
    steps, state = made.steps(), made.initial_state()

    def updated(state, step):
        batch = made.place(made.train_batches().at(step), Stream.TRAIN, step)
        return steps.train(
            state, batch, key(0, Stream.TRAIN, step), numbers_at(made.run.optimizer, 0.01)
        )

    for step in range(3):  # the discriminator begins at step 2
        state, metrics = updated(state, step)
        assert not Verdict.of(metrics["guard"]).suspicious
    calm = {**state["guard"], "accepted": jnp.int32(W), "log_grad_norm": jnp.full(W, -60.0)}
    calm = made.layout.replicate(calm)
    before = jax.tree.map(np.array, state)
    after, metrics = updated({**state, "guard": calm}, 3)
    assert Verdict.of(metrics["guard"]).suspicious
    moved = {name for name in before if name not in ("step", "guard") for a, b in zip(
        jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True
    ) if np.asarray(b).tobytes() != a.tobytes()}  # fmt: skip
    assert moved == set() and int(after["step"]) == 4
    others, metrics = updated(jax.tree.map(jnp.asarray, before), 3)
    assert not Verdict.of(metrics["guard"]).suspicious
    assert any(
        np.asarray(b).tobytes() != a.tobytes()
        for a, b in zip(
            jax.tree.leaves(before["params"]), jax.tree.leaves(others["params"]), strict=True
        )
    )
