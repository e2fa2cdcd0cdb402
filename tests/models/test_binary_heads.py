"""Heads of bits against enumeration of all bit strings and of all chains, in float64."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from lab.layers.parameters import Init
from lab.models.bernoulli import BernoulliProcess, balance_odds
from lab.models.binary_heads import BernoulliDiffusionHead, DirectBernoulliHead, _step_nats
from lab.models.drawing import Drawing
from lab.models.objective import Likelihood
from tests.models.bit_chains import (
    Oracle,
    balanced_nats,
    chi_square,
    exact_bound,
    final,
    kernel,
    noised_strings,
    strings,
    strings_given,
    whole_chain,
)
from tests.models.worlds import drawn

BITS, WIDTH, POSITIONS, STEPS = 3, 8, 2, 6
TARGETS = ["xor", "x0"]


def diffusion(key, target="xor"):
    return BernoulliDiffusionHead(
        key,
        bits=BITS,
        width=WIDTH,
        positions=POSITIONS,
        depth=1,
        denoiser_width=16,
        steps=STEPS,
        target=target,
        norm_epsilon=1e-5,
        init=Init(rule="mup", std=1.0),
    )


def direct(key=None):
    return DirectBernoulliHead(bits=BITS, width=WIDTH, norm_epsilon=1e-5)


def shaken(make=diffusion, **settings):
    """A head with random numbers for every parameter, so that nothing is zero or one."""
    return drawn(functools.partial(make, **settings), seed=7)


@functools.cache
def fresh():
    """A head as it starts."""
    return jax.jit(diffusion)(jax.random.key(0))


def features(seed=3):
    """Features (T, D) of one image."""
    return jax.random.normal(jax.random.key(seed), (POSITIONS, WIDTH))


def unflipped(logit_NK, x_NK, t, head):
    """The network's P(x_0 = 1 | x_t): the balance of the loss taken out of the flips' odds."""
    if head.target == "xor":
        factor = balance_odds(t / (2 * head.process.steps), head.bits)
        logit_NK = logit_NK - (1 - 2 * x_NK) * math.log(factor)
    return 1 / (1 + np.exp(-logit_NK))


@jax.jit
def x0_logits(head, z_D, t):
    x_NK = jnp.float32(strings(BITS))
    z_ND = jnp.broadcast_to(z_D, (len(x_NK), WIDTH))
    return head.x0_logits(z_ND, x_NK, jnp.full(len(x_NK), t))


def logits_at(head, z_D, t):
    """Logits of x_0 (2^K, K) in float64 for every x_t."""
    return np.float64(x0_logits(head, z_D, t))


@jax.jit
def reverse(head, z_D, t, s):
    """The head's own P(x_s = 1 | x_t) (2^K, K) for every x_t."""
    x_NK = jnp.float32(strings(head.bits))
    rows = len(x_NK)
    z_ND = jnp.broadcast_to(z_D, (rows, WIDTH))
    return head.reverse(z_ND, x_NK, jnp.full(rows, t), jnp.full(rows, s))


@jax.jit
def losses(head, x_BTD, tokens_BTK, key_B):
    """Loss and nats (2, B, T)."""
    arguments = (x_BTD, tokens_BTK, key_B)
    return jnp.stack([head.loss(*arguments), head.nats(*arguments)])


def kernels(head, z_D, times, *, null_D=None, guidance=1.0, temperature=1.0):
    """The model's reverse kernels, in the order of the chain."""
    steps, matrices = head.process.steps, []
    for t, s in times:
        logit = logits_at(head, z_D, t)
        if null_D is not None:
            null = logits_at(head, null_D, t)
            logit = null + guidance * (logit - null)
        p_NK = unflipped(logit / temperature, strings(BITS), t, head)
        matrices.append(kernel(p_NK, s, t, steps))
    return matrices


@pytest.fixture(scope="module", params=TARGETS)
def head(request):
    return shaken(target=request.param)


@jax.jit
def condition(head, x_BTD):
    return head.condition(x_BTD)


def conditions(head, x_TD):
    return np.asarray(condition(head, x_TD[None])[0])


class Drawn(NamedTuple):
    """Means and standard errors (2^K, T), for each x_0, of what has been drawn many times."""

    mean: np.ndarray
    error: np.ndarray


