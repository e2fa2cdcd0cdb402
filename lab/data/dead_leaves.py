"""The embedded data set: dead leaves as a TFDS builder, for as many images as are asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator

import tensorflow_datasets as tfds

from lab.core.errors import LabError
from lab.data.leaf_blocks import examples_of
from lab.data.leaves import CLASSES, REVISION, SPLITS, Knobs
from lab.data.recipe import Recipe, Request

EXAMPLES = {"train": 20_000, "validation": 2_048}  # when a request does not say


class DeadLeavesConfig(tfds.core.BuilderConfig):
    """The configuration <split><images>_..._s<seed>_<digest of the generator>, from arguments."""

    def __init__(self, sizes: dict[str, int], *, seed: int = 0, knobs: Knobs | None = None):
        for split, images in sizes.items():
            if split not in SPLITS:
                allowed = ", ".join(SPLITS)
                raise LabError(f"dead_leaves: split {split!r} is not there; allowed: {allowed}")
            if images < 1:
                raise LabError(f"dead_leaves: {images} {split} examples; allowed: at least 1")
        self.sizes = dict(sizes)  # images by split
        self.seed = seed
        self.knobs = knobs or Knobs()
        parts = [f"{split}{images}" for split, images in sizes.items()]
        name = "_".join([*parts, f"s{seed}", generator_digest(self.knobs)[:8]])
        super().__init__(name=name, description="Dead leaves; see lab/data/leaves.py.")


def generator_digest(knobs: Knobs) -> str:
    """Digest of all that turns (seed, split, index) into pixels."""
    return hashlib.sha256(json.dumps(_generator(knobs), sort_keys=True).encode()).hexdigest()


def _generator(knobs: Knobs) -> dict:
    classes = [dataclasses.asdict(law) for law in CLASSES]
    return {"revision": REVISION, "knobs": dataclasses.asdict(knobs), "classes": classes}


class DeadLeaves(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Dead leaves (Lee, Mumford & Huang 2001), ten classes; no TensorFlow and no download."""

    name = "dead_leaves"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.knobs.size
        return tfds.core.DatasetInfo(
            builder=self,
            description="Occluding shapes with power-law sizes, front to back; ten classes.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[law.shape for law in CLASSES]),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # record i is image i, however many are made
        )

    def _split_generators(self, dl_manager):
        sizes = self.builder_config.sizes
        return {split: self._generate_examples(split, sizes[split]) for split in sizes}

    def _generate_examples(self, split: str, examples: int) -> Iterator[tuple[int, dict]]:
        made = self.builder_config
        found = examples_of(made.knobs, made.seed, split, examples)
        for index, (image, label) in enumerate(found):
            yield index, {"image": image, "label": label}


def recipe(request: Request) -> Recipe:
    """The recipe of one split with as many images as asked for; image i is the same in all."""
    examples = EXAMPLES.get(request.split, 1) if request.examples is None else request.examples
    chosen = DeadLeavesConfig({request.split: examples}, seed=request.seed)

    def make_builder(data_dir: pathlib.Path) -> DeadLeaves:
        return DeadLeaves(data_dir=str(data_dir), config=chosen)

    provenance = {"name": "dead_leaves", "seed": request.seed, "generator": _generator(Knobs())}
    return Recipe(
        make_builder=make_builder, provenance=provenance, images=examples, held_out_tenths=0
    )
