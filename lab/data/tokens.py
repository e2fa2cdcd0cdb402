"""Encoded images by index: a table in memory when it fits a stated limit, else made as read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from lab.core.errors import LabError
from lab.data.progress import Progress, silent
from lab.data.sources import Source
from lab.data.views import centre_square

CHUNK = 512  # images decoded before they are encoded together
LIMIT_BYTES = 2 * 2**30

Indices = Sequence[int] | np.ndarray


class Encoder(Protocol):
    """The part of a tokenizer that data need: two steps, so that images of many shapes meet in one.

    The second may be a network with a fixed batch.
    """

    def frame(self, images: np.ndarray) -> np.ndarray:
        """Rows (B, F) of images (B, H, W, C) uint8, which are of one shape."""
        ...

    def finish(self, frames: np.ndarray) -> np.ndarray:
        """Tokens (B, T) of rows of `frame`."""
        ...


@dataclasses.dataclass(frozen=True)
class Rows:
    """Tokens (b, T), uint8 or int32, and labels (b,) int32."""

    tokens: np.ndarray
    labels: np.ndarray


def by_shape(examples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[int], np.ndarray]]:
    """The examples' images (B, H, W, C) of one shape together, with their places."""
    found: dict[tuple[int, ...], list[int]] = {}
    for place, example in enumerate(examples):
        found.setdefault(example["image"].shape, []).append(place)
    for places in found.values():
        yield places, np.stack([examples[place]["image"] for place in places])


def encode_rows(source: Source, encoder: Encoder, indices: Indices) -> Rows:
    """Read and encode these examples; those of one shape are framed together."""
    examples = source.read(indices)
    labels = np.array([example["label"] for example in examples], np.int32)
    frames: np.ndarray | None = None
    for places, images in by_shape(examples):
        framed = encoder.frame(images)
        if frames is None:
            frames = np.empty((len(examples), framed.shape[1]), framed.dtype)
        frames[places] = framed
    if frames is None:
        raise LabError(f"{source.info.name}: no examples were asked for")
    return Rows(encoder.finish(frames), labels)


class ImageRows(Protocol):
    """What batches are made from: the rows of a split by index, in one or more views."""

    @property
    def are_images(self) -> bool:
        """Whether the rows are images that the devices have yet to encode."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether to get rows is to copy them: nothing is read or decoded."""
        ...

    @property
    def views(self) -> int:
        """Views of each image; view 0 is the image itself."""
        ...

    def __len__(self) -> int: ...

    def rows(self, indices: Indices, views: np.ndarray | None = None) -> Rows:
        """New arrays of the rows at these indices; `views` (b,) says which view of each."""
        ...


class TokenTable:
    """All tokens (N, T) and labels (N,) of a split in memory: decoding is paid once."""

    views = 1
    in_memory = True

    def __init__(self, rows: Rows, *, are_images: bool = False):
        self.tokens = rows.tokens
        self.labels = rows.labels
        self.are_images = are_images

    @classmethod
    def build(
        cls,
        source: Source,
        encoder: Encoder,
        *,
        limit_bytes: int = LIMIT_BYTES,
        are_images: bool = False,
        progress: Progress = silent,
    ) -> TokenTable:
        """Read and encode the whole source; raises when the table would pass limit_bytes."""
        needed = table_bytes(source, encoder)
        if needed > limit_bytes:
            raise LabError(
                f"{source.info.name}: a table of its tokens takes {needed} bytes; allowed: "
                f"{limit_bytes}"
            )
        total = len(source)
        first = encode_rows(source, encoder, [0]).tokens
        tokens = np.empty((total, first.shape[1]), first.dtype)
        labels = np.empty(total, np.int32)
        for start in range(0, total, CHUNK):
            stop = min(start + CHUNK, total)
            rows = encode_rows(source, encoder, range(start, stop))
            tokens[start:stop], labels[start:stop] = rows.tokens, rows.labels
            progress(stop, total)
        return cls(Rows(tokens, labels), are_images=are_images)

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, indices: Indices, views: np.ndarray | None = None) -> Rows:
        """The rows at these indices, as new arrays."""
        chosen = np.asarray(indices, np.int64)
        return Rows(self.tokens[chosen], self.labels[chosen])


class ViewedRows:
    """Rows in several views: one source of rows a view, of the same images."""

    def __init__(self, sources: Sequence[ImageRows]):
        self._sources = sources
        self.views = len(sources)
        self.are_images = sources[0].are_images
        self.in_memory = all(source.in_memory for source in sources)

    def __len__(self) -> int:
        return len(self._sources[0])

    def rows(self, indices: Indices, views: np.ndarray | None = None) -> Rows:
        """The rows at these indices, each in its view."""
        chosen = np.asarray(indices, np.int64)
        found = self._sources[0].rows(chosen)
        for view in np.unique(views[views > 0]) if views is not None else ():
            places = np.flatnonzero(views == view)
            found.tokens[places] = self._sources[view].rows(chosen[places]).tokens
        return found


class MirroredImages:
    """Rows that are images, mirrored left to right; `shape` is (rows, columns, channels)."""

    views = 1
    are_images = True

    def __init__(self, images: ImageRows, shape: tuple[int, int, int]):
        self._images = images
        self._shape = shape
        self.in_memory = images.in_memory

    def __len__(self) -> int:
        return len(self._images)

    def rows(self, indices: Indices, views: np.ndarray | None = None) -> Rows:
        """The rows at these indices."""
        found = self._images.rows(indices)
        images = found.tokens.reshape(-1, *self._shape)[:, :, ::-1]
        return Rows(images.reshape(found.tokens.shape), found.labels)


@dataclasses.dataclass(frozen=True)
class MirroredEncoder:
    """An encoder of the mirror images of the largest centred squares."""

    encoder: Encoder

    def frame(self, images: np.ndarray) -> np.ndarray:
        """Rows (B, F) of the mirror images of images (B, H, W, C) uint8."""
        return self.encoder.frame(np.ascontiguousarray(centre_square(images)[:, :, ::-1]))

    def finish(self, frames: np.ndarray) -> np.ndarray:
        """Tokens (B, T) of rows of `frame`."""
        return self.encoder.finish(frames)


def table_bytes(source: Source, encoder: Encoder) -> int:
    """Bytes of the table of a source, from its first image."""
    first = encode_rows(source, encoder, [0])
    return len(source) * (first.tokens.nbytes + first.labels.nbytes)


class Stream:
    """Tokens read and encoded as they are asked for: for what does not fit in memory."""

    views = 1
    in_memory = False

    def __init__(self, source: Source, encoder: Encoder, *, are_images: bool = False):
        self._source = source
        self._encoder = encoder
        self.are_images = are_images

    def __len__(self) -> int:
        return len(self._source)

    def rows(self, indices: Indices, views: np.ndarray | None = None) -> Rows:
        """The rows at these indices."""
        return encode_rows(self._source, self._encoder, indices)


def open_rows(
    source: Source,
    encoder: Encoder,
    *,
    limit_bytes: int = LIMIT_BYTES,
    are_images: bool = False,
    progress: Progress = silent,
) -> TokenTable | Stream:
    """The table of a source when it fits the limit, otherwise a stream."""
    if table_bytes(source, encoder) > limit_bytes:
        return Stream(source, encoder, are_images=are_images)
    return TokenTable.build(
        source, encoder, limit_bytes=limit_bytes, are_images=are_images, progress=progress
    )