@jax.jit
def moments(head, x_TD, keys):
    """Means and standard deviations (2, 2^K, T) of loss and nats."""
    x_BTD = jnp.broadcast_to(x_TD, (2**BITS, *x_TD.shape))
    tokens = jnp.broadcast_to(strings(BITS)[:, None], (2**BITS, POSITIONS, BITS))

    def draw(key):
        return losses(head, x_BTD, tokens, jax.random.split(key, 2**BITS))

    # XLA on a CPU (jaxlib 0.10.2) sums more than 2^15 rows at once wrongly by weights of few.
    values = jax.lax.map(draw, keys, batch_size=1000)
    return values.mean(axis=0), values.std(axis=0)


def drawn_losses(head, repeats=6_000):
    mean, deviation = moments(head, features(), jax.random.split(jax.random.key(11), repeats))
    error = np.float64(deviation) / math.sqrt(repeats)
    return [Drawn(np.float64(mean[i]), error[i]) for i in (0, 1)]


@pytest.fixture(scope="module")
def found(head):
    """Draws of the loss and of the nats."""
    return drawn_losses(head)


def test_reverse_is_the_mixture_over_x0(head):
    x, z_D = strings(BITS), conditions(head, features())[1]
    for t, s in [(6, 5), (6, 0), (4, 1), (2, 1), (1, 0)]:
        (matrix,) = kernels(head, z_D, [(t, s)])
        np.testing.assert_allclose(reverse(head, z_D, t, s), matrix @ x, atol=3e-6)


def test_the_bound_is_never_below_and_nats_estimate_it(head, found):
    mean, error = found[1]
    for place, z_D in enumerate(conditions(head, features())):
        matrices = kernels(head, z_D, whole_chain(STEPS))
        p, bound = final(matrices), exact_bound(matrices, STEPS, BITS)
        assert p.sum() == pytest.approx(1, abs=1e-9)
        assert np.ptp(p) > 0.05  # the network is no trivial one
        assert np.all(bound > -np.log(p))
        assert np.all(np.abs(mean[:, place] - bound) < 4.5 * error[:, place])
        assert np.all(error[:, place] < 0.03 * bound)
    assert head.likelihood is Likelihood.BOUND


def test_loss_is_the_balanced_cross_entropy(head, found):
    """Its expectation over times and noise, enumerated, against the mean of many draws."""
    x, (mean, error) = strings(BITS), found[0]
    for place, z_D in enumerate(conditions(head, features())):
        expected = np.zeros(len(x))
        for t in range(1, STEPS + 1):
            logit = logits_at(head, z_D, t)
            for index, x0 in enumerate(x):
                nats_N = balanced_nats(logit, x0, head.target)
                expected[index] += noised_strings(t, STEPS, BITS)[index] @ nats_N / STEPS
        assert np.all(np.abs(mean[:, place] - expected) < 4.5 * error[:, place])
        assert np.all(error[:, place] < 0.03 * expected)


def with_oracle(data, bits, steps, target):
    """The bound of each x_0 and the model's p(x_0), with the head's own reverse kernels."""
    head = shaken(target=target)
    head.bits, head.process = bits, BernoulliProcess(steps)
    head.network = Oracle(data, bits, steps, target)
    matrices = [
        strings_given(np.float64(reverse(head, jnp.zeros(WIDTH), t, s)))
        for t, s in whole_chain(steps)
    ]
    return exact_bound(matrices, steps, bits), final(matrices)


@pytest.mark.parametrize("target", TARGETS)
def test_the_bound_is_tight_for_independent_bits_and_their_posterior(target):
    data = strings_given(np.array([[0.1, 0.6, 0.8]]))[0]
    bound, p = with_oracle(data, 3, 4, target)
    np.testing.assert_allclose(p, data, atol=2e-6)
    assert data @ bound == pytest.approx(-(data @ np.log(data)), abs=1e-5)


def test_the_bound_tightens_with_steps_for_bits_that_depend():
    data = np.array([0.48, 0.02, 0.02, 0.48])
    gaps = []
    for steps in (2, 8, 32):
        bound, p = with_oracle(data, 2, steps, "x0")
        gaps.append(data @ bound + data @ np.log(data))
    assert gaps[0] > 2.5 * gaps[1] > 6 * gaps[2] > 0
    assert gaps[2] < 0.03


