"""The model that the benchmark is against is ours: same loss, gradients, updates and draws."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import against_torch
from benchmarks.against_torch import Case, Times, batch_of, job_of, state_of
from lab.core.errors import LabError

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is no requirement of ours"
)


@pytest.fixture(scope="module")
def small():
    job = job_of(Case(width=32, dtype="float32", cores=1, rounds=1, batch=2, depth=2))
    return job, state_of(job), batch_of(job)


def test_without_torch_one_line_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert against_torch.main(["--rounds", "1"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: torch is not installed: pip install")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [(["--rounds", "0"], "error: --rounds 0: allowed is >= 1\n")],
)
def test_flags_are_refused(monkeypatch, capsys, flags, told):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert against_torch.main(flags) == 2
    assert capsys.readouterr().err == told


def test_a_ratio_is_of_the_faster_way():
    assert Times(2.0, {"eager": 5.0, "compiled": 3.0}).ratio == pytest.approx(1.5)


@needs_torch
def test_loss_and_gradients_are_equal(small):
    job, state, batch = small
    loss, gradients = against_torch.differences(job, state["params"], batch, dtype="float32")
    assert loss < 1e-6
    assert gradients < 1e-5


@needs_torch
def test_another_model_is_refused(small, monkeypatch):
    job, state, batch = small
    made = against_torch.theirs_of

    def turned(job, params):
        model = made(job, params)
        model.cos_TK[1] += 0.01
        return model

    monkeypatch.setattr(against_torch, "theirs_of", turned)
    with pytest.raises(LabError, match="gradients of PyTorch differ|loss of PyTorch differ"):
        against_torch.check_equal(job, state["params"], batch, dtype="float32")


@needs_torch
def test_updates_are_equal(small):
    """The losses of four updates: AdamW, its clipping and the rates of the width rule."""
    from benchmarks.torch_llama import as_tensors, losses, stepper
    from lab.core.keys import Stream, key
    from lab.train.optimizer import numbers_at

    job, state, batch = small
    optimizer, model = job.run.optimizer, against_torch.theirs_of(job, state["params"])
    loss = losses(model, dtype="float32", compiled=False)
    step = stepper(model, loss, optimizer, multiplier=optimizer.base_width / 32)
    tensors, train = as_tensors(batch), job.steps().train
    numbers, state = numbers_at(optimizer, optimizer.learning_rate), jax.tree.map(jnp.copy, state)
    for _ in range(4):
        state, metrics = train(state, batch, key(0, Stream.TRAIN, 0), numbers)
        found = float(metrics[job.training_loss.key])
        assert float(step(*tensors)) == pytest.approx(found, rel=1e-5)


@needs_torch
def test_greedy_draws_are_equal(small):
    from benchmarks.torch_llama import draw, torch
    from lab.models.drawing import Drawing
    from lab.sampling.conditions import image_keys
    from lab.sampling.guidance import Guidance
    from lab.sampling.sampler import sample
    from lab.sampling.settings import Settings

    job, state, _ = small
    settings = Settings(guidance=Guidance(scale=2.0), drawing=Drawing(top_k=1))
    label_B, keys_B = jnp.arange(3), image_keys(0, jnp.arange(3))
    ours_BTS = sample(state["params"], label_B, keys_B, settings)
    model = against_torch.theirs_of(job, state["params"])
    theirs_BT = draw(model, torch.arange(3), null=10, guidance=2.0, greedy=True)
    np.testing.assert_array_equal(np.asarray(ours_BTS)[..., 0], theirs_BT.numpy())
