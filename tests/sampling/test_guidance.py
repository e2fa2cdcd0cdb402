"""Schedules of guidance against their closed forms; logits made smaller choices against NumPy."""

import math

import jax
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.models.drawing import Drawing
from lab.models.logits import guided, restricted
from lab.sampling.guidance import Guidance, Schedule
from lab.sampling.settings import Settings, Unmasking

STEPS, SCALE = 7, 3.5


def closed_form(name, step, steps, s):
    """ELM's six, systems.md 1.5."""
    r = (step + 1) / steps
    return {
        "constant": s,
        "linear": 1 + (s - 1) * r,
        "cos": 1 + (s - 1) * math.cos(-math.pi / 2 + r * math.pi / 2),
        "log": 1 + (s - 1) * math.log1p(r * (math.e - 1)) / math.log1p(math.e - 1),
        "square": 1 + (s - 1) * r**2,
        "square_root": 1 + (s - 1) * math.sqrt(step / steps),
    }[name]


@pytest.mark.parametrize("name", list(Schedule))
def test_schedules_are_their_closed_forms(name):
    found = [float(Guidance(SCALE, name).at(step, STEPS)) for step in range(STEPS)]
    expected = [closed_form(name, step, STEPS, SCALE) for step in range(STEPS)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len({round(x, 4) for x in found}) == (1 if name == "constant" else STEPS)
    if name != "square_root":
        assert found[-1] == pytest.approx(SCALE)


def test_steps_may_be_traced_and_scale_one_is_one_at_every_step():
    traced = jax.jit(lambda step: Guidance(SCALE, Schedule.LINEAR).at(step, STEPS))
    assert float(traced(3)) == pytest.approx(closed_form("linear", 3, STEPS, SCALE))
    for name in Schedule:
        assert not Guidance(1.0, name).needed
        assert float(Guidance(1.0, name).at(2, STEPS)) == 1.0


def test_guided_is_the_class_at_one_and_the_null_class_at_zero():
    with_class, null = np.array([1.0, -2.0, 0.5]), np.array([0.25, 4.0, -1.0])
    np.testing.assert_allclose(guided(with_class, null, 1.0), with_class)
    np.testing.assert_allclose(guided(with_class, null, 0.0), null)
    np.testing.assert_allclose(guided(with_class, null, 3.0), null + 3 * (with_class - null))
    assert guided(with_class, None, 3.0) is with_class


def numpy_choice(logits, *, temperature, top_k, top_p):
    """Probabilities after temperature, the k likeliest, then the fewest that reach p."""
    p = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-p, kind="stable")
    kept = order[:top_k] if top_k else order
    p = np.where(np.isin(np.arange(len(p)), kept), p, 0.0)
    p /= p.sum()
    total, nucleus = 0.0, []
    for code in np.argsort(-p, kind="stable"):
        if total < top_p:
            nucleus.append(code)
            total += p[code]
    p = np.where(np.isin(np.arange(len(p)), nucleus), p, 0.0)
    return p / p.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 3, 1.0), (2.0, 0, 0.6), (1.3, 5, 0.8), (1.0, 1, 1.0), (1.0, 0, 1e-6)],
)
def test_temperature_top_k_and_top_p_agree_with_numpy(temperature, top_k, top_p):
    logits = np.random.default_rng(0).normal(scale=2.0, size=(5, 9))
    drawing = Drawing(temperature=temperature, top_k=top_k, top_p=top_p)
    found = np.asarray(jax.nn.softmax(restricted(logits.astype(np.float32), drawing), axis=-1))
    for row, p in zip(logits, found, strict=True):
        wanted = numpy_choice(row, temperature=temperature, top_k=top_k, top_p=top_p)
        np.testing.assert_allclose(p, wanted, atol=2e-6)
        assert ((p > 0) == (wanted > 0)).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Guidance(-0.5), "guidance -0.5"),
        (lambda: Guidance(math.inf), "guidance inf"),
        (lambda: Settings(drawing=Drawing(temperature=0.0)), "temperature 0.0"),
        (lambda: Settings(drawing=Drawing(top_k=-1)), "top-k -1"),
        (lambda: Settings(drawing=Drawing(top_p=0.0)), "top-p 0.0"),
        (lambda: Settings(drawing=Drawing(steps=-1)), "steps -1"),
        (lambda: Unmasking(rounds=-1), "rounds -1"),
        (lambda: Unmasking(gumbel=math.nan), "gumbel nan"),
        (lambda: Unmasking(ranking="random", remask=True), "remask"),
        (lambda: Unmasking(ranking="raster", gumbel=1.0), "gumbel"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, words):
    with pytest.raises(LabError, match=words):
        make()
