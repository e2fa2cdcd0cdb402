"""The perceptual distance against a float64 implementation with SciPy."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from lab.core.errors import LabError
from lab.tokenizers.perceptual import Perceptual, load_perceptual

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # torchvision's vgg16
TAPPED = (2, 7, 14, 21, 28)
WIDTHS = (4, 4, 6, 6, 8, 8, 8, 8, 10, 10, 6, 6, 8)


@pytest.fixture(scope="module")
def weights():
    """Random ones, He-scaled so that the deep features are alive."""
    rng, inputs, made = np.random.default_rng(0), 3, {}
    for number, outputs in zip(CONVOLUTIONS, WIDTHS, strict=True):
        weight = rng.normal(0, (2 / (9 * inputs)) ** 0.5, (outputs, inputs, 3, 3))
        made[f"vgg.features.{number}.weight"] = weight.astype(np.float32)
        made[f"vgg.features.{number}.bias"] = rng.normal(0, 0.1, outputs).astype(np.float32)
        inputs = outputs
        if number in TAPPED:
            name = f"lin{TAPPED.index(number)}.weight"
            made[name] = rng.uniform(0, 1, (1, outputs, 1, 1)).astype(np.float32)
    return made


@pytest.fixture(scope="module")
def path(weights, tmp_path_factory):
    file = tmp_path_factory.mktemp("lpips") / "tiny.safetensors"
    save_file(weights, file)
    return file


@pytest.fixture(scope="module")
def distance(path):
    return load_perceptual(path)


@jax.jit
def measured(distance, images, others):
    return distance(images, others)


@jax.jit
def slopes(distance, images, others):
    """The sum of the distances, and its gradients for the weights and the other images."""
    total = lambda distance, others: distance(images, others).sum()  # noqa: E731
    return jax.value_and_grad(total, argnums=(0, 1))(distance, others)


def image_pair(size=(32, 32), count=2):
    rng = np.random.default_rng(1)
    images = rng.uniform(-1, 1, (count, *size, 3))
    return images, np.clip(images + rng.normal(0, 0.3, images.shape), -1, 1)


def reference(weights, image, other):
    """One pair (H, W, 3) in float64, channels first as published."""
    found = []
    for picture in (image, other):
        x = np.moveaxis(picture, -1, 0)
        x = x - np.reshape([-0.030, -0.088, -0.188], (3, 1, 1))
        x = x / np.reshape([0.458, 0.448, 0.450], (3, 1, 1))
        taps = []
        for number in range(29):
            if number in (4, 9, 16, 23):
                c, h, w = x.shape
                x = x[:, : h // 2 * 2, : w // 2 * 2]
                x = x.reshape(c, h // 2, 2, w // 2, 2).max((2, 4))
            elif number in CONVOLUTIONS:
                kernel = weights[f"vgg.features.{number}.weight"].astype(np.float64)
                padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
                windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
                x = np.tensordot(kernel, windows, axes=((1, 2, 3), (0, 3, 4)))
                x = x + weights[f"vgg.features.{number}.bias"][:, None, None]
                x = np.maximum(x, 0)
                if number in TAPPED:
                    taps.append(x)
        found.append(taps)
    total = 0.0
    for k, (a, b) in enumerate(zip(*found, strict=True)):
        a, b = (t / (np.sqrt((t**2).sum(0)) + 1e-10) for t in (a, b))
        linear = weights[f"lin{k}.weight"][0].astype(np.float64)
        total += (linear * (a - b) ** 2).sum(0).mean()
    return total


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (37, 50)])
def test_against_float64(weights, distance, size):
    images, others = image_pair(size)
    want = [reference(weights, a, b) for a, b in zip(images, others, strict=True)]
    assert min(want) > 0.01
    got = measured(distance, jnp.float32(images), jnp.float32(others))
    np.testing.assert_allclose(got, want, rtol=2e-4)


def test_every_stage_counts(weights, tmp_path):
    """With the linear weights of one stage alone, the distance is that stage's and not 0."""
    images, others = image_pair((16, 16), count=1)
    for stage in range(5):
        alone = {
            name: value * (name == f"lin{stage}.weight") if name.startswith("lin") else value
            for name, value in weights.items()
        }
        save_file(alone, tmp_path / "alone.safetensors")
        want = reference(alone, images[0], others[0])
        assert want > 1e-4
        loaded = load_perceptual(tmp_path / "alone.safetensors")
        loaded = dataclasses.replace(loaded, identity="")  # one program for all five
        got = measured(loaded, jnp.float32(images), jnp.float32(others))
        np.testing.assert_allclose(got, [want], rtol=1e-3)


def test_zero_of_equals_and_symmetric(distance):
    images, others = (jnp.asarray(x, jnp.float32) for x in image_pair())
    # Both halves are rows of one batch, which some processors round by their place in it.
    assert np.all(measured(distance, images, images) <= 1e-12)
    forth, back = measured(distance, images, others), measured(distance, others, images)
    np.testing.assert_allclose(forth, back, rtol=1e-5)


