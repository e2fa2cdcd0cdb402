"""Durations and bits against hand arithmetic."""

import math

import pytest

from lab.core.errors import LabError
from lab.core.units import StepSize, bits_per_dim, parse_duration, to_steps

STEP = StepSize(
    batch_examples=32,
    epoch_examples=320,
    tokens_per_example=192,
    flops_per_token=1e6,
    parameters=3072,
)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("7 steps", 7),
        ("320 examples", 10),
        ("1 epochs", 10),
        ("2.5 epochs", 25),
        ("61440 tokens", 10),
        ("6.144e10 flops", 10),
        ("1 examples", 1),
        ("20 tokens_per_parameter", 10),
        ("0 steps", 0),
    ],
)
def test_to_steps(text, steps):
    assert to_steps(parse_duration(text, path="config.x"), STEP) == steps


@pytest.mark.parametrize(
    "text", ["", "3", "steps", "3 step", "inf steps", "-1 steps", "nan epochs"]
)
def test_bad_durations_name_the_field(text):
    with pytest.raises(LabError, match=r"config\.x"):
        parse_duration(text, path="config.x")


def test_bits_per_dim_of_a_uniform_image():
    assert bits_per_dim(192 * math.log(32), dims_per_image=192) == pytest.approx(5.0)
