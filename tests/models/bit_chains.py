"""Chains of bit strings by enumeration in float64: what a Bernoulli diffusion head should be.

Strings of K bits are rows of `strings(K)`; a matrix over strings has x_t in rows.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats
from flax import nnx

from lab.models.bernoulli import balance_odds


def strings(bits):
    """All strings (2^K, K) of bits."""
    return np.array(list(itertools.product((0, 1), repeat=bits)))


def strings_given(probability_NK):
    """P (N, 2^K) of strings whose bits are independent ones with the given chances."""
    x = strings(probability_NK.shape[-1])
    return np.prod(np.where(x, probability_NK[:, None], 1 - probability_NK[:, None]), axis=-1)


def noising(s, t, steps):
    """P(x_t | x_s) of a bit, a product of one-step matrices."""
    product = np.eye(2)
    for time in range(s + 1, t + 1):
        beta = 1 - 1 / (steps - time + 1)
        product = product @ (beta * np.eye(2) + (1 - beta) / 2)
    return product


def noised_strings(t, steps, bits):
    """q(x_t | x_0) as a matrix (x_0, x_t) over strings."""
    return strings_given(noising(0, t, steps)[strings(bits), 1])


def true_back(s, t, steps):
    """q(x_s = 1 | x_t, x_0) of a bit, (x_t, x_0)."""
    early, late = noising(0, s, steps), noising(s, t, steps)
    joint = early[:, :, None] * late[None]  # x_0, x_s, x_t
    return (joint[:, 1] / joint.sum(axis=1)).T


def kernel(p_NK, s, t, steps):
    """P(x_s | x_t) as a matrix from P(x_0 = 1 | x_t): sum over x_0, then multiply bits."""
    x_NK = strings(p_NK.shape[1])
    back = true_back(s, t, steps) if s else np.array([[0.0, 1.0], [0.0, 1.0]])
    one_NK = p_NK * back[x_NK, 1] + (1 - p_NK) * back[x_NK, 0]
    return np.prod(np.where(x_NK[None], one_NK[:, None], 1 - one_NK[:, None]), axis=-1)


def whole_chain(steps):
    return [(t, t - 1) for t in range(steps, 0, -1)]


def final(matrices):
    """The model's distribution (2^K,) of x_0."""
    p = np.full(len(matrices[0]), 1 / len(matrices[0]))
    for matrix in matrices:
        p = p @ matrix
    return p


def exact_bound(matrices, steps, bits):
    """The variational bound (2^K,) of each x_0 in nats, by enumerating x_t; kernels T to 1."""
    x, bound = strings(bits), np.zeros(2**bits)
    for t, matrix in zip(range(steps, 0, -1), matrices, strict=True):
        for index, x0 in enumerate(x):
            if t == 1:
                back = np.eye(2**bits)[[index] * 2**bits]
            else:
                back = strings_given(true_back(t - 1, t, steps)[x, x0])
            parts = scipy.special.xlogy(back, back) - scipy.special.xlogy(back, matrix)
            bound[index] += noised_strings(t, steps, bits)[index] @ parts.sum(axis=1)
    return bound


def balanced_nats(logit_NK, x0, target):
    """BiGR's training loss (2^K,) at every x_t: logits of x_0, the mean over bits."""
    x_NK = strings(len(x0))
    y_NK = x_NK != x0 if target == "xor" else np.broadcast_to(x0 == 1, x_NK.shape)
    score_NK = np.where(x_NK == 1, -logit_NK, logit_NK) if target == "xor" else logit_NK
    m_N1 = y_NK.mean(axis=1, keepdims=True)
    weight_NK = np.where(y_NK, 1 - m_N1, m_N1) + 1 / len(x0)
    nats_NK = -scipy.special.log_expit(np.where(y_NK, score_NK, -score_NK))
    return (weight_NK * nats_NK).mean(axis=1)


class Oracle(nnx.Module):
    """A denoiser that knows the distribution of x_0: exact P(x_0 = 1 | x_t) of each bit.

    Trained to the optimum by balanced flips it would give the odds of a flip times the balance's.
    """

    def __init__(self, data, bits, steps, target):
        self.data, self.bits, self.steps, self.target = tuple(data), bits, steps, target

    def __call__(self, signs_NK, time_N, z_ND, placed=None):
        x0, noisy_NK = jnp.float32(strings(self.bits)), (signs_NK + 1) / 2
        flip_N11 = ((time_N + 1) / (2 * self.steps))[:, None, None]
        differs = jnp.abs(noisy_NK[:, None] - x0[None])
        likelihood = jnp.where(differs == 1, flip_N11, 1 - flip_N11).prod(axis=-1)
        posterior_NX = likelihood * jnp.array(self.data)[None]
        one_NK = posterior_NX @ x0
        logit_NK = jnp.log(one_NK) - jnp.log(posterior_NX @ (1 - x0))
        if self.target == "x0":
            return logit_NK
        return -signs_NK * logit_NK + jnp.log(balance_odds(flip_N11[..., 0], self.bits))


def chi_square(observed, p):
    """The p-value of counts; outcomes with fewer than 5 expected are counted as one."""
    expected = p / p.sum() * observed.sum()
    rare = expected < 5
    counts, means = (np.append(v[~rare], v[rare].sum()) for v in (observed, expected))
    if not rare.any():
        counts, means = observed, expected
    return scipy.stats.chisquare(counts, means).pvalue
