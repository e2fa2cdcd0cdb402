"""Diffusion of numbers towards Gaussian noise (Ho et al. 2020; Nichol & Dhariwal 2021).

T steps; x_0 are the data, x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e with e ~ N(0, 1), and x_T is
nearly noise alone. The angle of a time has cosine sqrt(abar_t) and sine sqrt(1 - abar_t).

A network gives an estimate of e, and v, which places the variance of a step back between its two
limits (`Predicted`). Arrays of any shape; times are int32 of its leading axes, or a scalar.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.errors import LabError
from lab.core.scopes import LOSS

LARGEST_BETA = 0.999
NOTHING_LEFT = 0.01  # of abar: taking x_t for noise then costs half of it times x_0^2, in nats
COSINE_OFFSET = 0.008
LEAST_ERROR = 0.001  # mean square of the noise that is thought to be missed when times are drawn
HYBRID = 0.001  # weight of the bound in the training loss (Nichol & Dhariwal 2021, equation 16)
LOSS_UNIT = "noise MSE + 0.001 bound (bits/number)"
F32 = jnp.float32


class Predicted(NamedTuple):
    """What a network makes of x_t."""

    noise: jax.Array  # e
    blend: jax.Array  # v: 0 for the least variance of a step back and 1 for the largest


class Gaussian(NamedTuple):
    """A normal distribution of each number."""

    mean: jax.Array
    log_variance: jax.Array


class Timed(NamedTuple):
    """Times drawn for an estimate of a sum over all times."""

    t: jax.Array
    weight: jax.Array  # 1 / probability: the mean of weight times term is the sum


class Tables(NamedTuple):
    """Constants (T + 1,) of every time in float64; those of a step back are zero at time 0."""

    signal: np.ndarray  # sqrt(abar_t)
    noise: np.ndarray  # sqrt(1 - abar_t)
    growth: np.ndarray  # 1 / sqrt(alpha_t): a step's mean is growth x_t - shift e
    shift: np.ndarray
    least: np.ndarray  # log of the posterior's variance
    range: np.ndarray  # log beta_t minus it
    turn: np.ndarray  # a step without randomness is growth x_t - turn e
    half: np.ndarray  # tan of half the angle between t - 1 and t
    chance: np.ndarray  # of a time where one stands for all in the bound


def split(out: jax.Array) -> Predicted:
    """A network's output (..., 2 C) as noise and v = (out + 1) / 2."""
    noise, blend = jnp.split(out.astype(F32), 2, axis=-1)
    return Predicted(noise, (blend + 1) / 2)


