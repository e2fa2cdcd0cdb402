"""Encode the images of one split into a folder of codes, shard by shard, on local devices."""

import collections
import concurrent.futures
import dataclasses
import enum
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from lab.core.codes import Alphabet
from lab.core.errors import Stopped
from lab.data.code_format import Codes, CodeSet, DataFacts, TokenizerFacts
from lab.data.code_manifest import MAKING, NAME, check_shard
from lab.data.code_writer import (
    Plan,
    begin,
    check_finished,
    finish,
    is_sound,
    reopen,
    shard_count,
    write_shard,
)
from lab.data.sources import Source
from lab.data.tokens import by_shape
from lab.data.views import Framer, framed_view, views_of
from lab.launch.claim import HeldElsewhere, claimed

EXAMPLES_PER_SHARD = 2048  # what a kill costs at most, and what one host has to do at least
MOST_SHARDS = 1024
PER_DEVICE = 64  # images handed over at once: a multiple of what a device encodes in one call
READERS = 2  # threads that read images while the devices encode; large ones decode on all cores

T = TypeVar("T")


class ImageTokenizer(Protocol):
    """The part of a trained tokenizer that is used: lab/tokenizers/trained.py has it."""

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> str: ...
    @property
    def alphabet(self) -> Alphabet: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    @property
    def dims_per_image(self) -> int: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def frames(self) -> Framer: ...

    def encode_frames(self, images: np.ndarray) -> np.ndarray:
        """Codes (B, rows, columns[, d]) of images (B, R, R, C) uint8; the same for an image
        whatever the others are and on however many devices."""
        ...


