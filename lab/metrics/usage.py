"""How much of its alphabet a tokenizer uses, from host arrays of codes."""

import dataclasses
import math

import numpy as np

from lab.core.codes import Alphabet, CodeKind
from lab.core.errors import LabError

MOST_BITS = 63  # that fold into one id
MOST_COUNTED = 2**24  # alphabets up to this size are counted in a table, larger ones by sorting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """What was drawn of an alphabet; exact for the codes given, no estimate of those unseen."""

    draws: int  # positions
    alphabet: int  # codes that there are: 2**bits where a position holds bits
    distinct: int  # codes that occur
    alphabet_share: float  # distinct / alphabet
    uniform_share: float  # distinct / what as many uniform draws show on average; may exceed 1
    entropy_nats: float  # plug-in
    perplexity: float  # exp of it: the uniform alphabet that would be as spread out
    bit_means: tuple[float, ...] | None  # share of ones of each bit; None of ids


def usage(codes: np.ndarray, alphabet: Alphabet) -> Usage:
    """Usage of host codes: ids (...), or bits (..., d) which are one code a position.

    Raises LabError for codes outside the alphabet, none at all, more than 63 bits, or latents.
    """
    ids = code_ids(codes, alphabet)
    values = 2**alphabet.size if alphabet.kind is CodeKind.BITS else alphabet.size
    counts = _counts(ids, values)
    bits = codes.reshape(-1, alphabet.size) if alphabet.kind is CodeKind.BITS else None
    entropy_nats = plug_in_entropy_nats(counts)
    return Usage(
        draws=ids.size,
        alphabet=values,
        distinct=counts.size,
        alphabet_share=counts.size / values,
        uniform_share=counts.size / expected_distinct(values, ids.size),
        entropy_nats=entropy_nats,
        perplexity=math.exp(entropy_nats),
        bit_means=None if bits is None else tuple(bits.mean(axis=0, dtype=np.float64).tolist()),
    )


def code_ids(codes: np.ndarray, alphabet: Alphabet) -> np.ndarray:
    """One id (N,) a position, in raster order; bits become an int64, the first bit the highest."""
    if codes.size == 0:
        raise LabError(f"usage of {alphabet}: there are no codes")
    if alphabet.kind is CodeKind.IDS:
        return _within(codes.ravel(), alphabet, largest=alphabet.size - 1)
    if alphabet.kind is not CodeKind.BITS:
        raise LabError(f"usage of {alphabet}: only ids and bits are counted")
    if alphabet.size > MOST_BITS:
        raise LabError(f"usage of {alphabet}: at most {MOST_BITS} bits fold into one id")
    if codes.shape[-1] != alphabet.size:
        raise LabError(f"usage of {alphabet}: the codes hold {codes.shape[-1]} bits a position")
    bits = _within(codes.reshape(-1, alphabet.size), alphabet, largest=1)
    ids = np.zeros(len(bits), np.int64)
    for column in bits.T:
        ids = (ids << 1) | column
    return ids


def expected_distinct(values: int, draws: int) -> float:
    """Distinct codes that uniform draws show on average: V (1 - (1 - 1/V)^n)."""
    if values == 1:
        return 1.0
    return -values * math.expm1(draws * math.log1p(-1 / values))


def plug_in_entropy_nats(counts: np.ndarray) -> float:
    """Entropy of the empirical distribution; every count is positive."""
    shares = counts / counts.sum()
    return max(0.0, float(-(shares * np.log(shares)).sum()))


def _counts(ids: np.ndarray, values: int) -> np.ndarray:
    """How often each code that occurs does."""
    if values > MOST_COUNTED:
        return np.unique(ids, return_counts=True)[1]
    table = np.bincount(ids, minlength=values)
    return table[table > 0]


def _within(codes: np.ndarray, alphabet: Alphabet, *, largest: int) -> np.ndarray:
    if codes.dtype.kind not in "iu":
        raise LabError(f"usage of {alphabet}: codes are integers, not {codes.dtype}")
    lowest, highest = int(codes.min()), int(codes.max())
    if lowest < 0 or highest > largest:
        raise LabError(
            f"usage of {alphabet}: codes run from {lowest} to {highest}; allowed is 0 to {largest}"
        )
    return codes
