"""Jobs of tiny tokenizers on made-up images: no data set is prepared."""

import dataclasses

import jax
import numpy as np

from configs.layouts import LAYOUTS
from configs.tokenizers import binary, kl, vqgan
from lab.core.config import admit
from lab.core.fields import overlay
from lab.core.layout import make_layout
from lab.data.tokens import MirroredImages, Rows, TokenTable, ViewedRows
from lab.train.job import Images, Split
from lab.train.tokenizer_job import TokenizerJob

SIDE = 16
KINDS = {
    "vq": (vqgan, "small", {"code.vocabulary": 32, "code.features": 4}),
    "binary": (binary, "small-16", {"code.bits": 6}),
    "kl": (kl, "small", {"code.channels": 2}),
}
TINY = {
    "images.resolution": SIDE,
    "autoencoder.width": 8,
    "autoencoder.multipliers": "1-2",
    "autoencoder.latent_channels": 8,
    "autoencoder.groups": 4,
    "autoencoder.attention": "none",  # compiling is most of the time of these tests
    "autoencoder.decoder_attention": "none",
    "train.batch_size": 8,
    "train.evaluation_batch_size": 16,
    "train.duration": "10 steps",
    "train.log_every_steps": 1,
    "train.evaluate_every_steps": 5,
    "optimizer.warmup": "2 steps",
}
ADVERSARIAL = {
    "losses.adversarial": 0.5,
    "losses.adversarial_start": "2 steps",
    "losses.discriminator_width": 4,
    "losses.discriminator_layers": 1,
}


def split(examples, *, seed):
    """Images with structure: a slanted edge between two colours."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    angles = rng.uniform(0, 2 * np.pi, (examples, 1, 1))
    above = np.cos(angles) * rows + np.sin(angles) * columns > 0
    colours = rng.integers(0, 256, (2, examples, 1, 1, 3))
    images = np.where(above[..., None], colours[0], colours[1]).astype(np.uint8)
    labels = rng.integers(0, 3, examples).astype(np.int32)
    rows = TokenTable(Rows(images.reshape(examples, -1), labels), are_images=True)
    return Split(rows=rows, name="made_up", digest=str(seed), classes=3)


def config(kind, **overrides):
    module, size, own = KINDS[kind]
    return admit(overlay(module.get_config(size), {**TINY, **own, **overrides}))


def job(tmp_path, kind, *, layout="ddp", devices=8, perceptual=None, **overrides):
    """A job of a tiny tokenizer under a layout of so many devices."""
    place = {"execution.workdir": str(tmp_path), "execution.layout": layout}
    run = config(kind, **{**place, **overrides})
    seen = split(48, seed=0)
    if run.data.augmentation == "flip":
        both = ViewedRows([seen.rows, MirroredImages(seen.rows, (SIDE, SIDE, 3))])
        seen = dataclasses.replace(seen, rows=both)
    images = Images(train=seen, validation=split(37, seed=1))
    made = make_layout(layout, LAYOUTS, jax.devices()[:devices])
    result = TokenizerJob(run, layout=made, images=images, perceptual=perceptual)
    result.directory.mkdir(parents=True, exist_ok=True)
    return result
