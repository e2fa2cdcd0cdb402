"""Small models for the tests."""

import jax

from configs import elm
from lab.core.config import admit
from lab.core.fields import overlay
from lab.models import families


def config(size="s1", **overrides):
    """An admitted config of ELM."""
    c = overlay(elm.get_config(size), {"model.class_dropout": 0.0, **overrides})
    families.fill_sizes(c.model)
    return admit(c)


def generator(run, codes, *, seed=0, head_noise=1.0, **running):
    """A model of the config with a head that is not zero."""
    make = families.builder(
        run.model, codes, families.Running(**{"compute_dtype": "float32", **running})
    )
    model = make(jax.random.key(seed))
    noise = jax.random.normal(jax.random.key(seed + 1), model.head.out.shape)
    model.head.out[...] = head_noise * noise
    return model
