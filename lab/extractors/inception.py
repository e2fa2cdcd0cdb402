"""The Inception-v3 network of the Frechet Inception distance (Szegedy et al. 2016; Heusel et al.
2017), from a safetensors file of its published PyTorch port.

It differs from other Inception-v3: 1008 logits, means that leave zeros around an image out of
their count, and a maximum in place of the mean in the pooling branch of the last block. Only
distances in its 2048 features are called FID.

The file is made once from `pt_inception-2015-12-05`, wherever PyTorch is at hand:

    import torch, safetensors.torch
    state = torch.load("pt_inception-2015-12-05-6726825d.pth", weights_only=True)
    whole = {name: value.contiguous() for name, value in state.items()}
    safetensors.torch.save_file(whole, "inception.safetensors")

B batch, H rows, W columns, C channels, I inputs, O outputs, F features, K classes.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.canonical import json_sha256
from lab.core.weights import NamedWeight, Turn, assign, read_weights
from lab.extractors.extractor import PRECISION, Features, resized

SIDE, FEATURES, CLASSES = 299, 2048, 1008
EPSILON = 1e-3  # of the batch normalisations
COUNTER = ".num_batches_tracked"  # of a batch normalisation; nothing depends on it
PREPARATION = "299, bilinear, half-pixel centres, not antialiased, [-1, 1], grey repeated"

Weights = Mapping[str, Mapping[str, Any]]  # by layer: weight (H, W, I, O) and bias (O,)
Apply = Callable[[str, jax.Array], jax.Array]  # a layer by name


class Layer(NamedTuple):
    """A convolution: its channels, its kernel, its stride and the zeros around it."""

    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    zeros: tuple[int, int] = (0, 0)  # rows above and below, columns left and right


def _square(inputs: int, outputs: int, side: int, *, zeros: int = 0, stride: int = 1) -> Layer:
    return Layer(inputs, outputs, (side, side), stride, (zeros, zeros))


def _row(inputs: int, outputs: int, length: int) -> Layer:
    return Layer(inputs, outputs, (1, length), 1, (0, length // 2))


def _column(inputs: int, outputs: int, length: int) -> Layer:
    return Layer(inputs, outputs, (length, 1), 1, (length // 2, 0))


def _block_a(inputs: int, pooled: int) -> dict[str, Layer]:
    return {
        "branch1x1": Layer(inputs, 64),
        "branch5x5_1": Layer(inputs, 48),
        "branch5x5_2": _square(48, 64, 5, zeros=2),
        "branch3x3dbl_1": Layer(inputs, 64),
        "branch3x3dbl_2": _square(64, 96, 3, zeros=1),
        "branch3x3dbl_3": _square(96, 96, 3, zeros=1),
        "branch_pool": Layer(inputs, pooled),
    }


def _block_b(inputs: int) -> dict[str, Layer]:
    return {
        "branch3x3": _square(inputs, 384, 3, stride=2),
        "branch3x3dbl_1": Layer(inputs, 64),
        "branch3x3dbl_2": _square(64, 96, 3, zeros=1),
        "branch3x3dbl_3": _square(96, 96, 3, stride=2),
    }


def _block_c(inputs: int, inner: int) -> dict[str, Layer]:
    return {
        "branch1x1": Layer(inputs, 192),
        "branch7x7_1": Layer(inputs, inner),
        "branch7x7_2": _row(inner, inner, 7),
        "branch7x7_3": _column(inner, 192, 7),
        "branch7x7dbl_1": Layer(inputs, inner),
        "branch7x7dbl_2": _column(inner, inner, 7),
        "branch7x7dbl_3": _row(inner, inner, 7),
        "branch7x7dbl_4": _column(inner, inner, 7),
        "branch7x7dbl_5": _row(inner, 192, 7),
        "branch_pool": Layer(inputs, 192),
    }


def _block_d(inputs: int) -> dict[str, Layer]:
    return {
        "branch3x3_1": Layer(inputs, 192),
        "branch3x3_2": _square(192, 320, 3, stride=2),
        "branch7x7x3_1": Layer(inputs, 192),
        "branch7x7x3_2": _row(192, 192, 7),
        "branch7x7x3_3": _column(192, 192, 7),
        "branch7x7x3_4": _square(192, 192, 3, stride=2),
    }


def _block_e(inputs: int) -> dict[str, Layer]:
    return {
        "branch1x1": Layer(inputs, 320),
        "branch3x3_1": Layer(inputs, 384),
        "branch3x3_2a": _row(384, 384, 3),
        "branch3x3_2b": _column(384, 384, 3),
        "branch3x3dbl_1": Layer(inputs, 448),
        "branch3x3dbl_2": _square(448, 384, 3, zeros=1),
        "branch3x3dbl_3a": _row(384, 384, 3),
        "branch3x3dbl_3b": _column(384, 384, 3),
        "branch_pool": Layer(inputs, 192),
    }


STEM = {
    "Conv2d_1a_3x3": _square(3, 32, 3, stride=2),
    "Conv2d_2a_3x3": _square(32, 32, 3),
    "Conv2d_2b_3x3": _square(32, 64, 3, zeros=1),
    "Conv2d_3b_1x1": Layer(64, 80),
    "Conv2d_4a_3x3": _square(80, 192, 3),
}
BLOCKS = {
    "Mixed_5b": _block_a(192, 32),
    "Mixed_5c": _block_a(256, 64),
    "Mixed_5d": _block_a(288, 64),
    "Mixed_6a": _block_b(288),
    "Mixed_6b": _block_c(768, 128),
    "Mixed_6c": _block_c(768, 160),
    "Mixed_6d": _block_c(768, 160),
    "Mixed_6e": _block_c(768, 192),
    "Mixed_7a": _block_d(768),
    "Mixed_7b": _block_e(1280),
    "Mixed_7c": _block_e(2048),
}
LAYERS = STEM | {
    f"{b}.{name}": layer for b, found in BLOCKS.items() for name, layer in found.items()
}


def maximum(x_BHWC: jax.Array, *, stride: int, zeros: int = 0) -> jax.Array:
    """Maxima of 3 x 3 windows; what lies outside the image is never the largest."""
    return jax.lax.reduce_window(
        x_BHWC, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, stride, stride, 1), _around(zeros)
    )


def mean(x_BHWC: jax.Array) -> jax.Array:
    """Means of the pixels in 3 x 3 windows at stride 1: those outside the image do not count."""

    def total(x: jax.Array) -> jax.Array:
        one = (1, 1, 1, 1)
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), one, _around(1))

    counted_1HW1 = total(jnp.ones((1, *x_BHWC.shape[1:3], 1), x_BHWC.dtype))
    return total(x_BHWC) / counted_1HW1


def _around(zeros: int) -> tuple[tuple[int, int], ...]:
    return ((0, 0), (zeros, zeros), (zeros, zeros), (0, 0))


def _together(*parts: jax.Array) -> jax.Array:
    return jnp.concatenate(parts, axis=-1)


def _a(x: jax.Array, of: Apply) -> jax.Array:
    fives = of("branch5x5_2", of("branch5x5_1", x))
    threes = of("branch3x3dbl_3", of("branch3x3dbl_2", of("branch3x3dbl_1", x)))
    return _together(of("branch1x1", x), fives, threes, of("branch_pool", mean(x)))


def _b(x: jax.Array, of: Apply) -> jax.Array:
    threes = of("branch3x3dbl_3", of("branch3x3dbl_2", of("branch3x3dbl_1", x)))
    return _together(of("branch3x3", x), threes, maximum(x, stride=2))


def _c(x: jax.Array, of: Apply) -> jax.Array:
    once, twice = x, x
    for number in (1, 2, 3):
        once = of(f"branch7x7_{number}", once)
    for number in (1, 2, 3, 4, 5):
        twice = of(f"branch7x7dbl_{number}", twice)
    return _together(of("branch1x1", x), once, twice, of("branch_pool", mean(x)))


def _d(x: jax.Array, of: Apply) -> jax.Array:
    sevens = x
    for number in (1, 2, 3, 4):
        sevens = of(f"branch7x7x3_{number}", sevens)
    threes = of("branch3x3_2", of("branch3x3_1", x))
    return _together(threes, sevens, maximum(x, stride=2))


def _e(x: jax.Array, of: Apply, pool: Callable[[jax.Array], jax.Array]) -> jax.Array:
    once = of("branch3x3_1", x)
    twice = of("branch3x3dbl_2", of("branch3x3dbl_1", x))
    return _together(
        of("branch1x1", x),
        of("branch3x3_2a", once),
        of("branch3x3_2b", once),
        of("branch3x3dbl_3a", twice),
        of("branch3x3dbl_3b", twice),
        of("branch_pool", pool(x)),
    )


def pooled_features(weights: Weights, x_BHWC: jax.Array) -> jax.Array:
    """The mean over positions of the last block, (B, F), of images in [-1, 1], 75 pixels or more.

    Widths are those of the weights.
    """

    def block(name: str) -> Apply:
        return lambda layer, x: convolved(weights, f"{name}.{layer}", x)

    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
        x_BHWC = convolved(weights, name, x_BHWC)
    x_BHWC = maximum(x_BHWC, stride=2)
    for name in ("Conv2d_3b_1x1", "Conv2d_4a_3x3"):
        x_BHWC = convolved(weights, name, x_BHWC)
    x_BHWC = maximum(x_BHWC, stride=2)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x_BHWC = _a(x_BHWC, block(name))
    x_BHWC = _b(x_BHWC, block("Mixed_6a"))
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x_BHWC = _c(x_BHWC, block(name))
    x_BHWC = _d(x_BHWC, block("Mixed_7a"))
    x_BHWC = _e(x_BHWC, block("Mixed_7b"), mean)
    x_BHWC = _e(x_BHWC, block("Mixed_7c"), lambda x: maximum(x, stride=1, zeros=1))
    return jnp.mean(x_BHWC, axis=(1, 2))


def convolved(weights: Weights, name: str, x_BHWC: jax.Array) -> jax.Array:
    """relu(convolution + bias) of a layer, its batch normalisation folded in."""
    layer, found = LAYERS[name], weights[name]
    rows, columns = layer.zeros
    y_BHWC = jax.lax.conv_general_dilated(
        x_BHWC,
        found["weight"],
        window_strides=(layer.stride, layer.stride),
        padding=((rows, rows), (columns, columns)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jax.nn.relu(y_BHWC + found["bias"].reshape(1, 1, 1, -1))


def folded(
    weight_HWIO: np.ndarray,
    *,
    scale_O: np.ndarray,
    shift_O: np.ndarray,
    mean_O: np.ndarray,
    variance_O: np.ndarray,
) -> dict[str, np.ndarray]:
    """Weight and bias of a convolution with the batch normalisation after it (Ioffe & Szegedy
    2015, algorithm 2) folded in, in float64 and then float32."""
    gain_O = scale_O.astype(np.float64) / np.sqrt(variance_O.astype(np.float64) + EPSILON)
    bias_O = shift_O.astype(np.float64) - mean_O * gain_O
    return {
        "weight": (weight_HWIO * gain_O).astype(np.float32),
        "bias": bias_O.astype(np.float32),
    }


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no truth of being equal
class Inception:
    """The network as an extractor: a pytree of its weights."""

    weights: dict[str, dict[str, Any]]
    head: dict[str, Any]  # weight (F, K), bias (K,)
    identity: str
    facts: str  # `about`, as JSON: a static part of a pytree must be hashable
    name = "inception-v3"
    metric = "fid"
    features = FEATURES
    classes = CLASSES

    @property
    def about(self) -> dict[str, Any]:
        """Name, identity, metric, preparation, and the SHA-256 of the file."""
        return json.loads(self.facts)

    def __call__(self, images_BHWC: jax.Array) -> Features:
        """Features and log probabilities of images uint8 (B, R, R, 1 or 3), of any side.

        Probabilities leave the last bias out, as the published inception score does (Salimans et
        al. 2016: its code multiplies the features with the weights alone).
        """
        levels_BHWC = resized(images_BHWC, side=SIDE, channels=3, antialias=False)
        with jax.default_matmul_precision(PRECISION):
            features_BF = pooled_features(self.weights, levels_BHWC / 127.5 - 1)
            logits_BK = features_BF @ self.head["weight"]
        return Features(features_BF, jax.nn.log_softmax(logits_BK))


jax.tree_util.register_dataclass(
    Inception, data_fields=["weights", "head"], meta_fields=["identity", "facts"]
)


def open_inception(path: pathlib.Path) -> Inception:
    """The network of a weights file; LabError names what is missing, unused or of a wrong shape."""
    file = read_weights(path)
    kept = {name: a for name, a in file.arrays.items() if not name.endswith(COUNTER)}
    tree = assign(_abstract(), dataclasses.replace(file, arrays=kept), _names())
    weights = {name: _folded_layer(raw) for name, raw in tree["layers"].items()}
    facts = {
        "name": Inception.name,
        "identity": json_sha256([file.sha256, PREPARATION])[:12],
        "metric": Inception.metric,
        "preparation": PREPARATION,
        "file_sha256": file.sha256,
    }
    return Inception(
        weights=jax.tree.map(jnp.asarray, weights),
        head=jax.tree.map(jnp.asarray, tree["head"]),
        identity=facts["identity"],
        facts=json.dumps(facts, sort_keys=True),
    )


def _folded_layer(raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return folded(
        raw["weight"],
        scale_O=raw["scale"],
        shift_O=raw["shift"],
        mean_O=raw["mean"],
        variance_O=raw["variance"],
    )


def _abstract() -> dict[str, Any]:
    """What the file should fill."""

    def struct(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.float32)

    layers = {}
    for name, layer in LAYERS.items():
        channel = {part: struct(layer.outputs) for part in _NORM}
        layers[name] = {"weight": struct(*layer.kernel, layer.inputs, layer.outputs), **channel}
    return {
        "layers": layers,
        "head": {"weight": struct(FEATURES, CLASSES), "bias": struct(CLASSES)},
    }


_NORM = {"scale": "weight", "shift": "bias", "mean": "running_mean", "variance": "running_var"}


def _names() -> list[NamedWeight]:
    names = [
        NamedWeight("head/weight", "fc.weight", Turn.LINEAR),
        NamedWeight("head/bias", "fc.bias"),
    ]
    for name in LAYERS:
        ours = f"layers/{name}"
        names.append(NamedWeight(f"{ours}/weight", f"{name}.conv.weight", Turn.CONVOLUTION))
        for part, theirs in _NORM.items():
            names.append(NamedWeight(f"{ours}/{part}", f"{name}.bn.{theirs}"))
    return names
