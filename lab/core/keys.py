"""Every random number of a run comes from `key(seed, stream, step)`."""

import enum

import jax


class Stream(enum.IntEnum):
    """What a random number is for; the values are part of a run's meaning, never reuse one."""

    INIT = 0
    TRAIN = 1
    EVALUATE = 2
    CODES = 3
    BOUND = 4
    SAMPLE = 5


def key(seed: int, stream: Stream, step: int | jax.Array) -> jax.Array:
    """The key of one stream at one step, a pure function of its arguments."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)
