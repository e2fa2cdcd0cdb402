"""Opening the extractor of a trained classifier."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.config import identity, plain
from lab.core.errors import LabError
from lab.core.layout import data_layout
from lab.core.store import Store
from lab.extractors.trained import open_classifier, open_extractor, sanitised
from lab.launch.runner import write_config
from tests.train.classifier_jobs import job
from tests.train.jobs import record, train

SHORT = {
    "train.duration": "4 steps",
    "train.evaluate_every_steps": 0,
    "classifier.depth": 1,
}
AVERAGED = {"optimizer.ema_decay": 0.9}


def trained(tmp_path, kind, **overrides):
    made = job(tmp_path, kind, **{**SHORT, **overrides})
    write_config(made.directory, made.run)
    train(made)
    return made


def state_of(made):
    with Store(made.directory / "checkpoints", writable=False) as store:
        return store.restore(made.abstract_state).tree


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run that kept an average, and its extractor."""
    made = trained(tmp_path_factory.mktemp("runs"), "conv", **AVERAGED)
    return made, open_extractor(str(made.directory))


@jax.jit
def seen(extractor, images):
    return extractor(images)


@jax.jit
def features_of(params, images):
    return params.features(images)


def test_features_and_probabilities_are_those_of_the_average(averaged):
    made, extractor = averaged
    state = state_of(made)
    params = state["ema"]
    images = made.images.validation.rows.tokens[:5].reshape(-1, *made.shape)
    found, features = seen(extractor, images), features_of(params, images)
    assert found.features_BF.shape == (5, extractor.features) == (5, 16)
    assert found.features_BF.dtype == found.log_probabilities_BK.dtype == jnp.float32
    np.testing.assert_allclose(found.features_BF, features, rtol=1e-4, atol=1e-5)
    logits = np.asarray(params.logits(features), np.float64)
    wanted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.log_probabilities_BK, wanted, rtol=1e-4, atol=1e-5)
    raw = features_of(state["params"], images)
    assert np.abs(np.asarray(raw) - found.features_BF).max() > 1e-4  # else the test sees nothing


def test_eight_devices_and_closed_over_weights_give_the_same(averaged):
    made, extractor = averaged
    images = made.images.validation.rows.tokens[:16].reshape(-1, *made.shape)
    alone = jax.jit(extractor)(images)
    rows = data_layout(jax.devices()).batch_sharding()
    spread = jax.jit(extractor, in_shardings=rows, out_shardings=rows)(images)
    for one, other in zip(alone, spread, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_products_are_in_full_precision(averaged):
    _, extractor = averaged
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), np.uint8)
    program = jax.jit(lambda e, x: e(x)).lower(extractor, images).as_text()
    products = [n for n in program.splitlines() if "convolution(" in n or "dot_general" in n]
    assert len(products) > 5 and all("HIGHEST" in line for line in products)


def test_images_of_any_side_and_grey_ones_are_taken(averaged):
    _, extractor = averaged
    small = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    found = seen(extractor, small)
    assert np.isfinite(found.features_BF).all()
    repeated = seen(extractor, np.repeat(small, 3, axis=3))
    np.testing.assert_array_equal(found.features_BF, repeated.features_BF)


def test_it_says_what_it_is(averaged):
    made, extractor = averaged
    about = extractor.about
    assert json.loads(json.dumps(about)) == about
    assert (
        (about["name"], about["metric"])
        == ("conv-small", "fd_made_up")
        == (
            extractor.name,
            extractor.metric,
        )
    )
    assert about["run"] == identity(made.run) and about["weights"] == "ema"
    assert about["data"] == record(made)[0]["data"]
    row = [r for r in record(made) if r.get("weights") == "ema"][-1]
    assert about["accuracy"]["value"] == row["accuracy"] and about["accuracy"]["examples"] == 37
    assert about["accuracy"]["low"] == row["accuracy_low"] <= row["accuracy"]
    assert extractor.classes == 3 and about["identity"] == extractor.identity
    assert len(extractor.identity) == 12


def test_the_identity_is_that_of_weights_and_preparation(tmp_path, averaged):
    made, extractor = averaged
    assert open_classifier(made.directory).identity == extractor.identity
    other = trained(tmp_path, "conv", seed=1, **AVERAGED)
    assert open_classifier(other.directory).identity != extractor.identity


@pytest.mark.slow
def test_patches_open_too(tmp_path):
    made = trained(tmp_path, "patch")
    images = made.images.validation.rows.tokens[:3].reshape(-1, *made.shape)
    extractor = open_classifier(made.directory)
    assert extractor.about["weights"] == "raw"
    found = seen(extractor, images)
    wanted = features_of(state_of(made)["params"], images)
    np.testing.assert_allclose(found.features_BF, wanted, rtol=1e-4, atol=1e-5)


def test_what_is_no_finished_classifier_is_named(tmp_path):
    with pytest.raises(LabError, match="run directory of a classifier"):
        open_extractor(str(tmp_path))
    with pytest.raises(LabError, match="inception:FILE"):
        open_extractor("")
    with pytest.raises(LabError, match="no such file"):
        open_extractor(f"inception:{tmp_path / 'x.safetensors'}")
    made = job(tmp_path, "conv", **SHORT, **AVERAGED)
    write_config(made.directory, made.run)
    train(made, stop_at=2)
    with pytest.raises(LabError, match="this classifier is not trained to its end"):
        open_extractor(str(made.directory))
    config = made.directory / "config.json"
    document = json.loads(config.read_text())
    document["config"] = plain(job(tmp_path, "conv", seed=7, **SHORT, **AVERAGED).run)
    config.write_text(json.dumps(document))
    with pytest.raises(LabError, match="identity"):
        open_extractor(str(made.directory))


def test_names_of_data_become_names_of_metrics():
    assert sanitised("eurosat") == "eurosat"
    assert sanitised("imagenet_resized/64x64:0.1.0") == "imagenet_resized_64x64_0_1_0"
