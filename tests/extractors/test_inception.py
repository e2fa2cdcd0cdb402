"""Inception-v3 of FID against float64 NumPy, at a sixteenth of its widths; its file and counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from lab.core.errors import LabError
from lab.extractors import inception
from lab.extractors.inception import BLOCKS, LAYERS, STEM, folded, pooled_features
from tests.extractors.inception_reference import Network, convolve, max_pool, mean_pool

PUBLISHED = 23_834_568  # torchvision's Inception3 without its second head, 1000 classes
NARROW = 16


def narrow(layer):
    """A sixteenth of the channels; images keep theirs."""
    inputs = layer.inputs if layer.inputs == 3 else layer.inputs // NARROW
    return layer._replace(inputs=inputs, outputs=layer.outputs // NARROW)


def port_state(layers, *, seed=0, features=8, classes=6):
    """Made-up arrays under the port's names, of a size that keeps activations near one."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, layer in layers.items():
        shape = (layer.outputs, layer.inputs, *layer.kernel)
        fan_in = np.prod(shape[1:])
        state[f"{name}.conv.weight"] = rng.normal(0, (2 / fan_in) ** 0.5, shape)
        state[f"{name}.bn.weight"] = rng.uniform(0.5, 1.5, layer.outputs)
        state[f"{name}.bn.bias"] = rng.normal(0, 0.3, layer.outputs)
        state[f"{name}.bn.running_mean"] = rng.normal(0, 0.3, layer.outputs)
        state[f"{name}.bn.running_var"] = rng.uniform(0.5, 2.0, layer.outputs)
    state["fc.weight"] = rng.normal(0, 0.1, (classes, features))
    state["fc.bias"] = rng.normal(0, 0.1, classes)
    return {name: value.astype(np.float32) for name, value in state.items()}


@pytest.fixture
def narrowed(monkeypatch):
    """The laboratory's network with narrow layers, and a state for it."""
    layers = {name: narrow(layer) for name, layer in LAYERS.items()}
    monkeypatch.setattr(inception, "LAYERS", layers)
    monkeypatch.setattr(inception, "FEATURES", 2048 // NARROW)
    monkeypatch.setattr(inception, "CLASSES", 6)
    return port_state(layers, features=2048 // NARROW)


@jax.jit
def features_of(weights, images):
    return pooled_features(weights, images)


def saved(tmp_path, state):
    path = tmp_path / "inception.safetensors"
    save_file(state, path)
    return path


def test_features_are_those_of_the_reference(tmp_path, narrowed):
    """The whole wiring: 94 layers, zeros, strides, pooling, the order of branches, the folding."""
    made = inception.open_inception(saved(tmp_path, narrowed))
    images = np.random.default_rng(1).uniform(-1, 1, (2, 107, 107, 3)).astype(np.float32)
    ours = features_of(made.weights, images)
    wanted = Network(narrowed)(images.transpose(0, 3, 1, 2).astype(np.float64))
    assert ours.shape == (2, 128) and wanted.std() > 0.01
    np.testing.assert_allclose(ours, wanted, rtol=2e-4, atol=2e-4 * np.abs(wanted).max())


def test_the_extractor_resizes_scales_and_leaves_the_last_bias_out(tmp_path, narrowed, monkeypatch):
    """Of images of the side that it resizes to; that side is 299."""
    assert inception.SIDE == 299
    monkeypatch.setattr(inception, "SIDE", 107)  # the features of the other test, compiled once
    made = inception.open_inception(saved(tmp_path, narrowed))
    grey = np.random.default_rng(2).integers(0, 256, (2, 107, 107, 1)).astype(np.uint8)
    found = jax.jit(lambda extractor, images: extractor(images))(made, grey)
    images = np.repeat(grey, 3, axis=3).astype(np.float32) / 127.5 - 1
    features = features_of(made.weights, images)
    np.testing.assert_allclose(found.features_BF, features, rtol=1e-4, atol=1e-5)
    logits = np.asarray(features, np.float64) @ narrowed["fc.weight"].T.astype(np.float64)
    wanted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.log_probabilities_BK, wanted, rtol=1e-4, atol=1e-4)
    assert made.metric == "fid" and made.about["metric"] == "fid"
    assert len(made.identity) == 12 == len(made.about["identity"])


def test_it_has_the_published_number_of_parameters():
    """Weights, scales and shifts of 94 layers and the last matrix for 1008 classes: 23.85 M."""
    layers = sum(
        n.inputs * n.outputs * n.kernel[0] * n.kernel[1] + 2 * n.outputs for n in LAYERS.values()
    )
    assert layers + 2049 * 1000 == PUBLISHED
    assert layers + 2049 * 1008 == 23_850_960
    leaves = jax.tree.leaves(inception._abstract())
    statistics = sum(2 * n.outputs for n in LAYERS.values())  # running means and variances
    assert sum(leaf.size for leaf in leaves) == 23_850_960 + statistics
    assert len(LAYERS) == len(STEM) + sum(map(len, BLOCKS.values())) == 94


def test_shapes_at_full_width():
    struct = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)  # noqa: E731
    weights = {
        name: {"weight": struct(*n.kernel, n.inputs, n.outputs), "bias": struct(n.outputs)}
        for name, n in LAYERS.items()
    }
    assert jax.eval_shape(pooled_features, weights, struct(5, 299, 299, 3)).shape == (5, 2048)


