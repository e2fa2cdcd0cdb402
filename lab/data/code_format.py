"""What a set of codes holds, and how the views of an image lie in a record of bytes.

A record is the label (int32, little-endian) and then the codes of each view: bits by np.packbits
over the whole view, ids in the smallest integer type, Gaussians in float32, little-endian.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from lab.core.codes import Alphabet, CodeKind
from lab.core.errors import LabError
from lab.data.provenance import Provenance, first_of, provenance_digest
from lab.data.views import views_of

SCHEMA = "lab.codes/1"
LABEL_BYTES = 4
PACKED_BITS = "packbits"


class Codes(NamedTuple):
    """Codes (b, rows, columns[, d]) of one view of each image, or (b, k views, rows, columns[, d])
    of all, and labels (b,) int32."""

    codes: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerFacts:
    """Which tokenizer the codes are of."""

    identity: str
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Which images the codes are of, in this order."""

    name: str
    split: str
    digest: str
    examples: int
    classes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeSet:
    """All that determines the bytes of a set of codes, and the shapes of its arrays."""

    tokenizer: TokenizerFacts
    data: DataFacts
    alphabet: Alphabet
    grid: tuple[int, int]  # rows, columns
    views: str  # a name of lab/data/views.py
    dims_per_image: int  # what bits per dimension divide by
    provenance: Provenance | None = None  # of the images; folders of old have none

    def digest_of_first(self, examples: int) -> str:
        """The digest of the first so many images: that of the images themselves, where known."""
        if examples == self.data.examples:
            return self.data.digest
        if self.provenance is None:
            return f"{self.data.digest}:{examples}"
        return provenance_digest(first_of(self.provenance, examples))

    @property
    def view_count(self) -> int:
        """Views of each image."""
        return views_of(self.views)

    @property
    def view_shape(self) -> tuple[int, ...]:
        """Shape of the codes of one view: the grid, and the values at a position where several."""
        values = () if self.alphabet.kind is CodeKind.IDS else (self.alphabet.values,)
        return (*self.grid, *values)

    @property
    def storage(self) -> str:
        """How codes are stored: "packbits", or a dtype, little-endian."""
        return PACKED_BITS if self.alphabet.kind is CodeKind.BITS else self.alphabet.dtype.name

    @property
    def view_bytes(self) -> int:
        """Bytes of one view in a record."""
        values = math.prod(self.view_shape)
        if self.alphabet.kind is CodeKind.BITS:
            return -(-values // 8)
        return values * self.alphabet.dtype.itemsize

    @property
    def record_bytes(self) -> int:
        """Bytes of a record: the label and all views."""
        return LABEL_BYTES + self.view_count * self.view_bytes

    @property
    def unit(self) -> str:
        """What one token is."""
        return f"one token is a position of the grid: {self.alphabet}"

    def compared(self) -> dict[str, Any]:
        """What two processes of one folder must agree on; provenance is in the data's digest."""
        return {key: value for key, value in self.as_json().items() if key != "provenance"}

    def as_json(self) -> dict[str, Any]:
        """The part of a manifest that says what the codes are."""
        known = {} if self.provenance is None else {"provenance": self.provenance}
        return {
            "schema": SCHEMA,
            "tokenizer": dataclasses.asdict(self.tokenizer),
            "data": dataclasses.asdict(self.data),
            "alphabet": {"kind": str(self.alphabet.kind), "size": self.alphabet.size},
            "grid": list(self.grid),
            "views": {"name": self.views, "count": self.view_count},
            "dims_per_image": self.dims_per_image,
            "storage": self.storage,
            "unit": self.unit,
            **known,
        }


def code_set(content: dict[str, Any]) -> CodeSet:
    """The inverse of `CodeSet.as_json`; other keys are left alone.

    Raises LabError where a field is missing or holds what `as_json` does not write.
    """
    try:
        found = CodeSet(
            tokenizer=TokenizerFacts(**content["tokenizer"]),
            data=DataFacts(**content["data"]),
            alphabet=Alphabet(CodeKind(content["alphabet"]["kind"]), content["alphabet"]["size"]),
            grid=(content["grid"][0], content["grid"][1]),
            views=content["views"]["name"],
            dims_per_image=content["dims_per_image"],
            provenance=content.get("provenance"),
        )
        numbers = (
            *found.grid,
            found.alphabet.size,
            found.dims_per_image,
            found.data.examples,
            found.data.classes,
        )
        if not all(type(number) is int and number > 0 for number in numbers):
            raise LabError(f"a size is not a whole number from 1: {numbers}")
        if found.provenance is not None:
            _check_provenance(found.provenance, found.data)
        written = found.as_json()
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LabError(f"not a set of codes: {type(error).__name__}: {error}") from None
    for key, value in written.items():
        if content[key] != value:
            raise LabError(f"{key} is {content[key]!r}, and {value!r} follows from the rest")
    return found


def _check_provenance(provenance: Provenance, data: DataFacts) -> None:
    if provenance_digest(provenance) != data.digest or provenance["examples"] != data.examples:
        raise LabError(f"data: {data.examples} of digest {data.digest} are not of the provenance")


def pack(codes: np.ndarray, labels: np.ndarray, what: CodeSet) -> np.ndarray:
    """Records (b, record_bytes) uint8 of the codes of all views and of the labels.

    Raises LabError for codes of another shape or dtype, or outside of the alphabet.
    """
    _check(codes, what)
    count = len(codes)
    if what.alphabet.kind is CodeKind.BITS:
        packed = np.packbits(codes.reshape(count, what.view_count, -1), axis=-1)
    else:
        little = what.alphabet.dtype.newbyteorder("<")
        packed = np.ascontiguousarray(codes.astype(little, copy=False)).view(np.uint8)
    head = np.asarray(labels, "<i4").reshape(count, 1).view(np.uint8)
    return np.concatenate([head, packed.reshape(count, -1)], axis=1)


def labels_of(records: np.ndarray) -> np.ndarray:
    """Labels (b,) int32 of records (b, record_bytes) uint8."""
    head = np.ascontiguousarray(records[:, :LABEL_BYTES])
    return head.view("<i4")[:, 0].astype(np.int32)


def unpack(packed: np.ndarray, what: CodeSet) -> np.ndarray:
    """Codes (b, rows, columns[, d]) of packed views (b, view_bytes) uint8, contiguous."""
    shape = (len(packed), *what.view_shape)
    if what.alphabet.kind is CodeKind.BITS:
        return np.unpackbits(packed, axis=1, count=math.prod(what.view_shape)).reshape(shape)
    little = what.alphabet.dtype.newbyteorder("<")
    return packed.view(little).astype(what.alphabet.dtype, copy=False).reshape(shape)


def _check(codes: np.ndarray, what: CodeSet) -> None:
    expected = (what.view_count, *what.view_shape)
    alphabet = what.alphabet
    if codes.shape[1:] != expected or codes.dtype != alphabet.dtype:
        raise LabError(
            f"codes {codes.dtype} {codes.shape}: {alphabet.dtype} (b, "
            f"{', '.join(map(str, expected))}) is expected"
        )
    if alphabet.kind is CodeKind.GAUSSIAN:
        if not np.isfinite(codes).all():
            raise LabError("codes: a mean or log variance is not finite")
        return
    most = 2 if alphabet.kind is CodeKind.BITS else alphabet.size
    if codes.size and not 0 <= codes.min() <= codes.max() < most:
        raise LabError(f"codes {codes.min()} to {codes.max()}: allowed: 0 to {most - 1}")
