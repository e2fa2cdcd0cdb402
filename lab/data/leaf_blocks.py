"""Dead leaves as files hold them, made by several processes where that pays.

    python -m lab.data.leaf_blocks '{"knobs": {}, "seed": 0, "split": "train", "blocks": [0, 8, 2]}'

Such a process writes blocks 0, 2, 4 and 6 to its standard output, image after image: label and
bytes of the file as two little-endian uint32, then the file. It is as far ahead as the pipe lets
it, and ends with the reader, which alone hears signals that ask to stop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

from lab.core.cores import given_core_count, on_given_cores
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
        makers = [
            stack.enter_context(_maker(knobs, seed, split, range(first, blocks, processes)))
            for first in range(processes)
        ]
        for index in range(count):
            yield makers[index // BLOCK % processes].read()


def encoded_block(knobs: Knobs, seed: int, split: str, block: int) -> Iterator[Example]:
    """The images of one block."""
    made = leaves.make_block(knobs, seed, split, block)
    for image, label in zip(made.images, made.labels, strict=True):
        yield encode_png(image), int(label)


@dataclasses.dataclass(frozen=True)
class _Maker:
    """A process that makes images."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]  # its standard error

    def read(self) -> Example:
        """The next image. Raises LabError where the process has ended before it."""
        pipe = self.process.stdout
        assert pipe is not None  # a pipe was asked for
        head = pipe.read(HEAD.size)
        label, size = HEAD.unpack(head) if len(head) == HEAD.size else (0, 0)
        image = pipe.read(size)
        if not size or len(image) < size:
            raise LabError(
                f"dead_leaves: a process that makes images ended early ({self._end()}); is there "
                "memory enough? The same command begins anew"
            )
        return image, label

    def _end(self) -> str:
        """How it ended, and the last line that it said."""
        code = self.process.wait()
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"{end}: {last[:200]}" if last else end


@contextlib.contextmanager
def _maker(knobs: Knobs, seed: int, split: str, blocks: range) -> Iterator[_Maker]:
    """A process that makes these blocks; it is killed at the end if it still runs.

    It starts in the folder of this code, so that it makes what this code does wherever the reader
    stands, and in a session of its own: Ctrl-C of a terminal is for the reader.
    """
    asked = {
        "knobs": dataclasses.asdict(knobs),
        "seed": seed,
        "split": split,
        "blocks": [blocks.start, blocks.stop, blocks.step],
    }
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile() as said:
        with on_given_cores():
            process = subprocess.Popen(
                [sys.executable, "-m", "lab.data.leaf_blocks", json.dumps(asked)],
                stdout=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                stderr=said,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        with process:
            try:
                yield _Maker(process, said)
            finally:
                process.kill()


def _write(asked: str, out: IO[bytes]) -> None:
    what = json.loads(asked)
    for block in range(*what["blocks"]):
        made = encoded_block(Knobs(**what["knobs"]), what["seed"], what["split"], block)
        for image, label in made:
            out.write(HEAD.pack(label, len(image)) + image)


def _cores() -> int:
    """Those that makers may use; 1 where this process does not know the interpreter to start.

    Beside those of a worker of a sweep, which keeps to its share: the others wait for the images.
    """
    return given_core_count() if sys.executable else 1


if __name__ == "__main__":
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError):
        _write(sys.argv[1], sys.stdout.buffer)
        sys.stdout.flush()
    os._exit(0)  # what is left in the buffer has no reader
