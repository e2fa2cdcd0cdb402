"""Small sets of codes for tests, and the record format spelled out value by value."""

import struct

import numpy as np

from lab.core.codes import Alphabet, CodeKind
from lab.data.code_format import Codes, CodeSet, DataFacts, TokenizerFacts
from lab.data.code_writer import Plan, begin, finish, write_shard

COMMAND = "python -m lab.launch.encode --tokenizer t --data d --out o"
KINDS = [
    (CodeKind.BITS, 6),  # 54 bits a view: two bits of padding
    (CodeKind.BITS, 16),
    (CodeKind.IDS, 200),
    (CodeKind.IDS, 4096),
    (CodeKind.IDS, 100_000),
    (CodeKind.GAUSSIAN, 4),
]


def code_set(kind=CodeKind.BITS, size=6, *, views="flip", examples=23, tokenizer="binary/1:a"):
    return CodeSet(
        tokenizer=TokenizerFacts(identity=tokenizer, name="small"),
        data=DataFacts(name="d/1.0.0", split="train", digest="ab", examples=examples, classes=7),
        alphabet=Alphabet(kind, size),
        grid=(3, 3),
        views=views,
        dims_per_image=432,
    )


def plan(what, shards=4):
    return Plan(what=what, shards=shards, command=COMMAND)


def draw(what, seed=0):
    """Codes of all views and labels, some of them negative."""
    rng = np.random.default_rng(seed)
    shape = (what.data.examples, what.view_count, *what.view_shape)
    if what.alphabet.kind is CodeKind.GAUSSIAN:
        codes = rng.normal(size=shape).astype(np.float32)
    else:
        most = 2 if what.alphabet.kind is CodeKind.BITS else what.alphabet.size
        codes = rng.integers(0, most, shape).astype(what.alphabet.dtype)
    return Codes(codes, rng.integers(-3, 7, what.data.examples).astype(np.int32))


def batches(codes, span, size=3):
    for at in range(span.start, span.stop, size):
        stop = min(at + size, span.stop)
        yield Codes(codes.codes[at:stop], codes.labels[at:stop])


def write(directory, codes, made, *, skip=()):
    """Write all shards but some, and the manifest where all are there."""
    begin(directory, made)
    for index in range(made.shards):
        if index not in skip:
            write_shard(directory, made, index, batches(codes, made.span(index)))
    return finish(directory, made)


def record_by_hand(codes, label, what):
    """The bytes of a record, by struct and strings of binary digits."""
    out = struct.pack("<i", label)
    for view in codes:
        values = view.reshape(-1).tolist()
        if what.alphabet.kind is CodeKind.BITS:
            digits = "".join(str(bit) for bit in values)
            digits += "0" * (-len(digits) % 8)
            out += bytes(int(digits[at : at + 8], 2) for at in range(0, len(digits), 8))
        else:
            letter = {"uint8": "B", "uint16": "H", "int32": "i", "float32": "f"}[what.storage]
            out += struct.pack(f"<{len(values)}{letter}", *values)
    return out


def contents(directory):
    """Every file below a folder: name -> bytes."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}
