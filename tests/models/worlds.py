"""Small models for the tests."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.config import admit
from lab.core.fields import overlay
from lab.models import families


def config(size="s1", family="elm", **overrides):
    """An admitted config of a family, or of a variant of it: family "bigr", size "S2-s1"."""
    get_config = importlib.import_module(f"configs.{family}").get_config
    c = overlay(get_config(size), {"model.class_dropout": 0.0, **overrides})
    families.fill_sizes(c.model)
    return admit(c)


def generator(run, codes, *, seed=0, head_noise=1.0, **running):
    """A model of the config whose head is not zero."""
    make = families.builder(
        run.model, codes, families.Running(**{"compute_dtype": "float32", **running})
    )
    model = make(jax.random.key(seed))
    noise = jax.random.normal(jax.random.key(seed + 1), model.head.out.shape)
    model.head.out[...] = head_noise * noise
    return model


def stirred(run, codes, *, seed=0, noise=0.3, **running):
    """A model of the config, every parameter moved at random: none is zero any more."""
    make = families.builder(
        run.model, codes, families.Running(**{"compute_dtype": "float32", **running})
    )

    def move(key):
        leaves, shape = jax.tree.flatten(make(key))
        keys = jax.random.split(jax.random.fold_in(key, 99), len(leaves))
        return jax.tree.unflatten(
            shape,
            [x + noise * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)],
        )

    return jax.jit(move)(jax.random.key(seed))


def every_image(*, positions, subcodes, vocabulary):
    """All images (E, T, S) int32 of so few codes that they can be listed."""
    every = list(itertools.product(range(vocabulary), repeat=positions * subcodes))
    return jnp.asarray(np.array(every).reshape(len(every), positions, subcodes), jnp.int32)


def image_keys(seed, images):
    """A key for each of so many images."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), jnp.arange(images))


def position_nats(model, tokens_BTS, label_B):
    """Nats (B, T) of each position, in raster order, given those before it in the scan."""
    path = model.order.path()
    along_BTS = path.along(jnp.asarray(tokens_BTS))
    x_BTD = model.order.features(model, along_BTS, label_B, None)
    return path.back(model.predictor.nats(x_BTD, along_BTS, None))
