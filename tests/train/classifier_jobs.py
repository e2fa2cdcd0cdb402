"""Jobs of tiny classifiers on made-up images: no data set is prepared."""

import dataclasses

import jax
import numpy as np

from configs.classifiers import conv, patch
from configs.layouts import LAYOUTS
from lab.core.config import admit
from lab.core.fields import overlay
from lab.core.layout import make_layout
from lab.data.tokens import MirroredImages, Rows, TokenTable, ViewedRows
from lab.train.classifier_job import ClassifierJob
from lab.train.job import Images, Split

SIDE = 16
CLASSES = 3
KINDS = {
    "conv": (conv, {"classifier.multipliers": "1-2", "classifier.groups": 4}),
    "patch": (patch, {"classifier.heads": 2, "classifier.mlp_hidden": 16, "classifier.depth": 2}),
}
TINY = {
    "images.resolution": SIDE,
    "classifier.width": 8,
    "classifier.patch": 4,
    "train.batch_size": 8,
    "train.evaluation_batch_size": 16,
    "train.duration": "10 steps",
    "train.log_every_steps": 1,
    "train.evaluate_every_steps": 5,
    "optimizer.warmup": "2 steps",
    "data.name": "made_up",
}


def split(examples, *, seed):
    """Images whose class is their strongest channel, under noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, examples).astype(np.int32)
    images = rng.integers(0, 200, (examples, SIDE, SIDE, 3))
    images += 55 * (np.arange(CLASSES) == labels[:, None])[:, None, None]
    rows = TokenTable(Rows(images.astype(np.uint8).reshape(examples, -1), labels), are_images=True)
    return Split(rows=rows, name="made_up/1", digest=str(seed), classes=CLASSES)


def config(kind, **overrides):
    module, own = KINDS[kind]
    return admit(overlay(module.get_config("small"), {**TINY, **own, **overrides}))


def job(tmp_path, kind, *, layout="ddp", devices=1, **overrides):
    """A job of a tiny classifier under a layout of so many devices."""
    place = {"execution.workdir": str(tmp_path), "execution.layout": layout}
    run = config(kind, **{**place, **overrides})
    seen = split(48, seed=0)
    if run.data.augmentation == "flip":
        both = ViewedRows([seen.rows, MirroredImages(seen.rows, (SIDE, SIDE, 3))])
        seen = dataclasses.replace(seen, rows=both)
    images = Images(train=seen, validation=split(37, seed=1))
    made = make_layout(layout, LAYOUTS, jax.devices()[:devices])
    result = ClassifierJob(run, layout=made, images=images)
    result.directory.mkdir(parents=True, exist_ok=True)
    return result
