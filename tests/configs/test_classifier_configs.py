"""Every classifier's config admits and builds without an array, at the size its file states."""

import jax
import pytest

from lab.core.errors import LabError
from lab.extractors.build import classifier_spec
from lab.extractors.classifier import Levels, Running, builder
from lab.launch.door import load_config


@pytest.mark.parametrize(("name", "features"), [("conv", 128), ("patch", 96)])
def test_small_admits_builds_and_is_small_enough_for_a_cpu(name, features):
    run = load_config(f"configs/classifiers/{name}.py:small", {})
    spec = classifier_spec(run, classes=10)
    make = builder(spec, Running(), Levels(mean=[0.0] * 3, std=[1.0] * 3))
    model = jax.eval_shape(make, jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), "uint8")
    found = jax.eval_shape(lambda m, x: (m.features(x), m.logits(m.features(x))), model, images)
    assert [each.shape for each in found] == [(2, features), (2, 10)]
    epochs = run.train.duration.amount
    whole = 3 * sum(model.forward_flops().values()) * epochs * 21_459  # EuroSAT's training images
    assert whole < 25e12  # two CPU cores: five minutes at 80 GFLOP/s


def test_another_size_is_refused():
    with pytest.raises(LabError, match="allowed is small"):
        load_config("configs/classifiers/conv.py:huge", {})
