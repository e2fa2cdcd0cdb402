"""A perceptual distance of images: LPIPS (Zhang et al. 2018, section 3, eq. 1), version 0.1.

Features of a VGG16 (Simonyan & Zisserman 2015) after the last ReLU of each of its five stages are
normalised over channels, their squared differences weighted by channel, averaged over space and
summed over stages. The weights are frozen: gradients flow to the images only.

The weights come from one safetensors file, which the user makes once from the published ones,
wherever PyTorch and the package `lpips` are at hand:

    import lpips, safetensors.torch
    made = {}
    for name, value in lpips.LPIPS(net="vgg").state_dict().items():
        part = name.split(".")
        if part[0] == "net":  # net.slice1.0.weight
            made[f"vgg.features.{part[2]}.{part[3]}"] = value.contiguous()
        elif part[0] in ("lin0", "lin1", "lin2", "lin3", "lin4"):  # lin0.model.1.weight
            made[f"{part[0]}.weight"] = value.contiguous()
    safetensors.torch.save_file(made, "lpips_vgg.safetensors")

B batch, H rows, W columns, C channels.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.errors import LabError
from lab.core.scopes import CONVOLUTION, LOSS
from lab.core.weights import NamedWeight, Turn, WeightFile, assign, read_weights
from lab.layers.branched_convolution import convolve

# torchvision's numbers of the convolutions of each stage; a 2 x 2 maximum precedes all but the
# first stage.
STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
SAME = ((1, 1), (1, 1))  # zeros around an image that keep its size under 3 x 3
PUBLISHED_WIDTHS = (64, 128, 256, 512, 512)
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10  # added to the norm of a feature
LEAST_SIDE = 2 ** (len(STAGES) - 1)


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no truth of being equal
class Perceptual:
    """The distance: a pytree of frozen weights, called on images in [-1, 1].

    `stages` holds weight (3, 3, I, O) and bias (O,) of each convolution of each stage, `linear`
    the channel weights (C, 1) of each stage; `identity` is the SHA-256 of the file.
    """

    stages: list[list[dict[str, Any]]]
    linear: list[Any]
    identity: str

    @jax.named_scope(LOSS)
    def __call__(self, images_BHWC: jax.Array, others_BHWC: jax.Array) -> jax.Array:
        """Distances (B,) float32 of images (B, H, W, 3) in [-1, 1]: 0 of equals, symmetric.

        Convolutions run in the images' dtype, the rest in float32. Raises LabError where a side
        is under 16 or there are not 3 channels.
        """
        _check_images(images_BHWC.shape, others_BHWC.shape)
        frozen = jax.lax.stop_gradient((self.stages, self.linear))
        # One pass over both: half the launches, and the weights are read once.
        both = jnp.concatenate([images_BHWC, others_BHWC.astype(images_BHWC.dtype)])
        total_B = jnp.zeros((len(images_BHWC),), jnp.float32)
        for feature, weight in zip(features(frozen[0], both), frozen[1], strict=True):
            one, other = jnp.split(_normalised(feature.astype(jnp.float32)), 2)
            # Sums rather than a product with (C, 1): float32 on every device.
            weights_C = jnp.reshape(weight, (1, 1, 1, -1)).astype(jnp.float32)
            distance_BHW = jnp.sum(jnp.square(one - other) * weights_C, axis=-1)
            total_B = total_B + jnp.mean(distance_BHW, axis=(1, 2))
        return total_B


jax.tree_util.register_dataclass(
    Perceptual, data_fields=["stages", "linear"], meta_fields=["identity"]
)


def features(stages: list[list[dict[str, Any]]], images_BHWC: jax.Array) -> list[jax.Array]:
    """The last features of each stage, after their ReLU, of images in [-1, 1]."""
    dtype = images_BHWC.dtype
    shift, scale = (jnp.asarray(v, dtype).reshape(1, 1, 1, 3) for v in (SHIFT, SCALE))
    x_BHWC, found = (images_BHWC - shift) / scale, []
    for stage in stages:
        x_BHWC = _halved(x_BHWC) if found else x_BHWC
        for layer in stage:
            with jax.named_scope(CONVOLUTION):
                x_BHWC = convolve(x_BHWC, jnp.asarray(layer["weight"], dtype), 1, SAME)
            x_BHWC = jax.nn.relu(x_BHWC + jnp.asarray(layer["bias"], dtype).reshape(1, 1, 1, -1))
        found.append(x_BHWC)
    return found


def load_perceptual(path: Path | str | None) -> Perceptual:
    """The distance of a weights file; narrower networks than VGG16 are taken as the file has them.

    Raises LabError where there is no file to read, or it does not hold these weights.
    """
    if not path:
        raise LabError(
            "config.losses.perceptual_file: the perceptual loss needs a safetensors file of VGG16 "
            "and LPIPS weights, and none is given; lab/tokenizers/perceptual.py says how to make "
            "one; or set config.losses.perceptual = 0"
        )
    file = read_weights(Path(path))
    tree = assign(_abstract(file), file, _names())
    for number, weight in enumerate(tree["linear"]):
        if not np.all(weight >= 0):
            raise LabError(
                f"{file.path}: lin{number}.weight goes down to {weight.min()}; LPIPS takes weights "
                "of 0 or more"
            )
    tree = jax.tree.map(jnp.asarray, tree)
    return Perceptual(tree["stages"], tree["linear"], file.sha256)


def _abstract(file: WeightFile) -> dict[str, Any]:
    """The tree that the file should fill: widths from its biases, all else follows from them."""

    def struct(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.float32)

    inputs, stages, linear = 3, [], []
    for numbers, width in zip(STAGES, PUBLISHED_WIDTHS, strict=True):
        stage = []
        for number in numbers:
            bias = file.arrays.get(f"vgg.features.{number}.bias")
            outputs = width if bias is None else bias.size
            weight = struct(3, 3, inputs, outputs)
            stage.append({"weight": weight, "bias": struct(outputs)})
            inputs = outputs
        stages.append(stage)
        linear.append(struct(inputs, 1))
    return {"stages": stages, "linear": linear}


def _names() -> list[NamedWeight]:
    names = []
    for s, numbers in enumerate(STAGES):
        names.append(NamedWeight(f"linear/{s}", f"lin{s}.weight", Turn.POINTWISE_TO_LINEAR))
        for i, number in enumerate(numbers):
            ours, theirs = f"stages/{s}/{i}", f"vgg.features.{number}"
            names.append(NamedWeight(f"{ours}/weight", f"{theirs}.weight", Turn.CONVOLUTION))
            names.append(NamedWeight(f"{ours}/bias", f"{theirs}.bias"))
    return names


def _halved(x_BHWC: jax.Array) -> jax.Array:
    """Maxima of 2 x 2 cells; a last odd row or column is left out."""
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x_BHWC, -jnp.inf, jax.lax.max, window, window, "VALID")


def _normalised(x_BHWC: jax.Array) -> jax.Array:
    """Each position's feature divided by its norm plus 1e-10.

    Where the square of a live feature underflows to 0 the root has no derivative, and every
    gradient would be NaN: the norm is taken as 1 there, which is 0 all the same.
    """
    square = jnp.sum(x_BHWC * x_BHWC, axis=-1, keepdims=True)
    return x_BHWC / (jnp.sqrt(jnp.where(square > 0, square, 1.0)) + EPSILON)


def _check_images(shape: tuple[int, ...], other: tuple[int, ...]) -> None:
    if shape != other or len(shape) != 4:
        raise ValueError(f"images {shape}, reconstructions {other}")
    if min(shape[1:3]) < LEAST_SIDE or shape[3] != 3:
        raise LabError(
            f"config.losses.perceptual: images of {shape[1]} x {shape[2]} with {shape[3]} "
            f"channels; the feature network takes 3 channels and sides of {LEAST_SIDE} or more"
        )
