"""Slices that there are, and the line about those that there are not."""

import pytest

from lab.core.chips import CHIPS, parse_slices
from lab.core.errors import LabError


@pytest.mark.parametrize(
    ("text", "chips", "devices"),
    [("v5e:16x16", 256, 256), ("v5p:4x4x8", 128, 128), ("v4:2x2x1", 4, 4), ("tpu7x:2x2x2", 8, 16)],
)
def test_slices(text, chips, devices):
    found = parse_slices(text)
    assert (found.name, found.chips, found.devices) == (text, chips, devices)
    assert parse_slices(text, count=2).chips == 2 * chips


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("v9:2x2", "v4, v5e, v5p, v6e, tpu7x"),
        ("v5e:3x5", "16x16"),
        ("v5p-128", "v4, v5e, v5p"),
        ("v5e:", "8x16"),
        ("v5p:16x16", "multiples of 4"),
        ("v5p:8x4x4", "do not fall"),
        ("v5p:64x64x64", "6144 chips"),
    ],
)
def test_unknown_slices_name_what_is_allowed(text, allowed):
    with pytest.raises(LabError, match=allowed) as error:
        parse_slices(text)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_flat_and_cubic():
    assert {name for name, chip in CHIPS.items() if chip.flat} == {"v5e", "v6e"}
