"""Convolutions whose gradients are fast inside a branch or a loop of a program for a CPU.

XLA's compiler for CPUs brings convolutions to the one form that its fast kernels take (NHWC images,
HWIO kernels) in the main computation of a program only. In a branch or a loop the gradients that
JAX writes stay as they are and run as plain loops, 2 to 30 times slower: three quarters of a step
with a discriminator, nearly all of several updates in one dispatch. Here they are written in that
form. Other platforms have kernels for JAX's.

B batch, H rows, W columns, C channels, O output channels, K a kernel's side.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lab.core.scopes import CONVOLUTION

CANONICAL = ("NHWC", "HWIO", "NHWC")
Padding = tuple[tuple[int, int], tuple[int, int]]  # before and after, of rows and of columns
Precision = jax.lax.Precision | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolve(
    x_BHWC: jax.Array,
    kernel_KKCO: jax.Array,
    stride: int,
    padding: Padding,
    precision: Precision = None,
) -> jax.Array:
    """The convolution (B, H', W', O) of images; both are of one dtype."""
    return _plain(x_BHWC, kernel_KKCO, stride=stride, padding=padding, precision=precision)


def _plain(
    x_BHWC: jax.Array,
    kernel_KKCO: jax.Array,
    *,
    stride: int,
    padding: Padding,
    precision: Precision,
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x_BHWC,
        kernel_KKCO,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=CANONICAL,
        precision=precision,
    )


def _forward(
    x_BHWC: jax.Array, kernel_KKCO: jax.Array, stride: int, padding: Padding, precision: Precision
):
    return convolve(x_BHWC, kernel_KKCO, stride, padding, precision), (x_BHWC, kernel_KKCO)


@jax.named_scope(CONVOLUTION)
def _backward(
    stride: int,
    padding: Padding,
    precision: Precision,
    kept: tuple[jax.Array, jax.Array],
    g_BHWO: jax.Array,
):
    x_BHWC, kernel_KKCO = kept
    given = {"stride": stride, "padding": padding, "precision": precision}
    images = jax.lax.platform_dependent(
        kernel_KKCO,
        g_BHWO,
        cpu=functools.partial(_of_images, size=x_BHWC.shape[1:3], **given),
        default=functools.partial(_as_jax, x_BHWC, **given),
    )
    kernel = kernel_gradient(x_BHWC, g_BHWO, sides=kernel_KKCO.shape[:2], **given)
    return images, kernel


convolve.defvjp(_forward, _backward)


@jax.named_scope(CONVOLUTION)
def kernel_gradient(
    x_BHWC: jax.Array,
    g_BHWO: jax.Array,
    *,
    sides: Sequence[int],
    stride: int,
    padding: Padding,
    precision: Precision = None,
) -> jax.Array:
    """The gradient (K, K, C, O) of the kernel of a convolution of `x_BHWC`, from its output's."""
    given = {
        "sides": tuple(sides),
        "stride": stride,
        "padding": padding,
        "precision": precision,
    }
    return jax.lax.platform_dependent(
        x_BHWC,
        g_BHWO,
        cpu=functools.partial(_of_kernel, **given),
        default=functools.partial(_kernel_as_jax, **given),
    )


def _of_images(
    kernel_KKCO: jax.Array,
    g_BHWO: jax.Array,
    *,
    size: Sequence[int],
    stride: int,
    padding: Padding,
    precision: Precision,
) -> jax.Array:
    """A convolution of the output's gradient, spread by the stride, with the kernel turned."""
    turned_KKOC = jnp.flip(kernel_KKCO, (0, 1)).swapaxes(2, 3)
    around = []
    for axis, (before, _) in enumerate(padding):
        side, spread = kernel_KKCO.shape[axis], (g_BHWO.shape[1 + axis] - 1) * stride + 1
        first = side - 1 - before
        around.append((first, size[axis] + side - 1 - spread - first))
    return jax.lax.conv_general_dilated(
        g_BHWO,
        turned_KKOC,
        window_strides=(1, 1),
        padding=around,
        lhs_dilation=(stride, stride),
        dimension_numbers=CANONICAL,
        precision=precision,
    )


def _of_kernel(
    x_BHWC: jax.Array,
    g_BHWO: jax.Array,
    *,
    sides: Sequence[int],
    stride: int,
    padding: Padding,
    precision: Precision,
) -> jax.Array:
    """A convolution of the images, channels as batch, with the output's gradient as a kernel."""
    around = []
    for axis, (before, _) in enumerate(padding):
        spread = (g_BHWO.shape[1 + axis] - 1) * stride + 1
        around.append((before, sides[axis] - 1 + spread - x_BHWC.shape[1 + axis] - before))
    gradient_CKKO = jax.lax.conv_general_dilated(
        x_BHWC.transpose(3, 1, 2, 0),
        g_BHWO.transpose(1, 2, 0, 3),
        window_strides=(1, 1),
        padding=around,
        rhs_dilation=(stride, stride),
        dimension_numbers=CANONICAL,
        precision=precision,
    )
    return gradient_CKKO.transpose(1, 2, 0, 3)


def _as_jax(
    x_BHWC: jax.Array, kernel_KKCO: jax.Array, g_BHWO: jax.Array, **given: int | Padding | Precision
) -> jax.Array:
    of = functools.partial(_plain, kernel_KKCO=kernel_KKCO, **given)
    (gradient,) = jax.linear_transpose(of, x_BHWC)(g_BHWO)
    return gradient


def _kernel_as_jax(
    x_BHWC: jax.Array,
    g_BHWO: jax.Array,
    *,
    sides: Sequence[int],
    **given: int | Padding | Precision,
) -> jax.Array:
    shape = (*sides, x_BHWC.shape[-1], g_BHWO.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, x_BHWC.dtype)
    of = functools.partial(_plain, x_BHWC, **given)
    (gradient,) = jax.linear_transpose(of, kernel)(g_BHWO)
    return gradient
