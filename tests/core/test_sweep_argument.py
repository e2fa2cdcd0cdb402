"""The argument of an experiment's sweep: what is left out, and what is refused."""

import pytest

from lab.core.errors import LabError
from lab.core.sweep_argument import read_argument

PARTS = ["width", "depth"]
CHOICES = {"width": ["512", "64"], "depth": ["32"]}


@pytest.mark.parametrize(
    ("argument", "found", "suffix"),
    [
        ("width", ("width", 1.0, "512"), ""),
        ("depth,0.1", ("depth", 0.1, "32"), "_x0.1"),
        ("width,,64", ("width", 1.0, "64"), ""),
        ("width,2,64", ("width", 2.0, "64"), "_x2"),
    ],
)
def test_what_is_left_out_is_one_and_the_first_choice(argument, found, suffix):
    made = read_argument(argument, PARTS, CHOICES)
    assert (made.part, made.factor, made.choice) == found
    assert made.suffix == suffix


def test_without_choices_there_is_none():
    assert read_argument("width,1", PARTS).choice == ""


@pytest.mark.parametrize(
    "argument",
    ["", "length", "width,0", "width,-1", "width,101", "width,nan", "width,x", "depth,1,64"]
    + ["width,1,64,1"],
)
def test_what_is_not_allowed_is_one_line_that_says_what_is(argument):
    with pytest.raises(LabError) as caught:
        read_argument(argument, PARTS, CHOICES)
    assert str(caught.value) == (
        f"sweep.py:{argument}: allowed are width, depth, then a factor in (0, 100], then 512, 64 "
        "(of width) or 32 (of depth)"
    )


def test_a_third_part_is_refused_where_there_is_no_choice():
    with pytest.raises(LabError, match=r"allowed are width, depth, then a factor in \(0, 100\]$"):
        read_argument("width,1,64", PARTS)
