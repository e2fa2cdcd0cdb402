"""Bits under an order: a bound upon a bound, against enumeration of images, orders and chains."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.models import families
from tests.models.bit_chains import exact_bound, final, strings, strings_given
from tests.models.worlds import config, every_image, image_keys, stirred

BITS, POSITIONS, STEPS = 2, 2, 3
CODES = families.Codes(vocabulary=2, grid=(1, POSITIONS, 1), classes=2)
SMALL = {
    "model.subcodes": BITS,
    "model.diffusion_steps": STEPS,
    "model.denoiser_depth": 1,
    "model.denoiser_width": 16,
}
ORDERS = {
    "S2": [tuple(range(POSITIONS))],  # raster
    "S3": list(itertools.permutations(range(POSITIONS))),
}


@jax.jit
def reverse(head, x_BTD):
    """P(x_{t-1} = 1 | x_t) (T, steps, B, 2^K, K) at each position, for every x_t; t falls."""
    every_NK = jnp.float32(strings(BITS))
    z_BTD = head.condition(x_BTD)

    def at(z_D, t):
        rows = len(every_NK)
        z_ND = jnp.broadcast_to(z_D, (rows, z_D.size))
        return head.reverse(z_ND, every_NK, jnp.full(rows, t), jnp.full(rows, t - 1))

    of_images = jax.vmap(at, (0, None))
    of_times = jax.vmap(of_images, (None, 0))
    return jax.vmap(of_times, (1, None))(z_BTD, jnp.arange(STEPS, 0, -1))


@jax.jit
def features(model, *given):
    return model.order.features(model, *given, None)


def terms(model, images, hidden):
    """Exact nats and exact bounds (E, T) of each position where these positions are hidden."""
    label_E = jnp.ones(len(images), int)
    if hidden is None:
        x_ETD = features(model, images, label_E)
    else:
        hidden_ET = jnp.tile(jnp.array(hidden)[None], (len(images), 1))
        x_ETD = features(model, images, hidden_ET, label_E)
    kernels = np.asarray(reverse(model.head, x_ETD), np.float64)
    index = np.asarray(images) @ (2 ** np.arange(BITS - 1, -1, -1))
    nats, bounds = np.zeros(index.shape), np.zeros(index.shape)
    for image, position in itertools.product(range(len(images)), range(POSITIONS)):
        matrices = [strings_given(p) for p in kernels[position, :, image]]
        code = index[image, position]
        nats[image, position] = -math.log(final(matrices)[code])
        bounds[image, position] = exact_bound(matrices, STEPS, BITS)[code]
    return nats, bounds


def by_orders(model, images, orders, *, raster):
    """Nats and bounds of every image under every order: (orders, E) each."""
    found = {}
    for order in orders:
        hidden, totals = [True] * POSITIONS, np.zeros((2, len(images)))
        for position in order:
            mask = None if raster else tuple(hidden)
            if mask not in found:
                found[mask] = terms(model, images, mask)
            totals += np.stack([each[:, position] for each in found[mask]])
            hidden[position] = False
        yield totals


@pytest.mark.parametrize("variant", ORDERS)
def test_the_estimate_is_of_the_bound_and_the_bound_is_not_below_the_truth(variant):
    run = config(f"{variant}-s1", "bigr", **SMALL)
    model = stirred(run, CODES)
    images = every_image(positions=POSITIONS, subcodes=BITS, vocabulary=2)
    both = np.array(list(by_orders(model, images, ORDERS[variant], raster=variant == "S2")))
    nats_OE, bound_OE = both[:, 0], both[:, 1]
    np.testing.assert_allclose(np.exp(-nats_OE).sum(axis=1), 1.0, atol=1e-4)
    truth_E, bound_E = -np.log(np.exp(-nats_OE).mean(axis=0)), bound_OE.mean(axis=0)
    assert np.all(bound_E > truth_E) and np.max(bound_E - truth_E) > 0.005

    label_E = jnp.ones(len(images), int)

    @jax.jit
    def estimates(seeds_R):
        def of(seed):
            return model.nats_per_image(images, label_E, image_keys(seed, len(images)), draws=4)

        return jax.lax.map(of, seeds_R, batch_size=50)

    drawn_RE = np.asarray(estimates(jnp.arange(1500)), np.float64)
    se_E = drawn_RE.std(axis=0, ddof=1) / math.sqrt(len(drawn_RE))
    assert np.abs((drawn_RE.mean(axis=0) - bound_E) / se_E).max() < 4.5
    error = (drawn_RE.mean(axis=0) - bound_E).mean()
    assert abs(error) < 4 * math.sqrt((se_E**2).sum()) / len(se_E)