def joint(head, x_TD, null_TD, times, guidance, temperature):
    """The model's distribution of the strings of two positions, flat."""
    z_TD = conditions(head, x_TD)
    null_z_TD = [None] * POSITIONS if null_TD is None else conditions(head, null_TD)
    settings = {"guidance": guidance, "temperature": temperature}
    first, second = (
        final(kernels(head, z_D, times, null_D=null_D, **settings))
        for z_D, null_D in zip(z_TD, null_z_TD, strict=True)
    )
    return np.outer(first, second).ravel()


@pytest.mark.parametrize(
    ("target", "steps", "guidance", "temperature"),
    [("xor", 0, None, 1.0), ("x0", 3, None, 1.0), ("xor", 0, 2.5, 0.8)],
)
def test_propose_draws_from_the_model(target, steps, guidance, temperature):
    """Chi-square over all strings of both positions at once."""
    head = shaken(target=target)
    x_TD, null_TD, repeats = features(), features(5), 6_000
    drawing = Drawing(steps=steps, temperature=temperature)
    null = None if guidance is None else null_TD
    keys = jax.random.split(jax.random.key(2), repeats)
    draw = jax.jit(
        lambda g, keys: jax.vmap(lambda k: head.propose(x_TD, null, g, k, drawing))(keys)
    )
    tokens = np.asarray(draw(jnp.float32(guidance or 0), keys).tokens_TS)
    code = tokens.reshape(repeats, -1) @ (2 ** np.arange(POSITIONS * BITS)[::-1])
    observed = np.bincount(code, minlength=64)
    times = whole_chain(STEPS) if steps == 0 else [(6, 4), (4, 1), (1, 0)]

    right = joint(head, x_TD, null, times, guidance, temperature)
    assert chi_square(observed, right) > 1e-3
    swapped = right.reshape(8, 8).T.ravel()
    assert chi_square(observed, swapped) < 1e-6
    if guidance is not None:
        assert chi_square(observed, joint(head, x_TD, null, times, 1.0, temperature)) < 1e-6


@pytest.mark.parametrize("make", [diffusion, direct])
def test_guidance_of_one_is_no_guidance_and_is_traced(make):
    head, x_TD, key = shaken(make), features(), jax.random.key(4)

    @jax.jit
    def draw(guidance):
        return head.propose(x_TD, features(5), guidance, key, Drawing())

    plain = jax.jit(lambda: head.propose(x_TD, None, jnp.float32(3), key, Drawing()))()
    for got, expected in zip(draw(jnp.float32(1)), plain, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(draw(jnp.float32(4)).certainty_T - plain.certainty_T).max() > 1e-2
    assert draw._cache_size() == 1
    assert plain.tokens_TS.shape == (POSITIONS, BITS) and plain.tokens_TS.dtype == jnp.int32


@pytest.mark.parametrize("make", [diffusion, direct])
def test_gradients_reach_every_parameter(make):
    head, keys = shaken(make), jax.random.split(jax.random.key(1), 8)
    x_BTD = jax.random.normal(jax.random.key(2), (8, POSITIONS, WIDTH))
    tokens = jax.random.bernoulli(jax.random.key(3), 0.5, (8, POSITIONS, BITS)).astype(jnp.int32)
    grads = jax.jit(jax.grad(lambda h, x: h.loss(x, tokens, keys).sum(), argnums=(0, 1)))(
        head, x_BTD
    )
    for leaf in jax.tree.leaves(grads):
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf) != 0)


def test_an_image_does_not_depend_on_its_batch():
    """All but one image changed, keys too: the losses of that one stay, all the others change."""
    head = shaken()
    x_2BTD = jax.random.normal(jax.random.key(2), (2, 5, POSITIONS, WIDTH))
    tokens_2BTK = jax.random.bernoulli(jax.random.key(3), 0.5, (2, 5, POSITIONS, BITS))
    keys_2B = jax.random.split(jax.random.key(1), (2, 5))
    kept = np.arange(5) == 3
    first, second = (
        np.asarray(losses(head, x_2BTD[i], tokens_2BTK[i].astype(jnp.int32), keys_2B[i]))
        for i in (0, 1)
    )
    mixed = losses(
        head,
        jnp.where(kept[:, None, None], x_2BTD[0], x_2BTD[1]),
        jnp.where(kept[:, None, None], tokens_2BTK[0], tokens_2BTK[1]).astype(jnp.int32),
        jnp.where(kept, keys_2B[0], keys_2B[1]),
    )
    expected = np.where(kept[None, :, None], first, second)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5)
    assert np.all(first != second)


