"""Worlds so small that every image can be listed, and tests of draws against their probabilities.

3 positions of 4 codes, 2 classes: 64 images.
"""

import functools

import jax
import numpy as np
from scipy import stats

from lab.models import families
from tests.models.worlds import config, every_image, stirred

POSITIONS, VOCABULARY, CLASSES = 3, 4, 2
CODES = families.Codes(vocabulary=VOCABULARY, grid=(1, POSITIONS, 1), classes=CLASSES)
IMAGES = every_image(positions=POSITIONS, subcodes=1, vocabulary=VOCABULARY)
NULL = CLASSES  # the label of the null class


@functools.cache
def world(family, size="s2"):
    """A model whose distribution is far from uniform."""
    return stirred(config(size, family), CODES, seed=1, noise=0.5)


def softmax(logits):
    """Along the last axis, in float64."""
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def logits_of(model, label, hidden=None):
    """Logits (64, T, V) of every image; of a masked model with these positions hidden."""
    label_E = np.full(len(IMAGES), label)
    masks = () if hidden is None else (np.tile(np.array(hidden), (len(IMAGES), 1)),)
    return np.asarray(_logits(model, masks, label_E), np.float64)


@jax.jit
def _logits(model, masks, label_E):
    x_ETD = model.order.features(model, IMAGES, *masks, label_E, None)
    return model.predictor.logits(x_ETD)[:, :, 0]


def chosen(probabilities_ETV):
    """The probability (64, T) of each image's own codes."""
    codes = np.asarray(IMAGES)
    return np.take_along_axis(probabilities_ETV, codes, axis=-1)[..., 0]


def p_value(tokens_BTS, probabilities):
    """Of Pearson's chi-square test that images are draws; 0 where one is impossible.

    Outcomes expected fewer than five times are put together.
    """
    powers = VOCABULARY ** np.arange(POSITIONS - 1, -1, -1)
    counts = np.bincount(np.asarray(tokens_BTS)[..., 0] @ powers, minlength=len(IMAGES))
    assert abs(probabilities.sum() - 1) < 1e-5
    if counts[probabilities < 1e-12].any():
        return 0.0
    expected = probabilities / probabilities.sum() * counts.sum()
    few = expected < 5
    seen = np.append(counts[~few], counts[few].sum())
    wanted = np.append(expected[~few], expected[few].sum())
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    return stats.chisquare(seen, wanted).pvalue
