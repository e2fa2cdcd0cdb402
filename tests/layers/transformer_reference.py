"""Layers of transformers in float64 NumPy, from their definitions, with the weights of ours."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf


def f64(x):
    return np.asarray(x, np.float64)


def random(make, *, seed=0, size=0.4):
    """The module that `make` makes from a key, with random numbers for all of its parameters.

    Drawn here: what it starts from need not be compiled.
    """
    draws = np.random.default_rng(seed)

    def drawn(leaf):
        return jnp.asarray(size * draws.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(drawn, jax.eval_shape(make, jax.random.key(0)))


def layer(stack, index):
    """One layer of a stack."""
    return jax.tree.map(lambda x: x[index], stack)


def size_of(module):
    """How many numbers its parameters hold."""
    return sum(leaf.size for leaf in jax.tree.leaves(module))


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def gelu_tanh(x):
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def affine(x, part):
    return x @ f64(part.weight[...]) + f64(part.bias[...])


def standard(x, epsilon):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)


def layer_norm(x, part, epsilon):
    return standard(x, epsilon) * f64(part.scale[...]) + f64(part.bias[...])


def rms_norm(x, part, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * f64(part.scale[...])


def weights(q, k, heads, seen=None):
    """One image (T, D), head by head: (H, T, S); `seen` (T, S): the keys of each query."""
    found = []
    for part in np.split(np.arange(q.shape[1]), heads):
        logits = q[:, part] @ k[:, part].T / np.sqrt(len(part))
        if seen is not None:
            logits = np.where(seen, logits, -np.inf)
        found.append(np.exp(logits - logits.max(-1, keepdims=True)))
    return np.stack([w / w.sum(-1, keepdims=True) for w in found])


def attend(q, k, v, heads, seen=None):
    """One image (T, D), head by head; `seen` (T, S): the keys of each query."""
    out = np.zeros((len(q), v.shape[1]))
    for part, each in zip(
        np.split(np.arange(q.shape[1]), heads), weights(q, k, heads, seen), strict=True
    ):
        out[:, part] = each @ v[:, part]
    return out


def vit_weights(x, part):
    return weights(affine(x, part.query), affine(x, part.key), part.heads)


def vit_attention(x, part):
    q, k, v = (affine(x, project) for project in (part.query, part.key, part.value))
    return affine(attend(q, k, v, part.heads), part.out)


def time_embedding(time, part, features=256):
    """One time."""
    half = features // 2
    waves = np.zeros(features)
    for i in range(half):
        angle = time * 10000 ** (-i / half)
        waves[i], waves[half + i] = np.cos(angle), np.sin(angle)
    return affine(silu(affine(waves, part.inward)), part.out)