def test_times_of_an_image_are_spread_and_each_is_uniform():
    head = shaken()
    keys = jax.random.split(jax.random.key(0), 6_000)
    spread = jax.jit(jax.vmap(head._spread_times, (0, None)), static_argnums=1)
    times = np.asarray(spread(keys, STEPS))
    np.testing.assert_array_equal(np.sort(times, axis=1), np.tile(np.arange(1, 7), (6_000, 1)))
    assert scipy.stats.chisquare(np.bincount(times[:, 0], minlength=7)[1:]).pvalue > 1e-3
    few = np.asarray(spread(keys, 4))
    assert scipy.stats.chisquare(np.bincount(few[:, 2], minlength=7)[1:]).pvalue > 1e-3
    assert np.all(np.diff(np.sort(few, axis=1), axis=1) >= 0)
    assert set(few.sum(axis=1)) <= set(range(11, 18))


def test_a_network_that_knows_nothing():
    """Zero logits: at most the uninformed loss; from coins every bit stays one, as sure as none."""
    head = fresh()
    mean, error = drawn_losses(head)[0]
    assert np.all(mean < head.objective.uninformed + 4 * error)
    assert head.objective.uninformed == pytest.approx(math.log(2) * (0.5 + 1 / BITS))
    draw = jax.jit(lambda k: head.propose(features(), None, jnp.float32(1), k, Drawing(steps=1)))
    tokens = draw(jax.random.key(0))
    np.testing.assert_allclose(tokens.confidence_T, 0, atol=1e-6)
    np.testing.assert_allclose(tokens.certainty_T, -math.log(2), rtol=1e-6)


def test_nats_are_precise_at_hundreds_of_steps():
    """In float32, times T, each term against float64 and Bayes' rule for x_{t-1}."""
    steps = 256
    t, logit, flipped = (
        v.ravel()
        for v in np.meshgrid(np.arange(1, steps + 1), np.linspace(-14, 14, 29), [0.0, 1.0])
    )
    early, one = (t - 1) / (2 * steps), 1 / (2 * (steps - t + 1))
    if_flipped, if_kept = (1 - early) * one / (t / 512), early * one / (1 - t / 512)
    q = np.where(flipped == 1, if_flipped, if_kept)
    p = if_flipped * scipy.special.expit(logit) + if_kept * scipy.special.expit(-logit)
    expected = scipy.special.rel_entr(q, p) + scipy.special.rel_entr(1 - q, 1 - p)
    terms = jax.jit(lambda *a: _step_nats(BernoulliProcess(steps), *a))
    got = terms(jnp.float32(logit), jnp.float32(flipped), t)
    np.testing.assert_allclose(steps * got, steps * expected, rtol=2e-5, atol=1e-7)


def test_a_later_position_alone_is_conditioned_as_among_all():
    head = shaken()
    x_BTD = features()[None]
    alone = jax.jit(lambda x, i: head.condition(x, i))(x_BTD[:, 1:], 1)
    np.testing.assert_allclose(alone, condition(head, x_BTD)[:, 1:], rtol=1e-6)


def test_flops_are_those_of_the_matrices():
    assert direct().forward_flops_per_position == 2 * WIDTH * BITS
    assert direct().objective.uninformed == pytest.approx(BITS * math.log(2))
    head = shaken()
    x_TD, key = features()[None], jax.random.split(jax.random.key(0), 1)
    tokens = jnp.zeros((1, POSITIONS, BITS), jnp.int32)
    cost = jax.jit(head.loss).lower(x_TD, tokens, key).compile().cost_analysis()["flops"]
    counted = POSITIONS * head.forward_flops_per_position
    assert 0.4 * cost < counted < cost