@dataclasses.dataclass(frozen=True)
class GaussianProcess:
    """T steps of noise, by a linear (Ho et al.) or cosine (Nichol & Dhariwal, eq. 17) schedule.

    `kept` are the steps that remain of a respaced process, None for all of them: a process of its
    own, with times 1 to `length`, whose noise at those times is that of the kept ones.
    """

    steps: int
    schedule: str
    kept: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.steps < 2:
            raise LabError(f"model.diffusion_steps: {self.steps} (allowed: >= 2)")
        if self.schedule not in BETAS:
            allowed = ", ".join(BETAS)
            raise LabError(f"model.diffusion_schedule: {self.schedule} (allowed: {allowed})")

    @property
    def length(self) -> int:
        """Steps of this process, respaced or not."""
        return self.steps if self.kept is None else len(self.kept)

    @property
    def tables(self) -> Tables:
        """The constants of every time."""
        return _tables(self)

    @property
    def last(self) -> int:
        """The step from which a chain starts: T, or that before the betas that were capped.

        A step back by a capped beta magnifies what a network misses of x_T 31 times (500 nats a
        number in the bound for its mean square), and x_T has no more than noise already before it.
        """
        full = _tables(GaussianProcess(self.steps, self.schedule))
        free = int(np.sum(BETAS[self.schedule](self.steps) < LARGEST_BETA))
        return free if free and full.signal[free] ** 2 < NOTHING_LEFT else self.steps

    def respaced(self, count: int) -> "GaussianProcess":
        """The chain that generates: `count` evenly spaced steps from 1 to `last`; 0: all of these.

        Variances are those of the longer steps (Nichol & Dhariwal 2021, section 4). One step alone
        is the last. Raises LabError unless 0 <= count <= T.
        """
        if not 0 <= count <= self.steps:
            raise LabError(f"sample.steps: {count} (allowed: 0 to {self.steps}, 0 being all)")
        last = self.last
        count = min(count, last) or last
        if count == self.steps:
            return GaussianProcess(self.steps, self.schedule)
        if count == 1:
            return GaussianProcess(self.steps, self.schedule, (last,))
        kept = np.rint(1 + np.arange(count) * (last - 1) / (count - 1)).astype(int)
        return GaussianProcess(self.steps, self.schedule, tuple(kept.tolist()))

    def network_time(self, t: jax.Array) -> jax.Array:
        """What a network is told at time t: 0 to T - 1 of the process that it was trained with."""
        if self.kept is None:
            return t - 1
        return jnp.asarray(self.kept, jnp.int32)[t - 1] - 1

    def noised(self, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
        """x_t from x_0 and e ~ N(0, 1)."""
        return self._at("signal", t, x0) * x0 + self._at("noise", t, x0) * noise

    def posterior(self, x_t: jax.Array, noise: jax.Array, t: jax.Array) -> Gaussian:
        """q(x_{t-1} | x_t, x_0) where x_0 is what x_t has beside this noise.

        Ho et al., equations 7 and 11. At t = 1, where it is a point, the variance is that of t = 2.
        """
        mean = self._at("growth", t, x_t) * x_t - self._at("shift", t, x_t) * noise
        return Gaussian(mean, self._at("least", t, x_t))

    def back(self, x_t: jax.Array, predicted: Predicted, t: jax.Array) -> Gaussian:
        """The model's p(x_{t-1} | x_t); Nichol & Dhariwal, equation 15, for the variance."""
        mean, least = self.posterior(x_t, predicted.noise, t)
        return Gaussian(mean, least + predicted.blend * self._at("range", t, x_t))

    def drawn_times(self, share: jax.Array) -> Timed:
        """Times by importance (`_chance`) from uniform numbers in [0, 1), in their order."""
        chance = self.tables.chance[1:]
        below = jnp.asarray(np.cumsum(chance), F32)
        # The last sum can round to less than one, and a share up to one.
        index = jnp.minimum(jnp.searchsorted(below, share, side="right"), self.length - 1)
        return Timed(index.astype(jnp.int32) + 1, jnp.asarray(1 / chance, F32)[index])

    def prior_nats(self, x0: jax.Array) -> jax.Array:
        """KL(q(x_T | x_0) || N(0, 1)) of each number."""
        kept = float(self.tables.signal[-1] ** 2)
        return (kept * x0 * x0 - kept - math.log1p(-kept)) / 2

    def step_nats(
        self,
        predicted: Predicted,
        noise: jax.Array,
        x0: jax.Array,
        t: jax.Array,
        *,
        levels: int,
    ) -> jax.Array:
        """The term of step t of the variational bound (Ho et al., equation 5), of each number.

        KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), at t = 1 minus log p(x_0 | x_1): a density
        where `levels` is 0, else the probability of the level of x_0 (`level_nats`). Only the
        difference of the noises counts, which keeps the digits that the means would lose.
        """
        gap = predicted.blend * self._at("range", t, x0)
        off = self._at("shift", t, x0) * (predicted.noise - noise)
        log_variance = self._at("least", t, x0) + gap
        square = off * off * jnp.exp(-log_variance)
        if levels:
            last = level_nats(off, log_variance, x0, levels=levels)
        else:
            last = (math.log(2 * math.pi) + log_variance + square) / 2
        return jnp.where(_beside(t, x0) == 1, last, (gap + jnp.expm1(-gap) + square) / 2)

    @jax.named_scope(LOSS)
    def training_loss(
        self,
        predicted: Predicted,
        noise: jax.Array,
        x0: jax.Array,
        t: jax.Array,
        *,
        levels: int,
    ) -> jax.Array:
        """L_simple + 0.001 L_vlb of each number (Nichol & Dhariwal 2021, equation 16).

        L_vlb is estimated as T times the term of t, in bits, and trains v alone. With T = 1000 that
        is the loss of the public code of DiT and MAR, squared error plus the term in bits.
        """
        fixed = Predicted(jax.lax.stop_gradient(predicted.noise), predicted.blend)
        term = self.step_nats(fixed, noise, x0, t, levels=levels)
        weight = HYBRID * self.length / math.log(2)
        return jnp.square(noise - predicted.noise) + weight * term

    @property
    def uninformed(self) -> float:
        """The mean training loss of a network of zeros, with a density at t = 1.

        1 for the noise; the bound adds 0.01, and 0.7 where the last beta is capped at 0.999.
        """
        tables = self.tables
        gap = tables.range[1:] / 2
        log_variance = tables.least[1:] + gap
        square = tables.shift[1:] ** 2 * np.exp(-log_variance)
        terms = (gap + np.expm1(-gap) + square) / 2
        terms[0] = (math.log(2 * math.pi) + log_variance[0] + square[0]) / 2
        return 1 + HYBRID * float(terms.sum()) / math.log(2)

    def ancestral(
        self, x_t: jax.Array, predicted: Predicted, t: jax.Array, noise: jax.Array
    ) -> jax.Array:
        """x_{t-1} drawn from `back` with this noise, its mean at t = 1 (Ho et al., algorithm 2)."""
        mean, log_variance = self.back(x_t, predicted, t)
        step = mean + jnp.exp(log_variance / 2) * noise
        return jnp.where(_beside(t, x_t) == 1, mean, step)

    def ddim(self, x_t: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
        """x_{t-1} without randomness (Song et al. 2021, equation 12, eta = 0): Euler's step."""
        return self._at("growth", t, x_t) * x_t - self._at("turn", t, x_t) * noise

    def heun(
        self,
        x_t: jax.Array,
        noise: jax.Array,
        ahead: jax.Array,
        ahead_noise: jax.Array,
        t: jax.Array,
    ) -> jax.Array:
        """x_{t-1} to second order, from x_t and from `ahead`, where `ddim` leads from it.

        The flow of probability is dx/dangle = (e - sin x) / cos; x + tan(half the turn) times the
        sum of both slopes is Heun's step with weights that are exact where x_0 and e are constant.
        In sigma = tan(angle), the variable of Karras et al. 2022, the first step of a cosine
        schedule is 10^4 wide and its correction worse than none. The step to time 0 is `ddim`'s.
        """
        early = jnp.maximum(t - 1, 1)  # there is no slope at time 0 that the network was taught
        slope = self._slope(x_t, noise, t) + self._slope(ahead, ahead_noise, early)
        corrected = x_t - self._at("half", t, x_t) * slope
        return jnp.where(_beside(t, x_t) == 1, ahead, corrected)

    def _slope(self, x_t: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
        return (noise - self._at("noise", t, x_t) * x_t) / self._at("signal", t, x_t)

    def _at(self, name: str, t: jax.Array, like: jax.Array) -> jax.Array:
        return _beside(jnp.asarray(getattr(self.tables, name), F32)[t], like)


def level_nats(off: jax.Array, log_variance: jax.Array, x0: jax.Array, *, levels: int) -> jax.Array:
    """Minus log of the probability of x_0's level under a Gaussian (Ho et al. 2020, equation 13).

    `off` is x_0 less the mean. The levels are evenly spaced in [-1, 1]; each has what is nearest to
    it, the two at the ends all beyond. The tail is taken in which both edges are small, so that
    float32 has its digits.
    """
    half, inverse = 1 / (levels - 1), jnp.exp(-log_variance / 2)
    low, high = (off - half) * inverse, (off + half) * inverse
    mirrored = off > 0
    near = jnp.where(mirrored, -low, high)
    far = jnp.where(mirrored, -high, low)
    log_near = jax.scipy.special.log_ndtr(near)
    between = log_near + jnp.log1p(-jnp.exp(jax.scipy.special.log_ndtr(far) - log_near))
    first, last = x0 < -1 + half, x0 > 1 - half
    open_end = jax.scipy.special.log_ndtr(jnp.where(first, high, -low))
    return -jnp.where(first | last, open_end, between)


def to_numbers(codes: jax.Array, *, levels: int) -> jax.Array:
    """Codes 0 to levels - 1 as numbers evenly spaced in [-1, 1]."""
    return codes.astype(F32) * (2 / (levels - 1)) - 1


def to_codes(x: jax.Array, *, levels: int) -> jax.Array:
    """The nearest codes."""
    return jnp.clip(jnp.rint((x + 1) * ((levels - 1) / 2)), 0, levels - 1).astype(jnp.int32)


def _beside(values: jax.Array, like: jax.Array) -> jax.Array:
    """With axes of size one behind, to broadcast against an array with the same leading axes."""
    values = jnp.asarray(values)
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def _linear(steps: int) -> np.ndarray:
    """Betas from 0.0001 to 0.02 at 1,000 steps, larger where there are fewer (Ho et al. 2020)."""
    return np.linspace(1e-4, 0.02, steps) * (1000 / steps)


def _cosine(steps: int) -> np.ndarray:
    """Betas of abar_t = f(t) / f(0), f(t) = cos((t / T + s) / (1 + s) pi / 2)^2."""
    share = (np.arange(steps + 1) / steps + COSINE_OFFSET) / (1 + COSINE_OFFSET)
    level = np.cos(share * math.pi / 2) ** 2
    return 1 - level[1:] / level[:-1]


BETAS = {"linear": _linear, "cosine": _cosine}


@functools.lru_cache(maxsize=64)
def _tables(process: GaussianProcess) -> Tables:
    betas = np.minimum(BETAS[process.schedule](process.steps), LARGEST_BETA)
    log_kept = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])  # log abar_t
    if process.kept is not None:
        log_kept = log_kept[[0, *process.kept]]
    gone = -np.expm1(log_kept)  # 1 - abar_t
    step = np.diff(log_kept)  # log alpha_t
    beta = -np.expm1(step)
    signal, noise = np.exp(log_kept / 2), np.sqrt(gone)
    turned = np.diff(np.arctan2(noise, signal))
    shift = np.exp(-step / 2) * beta / noise[1:]
    variance = beta * gone[:-1] / gone[1:]
    variance[0] = variance[1] if process.length > 1 else beta[0]
    return Tables(
        signal=signal,
        noise=noise,
        growth=_from_one(np.exp(-step / 2)),
        shift=_from_one(shift),
        least=_from_one(np.log(variance)),
        range=_from_one(np.log(beta / variance)),
        turn=_from_one(np.sin(turned) / signal[1:]),
        half=_from_one(np.tan(turned / 2)),
        chance=_from_one(_chance(shift, np.log(beta * variance) / 2, signal[1:])),
    )


def _chance(shift: np.ndarray, log_variance: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Half uniform, half in proportion to the terms of white data of variance one.

    There the error of the best estimate of e is abar_t; no network is exact, hence the floor.
    Evenly drawn, the term of t = 1, a few nats of a number once in T, would drown the others: at
    T = 1000 the spread of an estimate from 32 times is 20 nats of a number.
    """
    size = np.maximum(signal**2, LEAST_ERROR) * shift**2 * np.exp(-log_variance) / 2
    size[0] = abs(math.log(2 * math.pi * math.e) + log_variance[0]) / 2
    return (1 / len(size) + size / size.sum()) / 2


def _from_one(values: np.ndarray) -> np.ndarray:
    """With a place for time 0."""
    return np.concatenate([[0.0], values])
