"""The door to all image data: `open_source(name, split=...)`."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib
import pathlib
import pkgutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from lab.core.cores import core_count
from lab.core.errors import LabError
from lab.data.png import decode_image
from lab.data.prepare import default_data_dir, default_manual_dir, prepare
from lab.data.progress import Progress, silent
from lab.data.provenance import Provenance, provenance_digest
from lab.data.recipe import Recipe, Request

SPLITS = ("train", "validation", "test")
LARGE_BYTES = 2**13  # of an encoded image


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """What a record says of its data. digest identifies the images of this split, in order."""

    name: str  # with configuration and version
    split: str
    stored_split: str  # the TFDS expression that was read
    digest: str
    examples: int
    classes: int
    image_shape: tuple[int | None, int | None, int]
    provenance: Provenance  # what the digest is of


class Source:
    """Images of one split, by index: {"image": (H, W, C) uint8, "label": int}."""

    def __init__(self, records: Any, parser: Any, info: SourceInfo):
        self._records = records
        self._parser = parser
        self.info = info

    def __len__(self) -> int:
        return self.info.examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.info.name}: {index} is not in [0, {len(self)})")
        return self.read([index])[0]

    def read(self, indices: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """The examples at these indices; a corrupt record is one clear error."""
        try:
            records = self._records.__getitems__([int(index) for index in indices])
            return self._decoded(records)
        except (OSError, ValueError, RuntimeError) as error:
            line = " ".join(str(error).split())[:200]
            raise LabError(
                f"{self.info.name}: {self.info.stored_split}: a record cannot be read: {line}; "
                f"remove the data set's folder and it is prepared again"
            ) from error

    def _decoded(self, records: Sequence[bytes]) -> list[dict[str, Any]]:
        """Large images on all cores: small ones would queue for Python's lock.

        (On two cores JPEG of 400 x 350 pixels take .7 to .8 times as long as by one thread, PNG of
        32 x 32 would take 1.4 times.)
        """
        threads = min(core_count(), len(records))
        if threads <= 1 or sum(map(len, records)) < LARGE_BYTES * len(records):
            return [self._decode(record) for record in records]
        with concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            return list(pool.map(self._decode, records))

    def _decode(self, record: bytes) -> dict[str, Any]:
        example = self._parser.parse_example(record)
        pixels = decode_image(example["image"], channels=self.info.image_shape[-1])
        return {"image": pixels, "label": int(example["label"])}


def open_source(
    name: str,
    *,
    split: str,
    data_dir: str | pathlib.Path | None = None,
    manual_dir: str | pathlib.Path | None = None,
    examples: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Source:
    """Open a split of a data set, preparing the data set first where that has not been done.

    A name is that of a module of this room with a `recipe`, or any TFDS image data set. `examples`
    is the number of images: a procedural set makes that many, another gives the first so many of
    the split. `seed` is that of a procedural set. For the splits see `split_spans`. `progress` is
    told of the images that are made, where the data set has yet to be prepared.
    """
    if split not in SPLITS:
        raise LabError(f"{name}: split {split!r} is not allowed; allowed: {', '.join(SPLITS)}")
    folder = pathlib.Path(data_dir).absolute() if data_dir else default_data_dir()
    manual = pathlib.Path(manual_dir).absolute() if manual_dir else default_manual_dir()
    request = Request(split=split, examples=examples, manual_dir=manual, seed=seed)
    recipe = find_recipe(name, request)
    builder = prepare(recipe, folder, progress=progress)
    sizes = {key: builder.info.splits[key].num_examples for key in builder.info.splits}
    spans = split_spans(sizes, held_out_tenths=recipe.held_out_tenths)
    return _source(builder, recipe, split, stored_split(name, spans, split, examples=examples))


def _source(builder: Any, recipe: Recipe, split: str, stored: str) -> Source:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.example_parser import ExampleParserNp

    specs = builder.info.features.get_serialized_info()
    lacking = [field for field in ("image", "label") if field not in specs]
    if lacking:
        found = ", ".join(specs)
        raise LabError(f"{builder.name}: no feature {lacking[0]!r}; it has {found}")
    method = tfds.decode.DeserializeMethod.RAW_BYTES
    records = builder.as_data_source(split=stored, deserialize_method=method)
    provenance = _provenance(builder, recipe, stored, len(records))
    info = SourceInfo(
        name=builder.info.full_name,
        split=split,
        stored_split=stored,
        digest=provenance_digest(provenance),
        examples=len(records),
        classes=builder.info.features["label"].num_classes,
        image_shape=tuple(builder.info.features["image"].shape),
        provenance=provenance,
    )
    return Source(records, ExampleParserNp({key: specs[key] for key in ("image", "label")}), info)


@dataclasses.dataclass(frozen=True)
class Span:
    """Records [start, stop) of a TFDS split of a size."""

    key: str
    start: int
    stop: int
    size: int


def split_spans(sizes: dict[str, int], *, held_out_tenths: int) -> dict[str, Span]:
    """Where each of our splits lies.

    A data set without a validation split gives up the last tenths of its training images, so its
    test split stays untouched.
    """
    spans = {key: Span(key, 0, size, size) for key, size in sizes.items()}
    train = sizes.get("train", 0)
    border = train - train * held_out_tenths // 10
    if "validation" not in sizes and border < train:
        spans["train"] = Span("train", 0, border, train)
        spans["validation"] = Span("train", border, train, train)
    return spans


def stored_split(name: str, spans: dict[str, Span], split: str, *, examples: int | None) -> str:
    """The TFDS expression for (the first examples of) a split; raises for what is not there."""
    if split not in spans:
        allowed = ", ".join(spans)
        raise LabError(f"{name}: split {split!r} is not in this data set; allowed: {allowed}")
    span = spans[split]
    most = span.stop - span.start
    if examples is not None and not 1 <= examples <= most:
        raise LabError(f"{name}: {examples} {split} examples are not there; allowed: 1 to {most}")
    stop = span.stop if examples is None else span.start + examples
    if span.start == 0 and stop == span.size:
        return span.key
    return f"{span.key}[{span.start}:{stop}]"


def _provenance(builder: Any, recipe: Recipe, stored: str, examples: int) -> Provenance:
    facts = recipe.provenance or _recorded_facts(builder)
    version = str(builder.info.version)
    return {"facts": facts, "version": version, "split": stored, "examples": examples}


def _recorded_facts(builder: Any) -> dict[str, Any]:
    """What TFDS recorded of a data set that is not ours: sizes in examples and bytes."""
    splits = builder.info.splits
    return {
        "name": builder.info.full_name,
        "splits": {key: [splits[key].shard_lengths, splits[key].num_bytes] for key in splits},
    }


def find_recipe(name: str, request: Request) -> Recipe:
    """The recipe from lab/data/NAME.py when that module has one; otherwise TFDS's own builder."""
    if name in {module.name for module in pkgutil.iter_modules(_room())}:
        module = importlib.import_module(f"lab.data.{name}")
        if hasattr(module, "recipe"):
            return module.recipe(request)
    return _stock_recipe(name, request)


def source_names() -> list[str]:
    """Data sets with a module of their own in this room, found by looking."""
    names = sorted(module.name for module in pkgutil.iter_modules(_room()))
    return [
        name for name in names if hasattr(importlib.import_module(f"lab.data.{name}"), "recipe")
    ]


def _room() -> Sequence[str]:
    return [str(pathlib.Path(__file__).parent)]


def _stock_recipe(name: str, request: Request) -> Recipe:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    try:
        tfds.builder_cls(name.split("/")[0].split(":")[0])
    except (DatasetNotFoundError, ValueError) as error:
        known = ", ".join(source_names())
        raise LabError(
            f"data set {name!r} is not known; allowed: {known}, or a TFDS name"
        ) from error

    def make_builder(data_dir: pathlib.Path) -> Any:
        try:
            return tfds.builder(name, data_dir=str(data_dir))
        except ValueError as error:
            line = " ".join(str(error).split())[:300]
            raise LabError(f"data set {name!r}: TFDS has no such configuration: {line}") from error

    return Recipe(make_builder=make_builder, provenance=None, manual_dir=request.manual_dir)
