"""The order of images against grain's own, against permutations, and against C++'s seed_seq."""

import grain
import numpy as np
import pytest

from lab.data import order
from lab.data.order import PART, WHOLE, images_at

SIZES = [1, 2, 3, 5, 64, 1000, WHOLE - 1, WHOLE, WHOLE + 1, WHOLE + 2, 131_072, 1_281_167]


def with_seeds():
    """Every size with a seed, and every seed with some sizes; the rest is slow."""
    for examples in SIZES:
        for seed in (0, 3, 2**31):
            slow = examples == 3 or (seed and examples not in (1000, WHOLE, WHOLE + 1))
            yield pytest.param(examples, seed, marks=[pytest.mark.slow] * bool(slow))


@pytest.mark.parametrize(("examples", "seed"), list(with_seeds()))
def test_the_order_is_that_of_grain(examples, seed):
    theirs = grain.MapDataset.range(examples).seed(seed).shuffle().repeat()
    rng = np.random.default_rng(seed)
    borders = np.arange(-40, 40) + np.array([[PART], [examples], [3 * examples]])
    places = np.concatenate([np.arange(50), np.maximum(borders, 0).ravel()])
    places = np.concatenate([places, rng.integers(0, 5 * examples, 50)])
    found = images_at(examples, seed, places)
    assert found.tolist() == [theirs[int(place)] for place in places]


@pytest.mark.parametrize("examples", [7, 3 * PART, 9 * PART + 5])
def test_an_epoch_has_every_image_once_and_epochs_differ(examples):
    places = np.arange(2 * examples)
    first, second = images_at(examples, 0, places).reshape(2, examples)
    for epoch in (first, second):
        assert np.array_equal(np.sort(epoch), np.arange(examples))
    assert not np.array_equal(first, second)


def test_places_in_any_order_and_twice():
    places = np.array([5, 3 * PART, 5, 0, 10 * PART + 2, 3 * PART])
    alone = [images_at(11 * PART, 1, np.array([place]))[0] for place in places]
    assert images_at(11 * PART, 1, places).tolist() == alone


def test_keys_are_those_of_the_seed_sequence_of_cpp():
    """`std::seed_seq s{457190280u}` of libstdc++ 12, four words."""
    assert order._keys(457190280) == (86168292, 3458390687, 2358666529, 1430619766)


def test_what_is_kept_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        order._part(10, 0, 0, 0)[0] = 1
