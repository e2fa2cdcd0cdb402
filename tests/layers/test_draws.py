"""Draws of a part of a batch against jax's draw of the whole, and indices against integers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.layers.draws import WHOLE, Part, _indices, in_parts
from lab.layers.dropout import dropout


@functools.partial(jax.jit, static_argnums=(1, 3))
def drawn(number, parts, key, shape):
    """Draws of a part."""
    return Part(number, parts).bernoulli(key, 0.7, shape)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("parts", [2, 3])
def test_a_part_is_given_what_the_whole_batch_is(parts, impl):
    key = jax.random.key(4, impl=impl)
    whole = jax.jit(jax.random.bernoulli, static_argnums=2)(key, 0.7, (12, 5, 7))
    for number in range(parts):
        part = Part(jnp.int32(number), parts)
        here = drawn(part.number, parts, key, (12 // parts, 5, 7))
        np.testing.assert_array_equal(here, whole[number::parts])
        np.testing.assert_array_equal(part.of(whole), whole[number::parts])
        np.testing.assert_array_equal(part.rows(12 // parts), np.arange(12)[number::parts])
        np.testing.assert_array_equal(in_parts(whole, parts)[number], whole[number::parts])


def test_the_chance_is_compared_as_jax_does():
    """A chance that float32 rounds: of a million draws none may differ."""
    key, shape = jax.random.key(1), (1000, 1000)
    whole = jax.jit(lambda: jax.random.bernoulli(key, 1 - 0.1, shape))()
    of_part = jax.jit(lambda number: Part(number, 2).bernoulli(key, 1 - 0.1, (500, 1000)))
    halves = [of_part(number) for number in range(2)]
    np.testing.assert_array_equal(np.stack(halves, axis=1).reshape(shape), whole)


def test_indices_beyond_32_bits():
    """Against Python's integers: a pod's batch of wide features has more than 2^32 elements."""
    rows, rest = np.array([0, 1, 65_535, 65_537, 2**22 - 1, 2**31 + 5]), (3, 70_001)
    high, low = _indices(jnp.asarray(rows, jnp.uint32), rest)
    size, at = 3 * 70_001, (2, 69_999)
    inside = at[0] * rest[1] + at[1]
    for place, row in enumerate(rows):
        index = int(row) * size + inside
        assert int(high[place][at]) == index >> 32
        assert int(low[place][at]) == index % 2**32


def test_dropout_of_parts_is_dropout_of_the_whole():
    x, key = jax.random.normal(jax.random.key(0), (8, 3, 4)), jax.random.key(9)
    whole = jax.jit(lambda x: dropout(x, key, rate=0.3))(x)
    of_part = jax.jit(lambda x, n: dropout(x, key, rate=0.3, part=Part(n, 2)))
    halves = [of_part(x[n::2], n) for n in range(2)]
    np.testing.assert_array_equal(np.stack(halves, axis=1).reshape(x.shape), whole)
    assert np.any(np.asarray(whole) == 0) and WHOLE.parts == 1
