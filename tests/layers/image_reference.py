"""Image layers as loops in float64 NumPy, from their definitions; weights are (rows, columns, in,
out), images (B, H, W, C)."""

import jax
import numpy as np


def f64(x):
    return np.asarray(x, np.float64)


def values(layer):
    """A convolution's weight and bias, or a norm's scale and shift."""
    first = layer.weight if hasattr(layer, "weight") else layer.scale
    return f64(first[...]), f64(layer.bias[...])


def conv(x, layer, *, stride=1, padding=None):
    """Output by output, tap by tap; taps outside the image are zero."""
    weight, bias = values(layer)
    side = weight.shape[0]
    around = ((side // 2,) * 2,) * 2 if padding is None else padding
    (top, bottom), (left, right) = around
    batch, rows, columns, _ = x.shape
    out_rows = (rows + top + bottom - side) // stride + 1
    out_columns = (columns + left + right - side) // stride + 1
    y = np.zeros((batch, out_rows, out_columns, weight.shape[3])) + bias
    for i in range(out_rows):
        for j in range(out_columns):
            for a in range(side):
                for b in range(side):
                    r, c = i * stride + a - top, j * stride + b - left
                    if 0 <= r < rows and 0 <= c < columns:
                        y[:, i, j] += x[:, r, c] @ weight[a, b]
    return y


def group_norm(x, layer, *, groups):
    scale, shift = values(layer)
    y, each = np.zeros_like(x), x.shape[-1] // groups
    for image in range(len(x)):
        for group in range(groups):
            part = slice(group * each, (group + 1) * each)
            values_of = x[image, :, :, part]
            y[image, :, :, part] = (values_of - values_of.mean()) / np.sqrt(values_of.var() + 1e-6)
    return y * scale + shift


def swish(x):
    return x / (1 + np.exp(-x))


def residual(x, layer, *, groups):
    h = conv(swish(group_norm(x, layer.first_norm, groups=groups)), layer.first)
    h = conv(swish(group_norm(h, layer.second_norm, groups=groups)), layer.second)
    return h + (x if layer.shortcut is None else conv(x, layer.shortcut))


def attention(x, layer, *, groups):
    """Position by position."""
    normed = group_norm(x, layer.norm, groups=groups)
    q, k, v = (conv(normed, part) for part in (layer.query, layer.key, layer.value))
    mixed, channels = np.zeros_like(x), x.shape[-1]
    for image in range(len(x)):
        keys, heard = k[image].reshape(-1, channels), v[image].reshape(-1, channels)
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                weights = np.exp(keys @ q[image, i, j] / np.sqrt(channels))
                mixed[image, i, j] = weights @ heard / weights.sum()
    return x + conv(mixed, layer.out)


def down(x, layer):
    return conv(x, layer.conv, stride=2, padding=((0, 1), (0, 1)))


def up(x, layer):
    batch, rows, columns, channels = x.shape
    twice = np.zeros((batch, 2 * rows, 2 * columns, channels))
    for i in range(2 * rows):
        for j in range(2 * columns):
            twice[:, i, j] = x[:, i // 2, j // 2]
    return conv(twice, layer.conv)


def filled(make, *, seed=7, std=0.4):
    """A layer whose every parameter is random, so that scales of 1 and shifts of 0 hide nothing."""
    rng = np.random.default_rng(seed)

    def fill(leaf):
        return jax.numpy.asarray(rng.normal(0, std, leaf.shape), leaf.dtype)

    return jax.tree.map(fill, jax.eval_shape(make))