@dataclasses.dataclass(frozen=True)
class Share:
    """Which shards this process makes: host, host + hosts, ..."""

    host: int = 0
    hosts: int = 1


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the job asks of and tells to whoever started it."""

    should_stop: Callable[[], bool]
    progress: Callable[[int, int, int], None]  # images done, in this process's share, encoded now
    warn: Callable[[str], None]


class Status(enum.StrEnum):
    """How a folder stands when the job returns."""

    FINISHED = "finished"
    VERIFIED = "verified"  # was finished before; every byte was read
    SHARE_DONE = "share done"  # the shards of other hosts are still to come


@dataclasses.dataclass
class Outcome:
    """What was done."""

    directory: pathlib.Path
    status: Status
    plan: Plan
    shards_there: int
    images: int = 0  # views encoded by this process
    bytes: int = 0  # written by this process


def plan_of(
    source: Source, tokenizer: ImageTokenizer, *, views: str, shards: int | None, command: str
) -> Plan:
    """The plan of a split: none of it depends on hosts or devices."""
    info = source.info
    examples = info.examples
    what = CodeSet(
        tokenizer=TokenizerFacts(identity=tokenizer.identity, name=tokenizer.name),
        data=DataFacts(
            name=info.name,
            split=info.split,
            digest=info.digest,
            examples=examples,
            classes=info.classes,
        ),
        alphabet=tokenizer.alphabet,
        grid=tokenizer.grid,
        views=views,
        dims_per_image=tokenizer.dims_per_image,
        provenance=info.provenance,
    )
    default = min(MOST_SHARDS, -(-examples // EXAMPLES_PER_SHARD))
    return Plan(what=what, shards=shards or default, command=command)


class EncodeJob:
    """The share of one process in a folder of codes."""

    def __init__(
        self,
        source: Source,
        tokenizer: ImageTokenizer,
        plan: Plan,
        directory: pathlib.Path,
        *,
        share: Share,
        devices: int,
        hooks: Hooks,
    ) -> None:
        self.source = source
        self.tokenizer = tokenizer
        self.plan = plan
        self.directory = directory
        self.hooks = hooks
        self.chunk = PER_DEVICE * devices
        self.indices = range(share.host, plan.shards, share.hosts)
        self.done = 0  # images of the share, views not counted
        self.total = sum(len(plan.span(index)) for index in self.indices)
        self.outcome = Outcome(directory, Status.SHARE_DONE, plan, 0)

    def warm_up(self) -> None:
        """Compile the program, so that the rate that is printed is that of encoding."""
        if not (self.directory / NAME).exists():
            self.tokenizer.encode_frames(np.zeros((1, *self.tokenizer.image_shape), np.uint8))

    def run(self) -> Outcome:
        """Make what is missing; raises Stopped between two batches on a wish to stop."""
        if (self.directory / NAME).exists() and self._is_verified():
            return self._ended(Status.VERIFIED)
        begin(self.directory, self.plan)
        self.hooks.progress(self.done, self.total, self.outcome.images)
        held = [index for index in self.indices if not self._make(index)]
        held = [index for index in held if not self._make(index)]  # another may be done by now
        if self._finish():
            return self._ended(Status.FINISHED)
        if held:
            raise HeldElsewhere(
                f"{self.directory / self.plan.file(held[0])}: another process is making this shard"
            )
        return self._ended(Status.SHARE_DONE)

    def _is_verified(self) -> bool:
        """Whether the finished folder is as it was written; if not, it is open again."""
        manifest = check_finished(self.directory, self.plan)
        with claimed(self.directory / MAKING / "finish") as ours:
            if not ours:  # another host verifies as well, and mends
                for entry in manifest.shards:
                    check_shard(self.directory, entry)
                return True
            messages = reopen(self.directory, self.plan, manifest)
        for message in messages:
            self.hooks.warn(message)
        return not messages and self._finish()

    def _make(self, index: int) -> bool:
        """Make a shard unless it is there; False where another process is at it."""
        with claimed(self._claim(index)) as ours:
            if not ours:
                return False
            span = self.plan.span(index)
            if is_sound(self.directory, self.plan, index) or (self.directory / NAME).exists():
                self._tell(len(span))
                return True
            entry = write_shard(self.directory, self.plan, index, self._batches(span))
            self.outcome.bytes += entry.bytes
            return True

    def _claim(self, index: int) -> pathlib.Path:
        return self.directory / MAKING / f"claim-{index:05d}"

    def _finish(self) -> bool:
        """Write the manifest where all shards are there; False where it is not there yet."""
        if (self.directory / NAME).exists():
            finish(self.directory, self.plan)
            return True
        if shard_count(self.directory, self.plan) < self.plan.shards:
            return False
        with claimed(self.directory / MAKING / "finish") as ours:
            if ours:
                finish(self.directory, self.plan)
        return (self.directory / NAME).exists()

    def _ended(self, status: Status) -> Outcome:
        done = status is not Status.SHARE_DONE
        there = self.plan.shards if done else shard_count(self.directory, self.plan)
        return dataclasses.replace(self.outcome, status=status, shards_there=there)

    def _tell(self, count: int) -> None:
        self.done += count
        self.hooks.progress(self.done, self.total, self.outcome.images)

    def _batches(self, span: range) -> Iterator[Codes]:
        """The codes of a shard's images, the next images being read meanwhile."""
        chunks = [span[at : at + self.chunk] for at in range(0, len(span), self.chunk)]
        for images in ahead(self._read, chunks):
            if self.hooks.should_stop():
                raise Stopped
            count, views = images.codes.shape[:2]
            flat = images.codes.reshape(count * views, *images.codes.shape[2:])
            codes = self.tokenizer.encode_frames(flat)
            self.outcome.images += count * views
            self._tell(count)
            yield Codes(codes.reshape(count, views, *codes.shape[1:]), images.labels)

    def _read(self, indices: Sequence[int]) -> Codes:
        """Frames (b, k, R, R, C) uint8 of all views of these images, and labels."""
        tokenizer = self.tokenizer
        return read_views(
            self.source, tokenizer.frames, indices, self.plan.what.views, tokenizer.image_shape
        )


def read_views(
    source: Source,
    framer: Framer,
    indices: Sequence[int],
    views: str,
    image_shape: tuple[int, int, int],
) -> Codes:
    """Frames (b, k, R, R, C) uint8 of all views of these images, and labels (b,) int32."""
    examples = source.read(indices)
    labels = np.array([example["label"] for example in examples], np.int32)
    frames = np.empty((len(examples), views_of(views), *image_shape), np.uint8)
    for places, images in by_shape(examples):
        for index in range(views_of(views)):
            frames[places, index] = framed_view(images, framer, views, index, side=image_shape[0])
    return Codes(frames, labels)


def ahead(function: Callable[[Sequence[int]], T], items: Iterable[Sequence[int]]) -> Iterator[T]:
    """function(item) of each item in order, a few of them at work in threads before they are asked
    for."""
    readers = min(READERS, os.cpu_count() or 1)
    waiting: collections.deque[concurrent.futures.Future[T]] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(readers)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > readers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
