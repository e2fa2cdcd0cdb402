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
    make = _builder(run, codes, running)

    def moved(key, head_key):
        model = make(key)
        model.head.out[...] = head_noise * jax.random.normal(head_key, model.head.out.shape)
        return model

    return jax.jit(moved)(jax.random.key(seed), jax.random.key(seed + 1))


def stirred(run, codes, *, seed=0, noise=0.3, **running):
    """A model of the config with random numbers for every parameter (see `drawn`)."""
    return drawn(_builder(run, codes, running), seed=seed, noise=noise)


def drawn(make, *, seed=0, noise=0.3):
    """The module that `make` makes from a key, its parameters at random: scales about one.

    Drawn here: what it starts from need not be compiled.
    """
    draws = np.random.default_rng(seed)

    def random(path, leaf):
        centre = float(any(getattr(key, "name", None) == "scale" for key in path))
        return jnp.asarray(centre + noise * draws.standard_normal(leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(make, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(random, shapes)


def _builder(run, codes, running):
    """A function from a key to the model, in float32 where nothing else is said."""
    running = families.Running(**{"compute_dtype": "float32", **running})
    return families.builder(run.model, codes, running)


def every_image(*, positions, subcodes, vocabulary):
    """All images (E, T, S) int32 of so few codes that they can be listed."""
    every = list(itertools.product(range(vocabulary), repeat=positions * subcodes))
    return jnp.asarray(np.array(every).reshape(len(every), positions, subcodes), jnp.int32)


def image_keys(seed, images):
    """A key for each of so many images."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), jnp.arange(images))


@jax.jit
def nats_per_image(model, tokens_BTS, label_B, key_B=None):
    """Nats (B,) of each image; compiled once for models of the same parts and shapes."""
    return model.nats_per_image(tokens_BTS, label_B, key_B)


@jax.jit
def position_nats(model, tokens_BTS, label_B):
    """Nats (B, T) of each position, in raster order, given those before it in the scan."""
    path = model.order.path()
    along_BTS = path.along(jnp.asarray(tokens_BTS))
    x_BTD = model.order.features(model, along_BTS, label_B, None)
    return path.back(model.predictor.nats(x_BTD, along_BTS, None))
