"""Dead leaves as files hold them, made by several processes where that pays.

    python -m lab.data.leaf_blocks '{"knobs": {}, "seed": 0, "split": "train", "blocks": [0, 8, 2]}'

Such a process writes blocks 0, 2, 4 and 6 to its standard output, image after image: label and
bytes of the file as two little-endian uint32, then the file. It is as far ahead as the pipe lets
it, and ends with the reader.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

from lab.core.errors import LabError
from lab.data import leaves
from lab.data.leaves import BLOCK, Knobs
from lab.data.png import encode_png

PAYS_FROM = 64  # blocks of a process: to begin takes as long as some dozens
HEAD = struct.Struct("<II")  # label, bytes of the file
ROOT = pathlib.Path(__file__).resolve().parents[2]

Example = tuple[bytes, int]  # a PNG file and its label


def examples_of(knobs: Knobs, seed: int, split: str, count: int) -> Iterator[Example]:
    """The first so many images of a split, in order; the same for any number of processes."""
    blocks = -(-count // BLOCK)
    processes = min(_cores(), blocks // PAYS_FROM)
    if processes < 2:
        made = itertools.chain.from_iterable(
            encoded_block(knobs, seed, split, block) for block in range(blocks)
        )
        yield from itertools.islice(made, count)
        return
    with contextlib.ExitStack() as stack:
        pipes = [
            stack.enter_context(_maker(knobs, seed, split, range(first, blocks, processes)))
            for first in range(processes)
        ]
        for index in range(count):
            yield _read(pipes[index // BLOCK % processes])


def encoded_block(knobs: Knobs, seed: int, split: str, block: int) -> Iterator[Example]:
    """The images of one block."""
    made = leaves.make_block(knobs, seed, split, block)
    for image, label in zip(made.images, made.labels, strict=True):
        yield encode_png(image), int(label)


@contextlib.contextmanager
def _maker(knobs: Knobs, seed: int, split: str, blocks: range) -> Iterator[IO[bytes]]:
    """The output of a process that makes these blocks; it is killed at the end if it still runs."""
    asked = {
        "knobs": dataclasses.asdict(knobs),
        "seed": seed,
        "split": split,
        "blocks": [blocks.start, blocks.stop, blocks.step],
    }
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.data.leaf_blocks", json.dumps(asked)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None  # a pipe was asked for
    with process:
        try:
            yield process.stdout
        finally:
            process.kill()


def _read(pipe: IO[bytes]) -> Example:
    head = pipe.read(HEAD.size)
    label, size = HEAD.unpack(head) if len(head) == HEAD.size else (0, 0)
    image = pipe.read(size)
    if not size or len(image) < size:
        raise LabError(
            "dead_leaves: a process that makes images ended early; is there memory enough? The "
            "same command begins anew"
        )
    return image, label


def _write(asked: str, out: IO[bytes]) -> None:
    what = json.loads(asked)
    for block in range(*what["blocks"]):
        made = encoded_block(Knobs(**what["knobs"]), what["seed"], what["split"], block)
        for image, label in made:
            out.write(HEAD.pack(label, len(image)) + image)


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _write(sys.argv[1], sys.stdout.buffer)
    os._exit(0)  # what is left in the buffer has no reader