def test_gradient_by_finite_differences(weights, distance):
    """Along random directions, with the differences in float64 from the reference."""
    images, others = image_pair((16, 16), count=1)
    x, y = jnp.asarray(images, jnp.float32), jnp.asarray(others, jnp.float32)
    gradient = np.asarray(slopes(distance, x, y)[1][1], np.float64)
    rng, step = np.random.default_rng(2), 1e-6
    for _ in range(3):
        way = rng.normal(size=images.shape)
        ends = [reference(weights, images[0], (others + s * way)[0]) for s in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs(slope) > 1e-3
        np.testing.assert_allclose((gradient * way).sum(), slope, rtol=2e-3)


def test_weights_are_frozen(distance):
    images, others = (jnp.asarray(x, jnp.float32) for x in image_pair((16, 16), count=1))
    _, (weights, pixels) = slopes(distance, images, others)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(weights))
    assert len(jax.tree.leaves(weights)) == 31 and np.any(pixels != 0)


@pytest.mark.parametrize("level", [-1.0, 1e-25])
def test_faint_features_give_no_nan(distance, level):
    """All channels dead, and alive with a norm of which the square is 0 in float32."""
    faint = jax.tree.map(lambda x: jnp.full_like(x, level if x.ndim == 1 else 0.0), distance)
    images, others = (jnp.asarray(x, jnp.float32) for x in image_pair((16, 16), count=1))
    value, (_, gradient) = slopes(faint, images, others)
    assert value == 0 and np.all(np.asarray(gradient) == 0)


def test_jits_as_an_argument_and_as_a_constant(distance):
    images, others = (jnp.asarray(x, jnp.float32) for x in image_pair())
    by_argument = measured(distance, images, others)
    np.testing.assert_allclose(jax.jit(distance)(images, others), by_argument, rtol=1e-5)


def test_published_size(tmp_path):
    """VGG16's convolutions hold 14,714,688 parameters; LPIPS adds one a tapped channel. Their
    names and shapes are the published ones, their values random: the distance is the formula's."""
    wide = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    made, inputs, rng = {}, 3, np.random.default_rng(4)
    for number, outputs in zip(CONVOLUTIONS, wide, strict=True):
        kernel = rng.normal(size=(outputs, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        made[f"vgg.features.{number}.weight"] = kernel.astype(np.float16)
        made[f"vgg.features.{number}.bias"] = rng.normal(0, 0.1, outputs).astype(np.float16)
        inputs = outputs
    for k, channels in enumerate((64, 128, 256, 512, 512)):
        made[f"lin{k}.weight"] = rng.uniform(size=(1, channels, 1, 1)).astype(np.float16)
    save_file(made, tmp_path / "full.safetensors")
    distance = load_perceptual(tmp_path / "full.safetensors")
    leaves = jax.tree.leaves(distance)
    assert sum(leaf.size for leaf in leaves) == 14_714_688 + 1_472
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}
    images, others = image_pair((16, 16), count=1)
    got = measured(distance, jnp.float32(images), jnp.float32(others))
    np.testing.assert_allclose(got, [reference(made, images[0], others[0])], rtol=1e-4)


def test_identity_is_that_of_the_file(distance, path):
    assert isinstance(distance, Perceptual)
    assert distance.identity == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_file(nothing):
    with pytest.raises(LabError, match=r"^config\.losses\.perceptual_file: .* safetensors file"):
        load_perceptual(nothing)


def broken(weights, tmp_path, **changes):
    made = {k: v for k, v in (weights | changes).items() if v is not None}
    save_file(made, tmp_path / "broken.safetensors")
    with pytest.raises(LabError) as caught:
        load_perceptual(tmp_path / "broken.safetensors")
    return str(caught.value)


def test_files_that_do_not_fit(weights, tmp_path):
    assert "missing in the file: lin2.weight" in broken(weights, tmp_path, **{"lin2.weight": None})
    missing = broken(weights, tmp_path, **{"vgg.features.7.bias": None})
    assert "missing in the file: vgg.features.7.bias" in missing
    extra = broken(weights, tmp_path, other=np.zeros(1, np.float32))
    assert "unused in the file: other" in extra
    narrow = weights["vgg.features.12.weight"][:, :-1].copy()
    shape = broken(weights, tmp_path, **{"vgg.features.12.weight": narrow})
    assert "of a wrong shape or dtype: vgg.features.12.weight float32[8, 7, 3, 3]" in shape
    negative = broken(weights, tmp_path, **{"lin1.weight": -weights["lin1.weight"]})
    assert "lin1.weight goes down to -" in negative


def test_images_that_do_not_fit(distance):
    with pytest.raises(LabError, match="images of 8 x 32 with 3 channels"):
        distance(jnp.zeros((1, 8, 32, 3)), jnp.zeros((1, 8, 32, 3)))
    with pytest.raises(LabError, match="images of 32 x 32 with 1 channels"):
        distance(jnp.zeros((1, 32, 32, 1)), jnp.zeros((1, 32, 32, 1)))
    with pytest.raises(ValueError, match="reconstructions"):
        distance(jnp.zeros((1, 32, 32, 3)), jnp.zeros((2, 32, 32, 3)))
