"""How much of the class can be read linearly from features: linear probes.

N training images, M test images, F features, K classes.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.errors import LabError
from lab.metrics.interval import Interval, wilson
from lab.metrics.lars import Recipe, fit
from lab.metrics.logistic import Logistic, LogisticProblem

# lambda from one that leaves little but the frequencies of classes to one that is hardly felt.
PENALTIES = tuple(10.0 ** (power / 2) for power in range(2, -15, -1))
PENALTY_RANGE = f"{PENALTIES[0]:g} to {PENALTIES[-1]:g}, 2 a decade"  # stands in a task's settings
TOLERANCE = 1e-6  # of the gradient's norm; at zero weights it is of order 0.1 to 1
ROUGH_TOLERANCE = 1e-4  # where penalties are compared
ROUGH_NATS = 1e-5  # above the least objective, where they are compared
PATIENCE = 3  # penalties in a row, each smaller, that did not improve
HELD_OUT = 5  # one image of so many chooses the penalty
LEAST_STD = 1e-6  # of the largest: a feature with less is constant


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """Top-1 accuracy of a linear classifier on test images, and how it was found."""

    method: str  # "ridge" or "sgd"
    top1: Interval
    correct_M: np.ndarray  # bool, in the order of the test images: to compare probes in pairs
    iterations: int
    penalty: float | None = None  # lambda; None of "sgd", which has none
    penalty_at_edge: bool = False  # the largest or smallest that was tried was best
    gradient_norm: float | None = None  # of the objective at the end; None of "sgd"


def ridge_probe(
    train_NF: np.ndarray,
    label_N: np.ndarray,
    test_MF: np.ndarray,
    label_M: np.ndarray,
    *,
    classes: int,
    level: float,
    seed: int,
) -> Probe:
    """Multinomial logistic regression with an L2 penalty, to a gradient norm of 1e-6, in float64.

    Minimises mean cross-entropy + lambda / 2 |W|^2 over weights W (F, K) and free offsets, on
    features standardised by the training images. lambda is that of `PENALTIES` with the least
    cross-entropy on a fifth of each class's training images, which the rest is fitted without; then
    all are fitted. A class without training images is never predicted. The seed draws the fifth.
    Raises LabError for arrays that do not fit each other, numbers that are not finite, labels
    outside 0 to K - 1, fewer than two classes, classes of fewer than five images each, or a
    gradient that stays above 1e-6.
    """
    data = _Data(train_NF, label_N, test_MF, label_M, classes)
    held_N = _held_out(data.label_N, seed)
    penalty = _best_penalty(data, held_N)
    scaling = _Scaling(data.train_NF)
    problem = LogisticProblem(scaling(data.train_NF), data.label_N)
    solved = problem.solve(penalty, tolerance=TOLERANCE)
    return _probe(
        data,
        solved.predicted(scaling(data.test_MF)),
        level,
        method="ridge",
        iterations=solved.iterations,
        penalty=penalty,
        penalty_at_edge=penalty in (PENALTIES[0], PENALTIES[-1]),
        gradient_norm=solved.gradient_norm,
    )


def sgd_probe(
    train_NF: np.ndarray,
    label_N: np.ndarray,
    test_MF: np.ndarray,
    label_M: np.ndarray,
    *,
    classes: int,
    level: float,
    seed: int,
) -> Probe:
    """The recipe of MAE's linear probe (He et al. 2022, appendix A.1) on features, in float32.

    BatchNorm without affine, a linear layer, LARS without weight decay, 90 epochs, 10 of them of
    warm-up, then a cosine. The batch is the published share of the training images (1.3 %) at the
    published rate. Features are given: nothing is cropped or flipped. The seed draws the start and
    the order; another one gives another accuracy. LabError as `ridge_probe`, gradients and small
    classes apart, and for fewer than 2 training images.
    """
    data = _Data(train_NF, label_N, test_MF, label_M, classes)
    recipe = Recipe.of(len(data.train_NF))
    # Large means would cost float32 its digits: they are taken out before, which the norm undoes.
    centre_F = data.train_NF.mean(axis=0)
    train, test = (jnp.asarray(x - centre_F, jnp.float32) for x in (data.train_NF, data.test_MF))
    label = jnp.asarray(data.label_N, jnp.int32)
    state = fit(train, label, jax.random.key(seed), classes=classes, recipe=recipe)
    predicted_M = np.asarray(jnp.argmax(state.scores(test), axis=1))
    return _probe(data, predicted_M, level, method="sgd", iterations=recipe.steps)


def paired_difference(first: Probe, second: Probe, *, level: float) -> Interval:
    """Top-1 of the first probe less that of the second, on the same test images.

    From the images that one alone has right: what both have right or wrong adds no variance. Wald's
    interval with half an image added to each of the four cells (Agresti & Min 2005). Raises
    LabError for different numbers of images.
    """
    count = len(first.correct_M)
    if len(second.correct_M) != count:
        raise LabError(f"probes of {count} and {len(second.correct_M)} test images: not the same")
    won = int(np.sum(first.correct_M & ~second.correct_M))
    lost = int(np.sum(second.correct_M & ~first.correct_M))
    middle = (won - lost) / (count + 2)
    variance = ((won + lost + 1) / (count + 2) - middle**2) / (count + 2)
    half = _normal_quantile(level) * math.sqrt(variance)
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return Interval((won - lost) / count, low, high, level, "paired Wald with 2 images added")


class _Data:
    """Features in float64 and labels, checked."""

    def __init__(self, train_NF, label_N, test_MF, label_M, classes: int):
        self.train_NF, self.test_MF = (np.asarray(x, np.float64) for x in (train_NF, test_MF))
        self.label_N, self.label_M = np.asarray(label_N), np.asarray(label_M)
        shapes = [x.shape for x in (self.train_NF, self.label_N, self.test_MF, self.label_M)]
        if (
            [len(shape) for shape in shapes] != [2, 1, 2, 1]
            or shapes[0][0] != shapes[1][0]
            or shapes[2][0] != shapes[3][0]
            or shapes[0][1] != shapes[2][1]
            or min(shapes[0][0], shapes[2][0] + 1) < 2
        ):
            raise LabError(
                "probe: shapes "
                + ", ".join(map(str, shapes))
                + ": allowed are (N, F), (N,), (M, F), (M,) with N of at least 2 and M of 1"
            )
        for name, x in (("training", self.train_NF), ("test", self.test_MF)):
            if not np.all(np.isfinite(x)):
                raise LabError(f"probe: {name} features: {np.sum(~np.isfinite(x))} are not finite")
        for name, label in (("training", self.label_N), ("test", self.label_M)):
            if label.min() < 0 or label.max() >= classes:
                raise LabError(
                    f"probe: {name} labels {label.min()} to {label.max()}: allowed are 0 to "
                    f"{classes - 1}"
                )
        if len(np.unique(self.label_N)) < 2:
            raise LabError("probe: training images of one class only: at least 2 are needed")


class _Scaling:
    """Means and standard deviations of training features; constant features become 0."""

    def __init__(self, train_NF: np.ndarray):
        self.mean_F, std_F = train_NF.mean(axis=0), train_NF.std(axis=0)
        varies_F = std_F > LEAST_STD * std_F.max()
        self.inverse_F = np.where(varies_F, 1 / np.where(varies_F, std_F, 1.0), 0.0)

    def __call__(self, x_NF: np.ndarray) -> np.ndarray:
        return (x_NF - self.mean_F) * self.inverse_F


def _held_out(label_N: np.ndarray, seed: int) -> np.ndarray:
    """A random fifth of every class, rounded down, as (N,) bool."""
    rng = np.random.default_rng(seed)
    held_N = np.zeros(len(label_N), bool)
    for number in np.unique(label_N):
        places = rng.permutation(np.flatnonzero(label_N == number))
        held_N[places[: len(places) // HELD_OUT]] = True
    if not held_N.any():
        raise LabError(
            f"probe: {len(label_N)} training images, fewer than {HELD_OUT} of every class: a fifth "
            "of a class chooses the penalty"
        )
    return held_N


def _best_penalty(data: _Data, held_N: np.ndarray) -> float:
    """From the largest on, until some in a row have not improved."""
    scaling = _Scaling(data.train_NF[~held_N])
    problem = LogisticProblem(scaling(data.train_NF[~held_N]), data.label_N[~held_N])
    held_HF, label_H = scaling(data.train_NF[held_N]), data.label_N[held_N]
    solved: Logistic | None = None
    best, least, waited = PENALTIES[0], math.inf, 0
    for penalty in PENALTIES:
        solved = problem.solve(penalty, tolerance=rough_tolerance(penalty), start=solved)
        nats = solved.nats(held_HF, label_H)
        best, least, waited = (penalty, nats, 0) if nats < least else (best, least, waited + 1)
        if waited == PATIENCE:
            break
    return best


def rough_tolerance(penalty: float) -> float:
    """Of the gradient's norm, where penalties are compared.

    An objective that curves by lambda lies at most |gradient|^2 / (2 lambda) above its least: with
    one tolerance for all that bound would be 0.05 nats at the smallest penalty.
    """
    return min(ROUGH_TOLERANCE, math.sqrt(2 * penalty * ROUGH_NATS))


def _probe(data: _Data, predicted_M: np.ndarray, level: float, **how) -> Probe:
    correct_M = predicted_M == data.label_M
    top1 = wilson(int(correct_M.sum()), len(correct_M), level)
    return Probe(top1=top1, correct_M=correct_M, **how)


def _normal_quantile(level: float) -> float:
    from scipy.stats import norm

    if not 0 < level < 1:
        raise LabError(f"level {level}: allowed is between 0 and 1")
    return float(norm.ppf(0.5 + level / 2))