@pytest.mark.parametrize("stride", [1, 2])
def test_pooling_and_one_layer_against_loops(stride):
    """Both references of this file against plain loops, and ours against them."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 6, 5, 4)) - 3.0  # below 0: a zero in a maximum would show
    nchw = x.transpose(0, 3, 1, 2)

    def looped(of, around):
        rows, columns = range(0, 6 + 2 * around - 2, stride), range(0, 5 + 2 * around - 2, stride)
        found = np.empty((2, 4, len(rows), len(columns)))
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                inside = nchw[:, :, max(r - around, 0) : r - around + 3]
                inside = inside[:, :, :, max(c - around, 0) : c - around + 3]
                found[:, :, i, j] = of(inside, axis=(2, 3))
        return found

    for around in (0, 1):
        wanted = looped(np.max, around)
        np.testing.assert_allclose(max_pool(nchw, stride=stride, around=around), wanted)
        ours = inception.maximum(jnp.float32(x), stride=stride, zeros=around)
        np.testing.assert_allclose(ours.transpose(0, 3, 1, 2), wanted, rtol=1e-6)
    if stride == 1:
        wanted = looped(np.mean, 1)
        np.testing.assert_allclose(mean_pool(nchw), wanted)
        np.testing.assert_allclose(
            inception.mean(jnp.float32(x)).transpose(0, 3, 1, 2), wanted, rtol=1e-5
        )
    weight = rng.normal(size=(3, 4, 3, 2))
    rows, columns = range(0, 6 + 2 - 2, stride), range(0, 5 + 2 - 1, stride)
    padded = np.pad(nchw, ((0, 0), (0, 0), (1, 1), (1, 1)))
    wanted = [
        [np.einsum("ncij,ocij->no", padded[:, :, r : r + 3, c : c + 2], weight) for c in columns]
        for r in rows
    ]
    found = convolve(nchw, weight, stride=stride, rows=1, columns=1)
    np.testing.assert_allclose(found, np.transpose(wanted, (2, 3, 0, 1)))


def test_folding_is_the_normalisation_of_the_convolution():
    """One pixel and a 1 x 1 kernel: gamma (w x - mean) / sqrt(var + 0.001) + beta."""
    rng = np.random.default_rng(4)
    weight, x = rng.normal(size=(1, 1, 3, 2)), rng.normal(size=3)
    scale, shift, mean = rng.normal(size=(3, 2))
    variance = rng.uniform(0.1, 2, 2)
    found = folded(weight, scale_O=scale, shift_O=shift, mean_O=mean, variance_O=variance)
    wanted = scale * (x @ weight[0, 0] - mean) / np.sqrt(variance + 0.001) + shift
    np.testing.assert_allclose(x @ found["weight"][0, 0] + found["bias"], wanted, rtol=1e-5)


def test_a_file_that_does_not_fit_is_named(tmp_path, narrowed):
    layer = "Mixed_6c.branch7x7_2"
    for change, words in (
        (lambda s: s.pop("fc.bias"), ["missing", "fc.bias"]),
        (lambda s: s.update({"AuxLogits.fc.bias": np.zeros(3, np.float32)}), ["unused", "Aux"]),
        (
            lambda s: s.update({f"{layer}.conv.weight": s["Mixed_6c.branch7x7_3.conv.weight"]}),
            ["wrong shape", layer],
        ),
    ):
        state = dict(narrowed)
        change(state)
        with pytest.raises(LabError) as caught:
            inception.open_inception(saved(tmp_path, state))
        assert "\n" not in str(caught.value)
        for word in [*words, "inception.safetensors"]:
            assert word in str(caught.value)


def test_counters_of_batches_are_left_out_and_identity_is_that_of_the_file(tmp_path, narrowed):
    counted = {**narrowed, "Conv2d_1a_3x3.bn.num_batches_tracked": np.array(7)}
    one = inception.open_inception(saved(tmp_path, narrowed))
    other = inception.open_inception(
        saved(tmp_path, {**counted, "fc.bias": narrowed["fc.bias"] + 1})
    )
    assert one.identity != other.identity
    assert one.about["file_sha256"] != other.about["file_sha256"]
    assert dataclasses.is_dataclass(one) and one.classes == 1008 and one.features == 2048
