"""The order of training images: grain's shuffle, for many places at once.

A new permutation for each epoch, by a block cipher that walks until it is back among the images
(Black & Rogaway 2002, "Ciphers with arbitrary finite domains"): Simon (Beaulieu et al. 2013) with
four rounds, its keys from C++'s `std::seed_seq`. The numbers are those of
`grain.MapDataset.range(n).seed(s).shuffle().repeat()`, which takes 10 us and more for each: for a
small model on a fast device that is longer than the update. Held here they are also the same under
any version. As there, of 2^16 + 1 images (2^18 + 1, ...) one comes twice in an epoch, one never.
"""

from __future__ import annotations

import functools
import math

import numpy as np

ROUNDS = 4
LEAST_BITS = 16  # of the cipher's block, which has an even number
WHOLE = 2**LEAST_BITS  # up to so many images an epoch is ordered at once
PART = 2**13  # images of a larger set that are
_KEPT = 64  # parts
_WORD = 0xFFFFFFFF


def images_at(examples: int, seed: int, places: np.ndarray) -> np.ndarray:
    """Which images (P,) of so many stand at these places of the whole training, epoch by epoch."""
    epochs, within = np.divmod(places, examples)
    size = examples if examples <= WHOLE else PART
    parts = within // size
    found = np.empty(len(places), np.int64)
    left = np.ones(len(places), bool)
    while left.any():
        first = int(np.argmax(left))
        same = left & (epochs == epochs[first]) & (parts == parts[first])
        part = _part(examples, seed, int(epochs[first]), int(parts[first]))
        found[same] = part[within[same] - parts[first] * size]
        left &= ~same
    return found


@functools.lru_cache(maxsize=_KEPT)
def _part(examples: int, seed: int, epoch: int, part: int) -> np.ndarray:
    """A part of the permutation of an epoch, read-only."""
    keys = _keys((_shuffle_seed(seed) + epoch) % 2**32)
    if examples <= WHOLE:
        found = _walked_by_table(examples, keys)
    else:
        first = part * PART
        found = _walked(np.arange(first, min(first + PART, examples)), examples, keys)
    found.flags.writeable = False
    return found


def _walked(indices: np.ndarray, examples: int, keys: tuple[int, ...]) -> np.ndarray:
    """Where the cipher takes each index, again and again until it is one of the images."""
    bits = math.ceil(math.log2(examples - 1))
    bits += bits % 2
    found = _encrypted(indices, bits, keys)
    beyond = np.flatnonzero(found >= examples)
    while beyond.size:
        found[beyond] = _encrypted(found[beyond], bits, keys)
        beyond = beyond[found[beyond] >= examples]
    return found


def _walked_by_table(examples: int, keys: tuple[int, ...]) -> np.ndarray:
    """The same of all images of a small set: walks of double the length, until all are back."""
    step = _encrypted(np.arange(2**LEAST_BITS), LEAST_BITS, keys)
    found = step[:examples].copy()
    step[:examples] = np.arange(examples)  # a walk ends there
    while (found >= examples).any():
        found = step[found]
        step = step[step]
    return found


def _encrypted(values: np.ndarray, bits: int, keys: tuple[int, ...]) -> np.ndarray:
    """Simon on blocks of so many bits, two words each."""
    width = bits // 2
    mask = np.uint64(2**width - 1)
    left = (values.astype(np.uint64) >> np.uint64(width)) & mask
    right = values.astype(np.uint64) & mask

    def turned(x: np.ndarray, by: int) -> np.ndarray:
        return ((x << np.uint64(by)) | (x >> np.uint64(width - by))) & mask

    def mixed(x: np.ndarray, key: int) -> np.ndarray:
        return (turned(x, 1) & turned(x, 8)) ^ turned(x, 2) ^ (np.uint64(key) & mask)

    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left ^= mixed(right, first)
        right ^= mixed(left, second)
    return ((left << np.uint64(width)) | right).astype(np.int64)


def _shuffle_seed(seed: int) -> int:
    """What grain makes of a pipeline's seed for a shuffle that stands next to it."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint32)[0])


def _keys(seed: int) -> tuple[int, ...]:
    """The keys of the rounds: `std::seed_seq{seed}.generate` (ISO C++, [rand.util.seedseq])."""
    size, apart = ROUNDS, (ROUNDS - 1) // 2
    shift = (size - apart) // 2
    words = [0x8B8B8B8B] * size

    def folded(x: int) -> int:
        return x ^ (x >> 27)

    for k in range(size):
        mixed = folded(words[k % size] ^ words[(k + shift) % size] ^ words[(k - 1) % size])
        once = 1664525 * mixed & _WORD
        given = 1 if k == 0 else k % size + (seed if k == 1 else 0)
        again = (once + given) & _WORD
        words[(k + shift) % size] = (words[(k + shift) % size] + once) & _WORD
        words[(k + shift + apart) % size] = (words[(k + shift + apart) % size] + again) & _WORD
        words[k % size] = again
    for k in range(size, 2 * size):
        mixed = folded(words[k % size] + words[(k + shift) % size] + words[(k - 1) % size] & _WORD)
        once = 1566083941 * mixed & _WORD
        again = (once - k % size) & _WORD
        words[(k + shift) % size] ^= once
        words[(k + shift + apart) % size] ^= again
        words[k % size] = again
    return tuple(words)
