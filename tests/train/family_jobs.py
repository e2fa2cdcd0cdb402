"""Jobs of every family on made-up tokens: no data set is prepared and no tokenizer trained."""

import dataclasses
import types

import jax
import numpy as np

from configs.layouts import LAYOUTS
from lab.core.codes import Alphabet, CodeKind
from lab.core.layout import make_layout
from lab.data.tokens import Rows, TokenTable
from lab.tokenizers.latents import LatentTokenizer
from lab.tokenizers.pixels import Pixels
from lab.tokenizers.spec import TokenSpec
from lab.train.generator_job import GeneratorJob
from lab.train.job import Images, Split
from tests.models.worlds import config

GRID, BITS, CHANNELS = (2, 4), 4, 3
SMALL = {
    "train.batch_size": 8,
    "train.evaluation_batch_size": 16,
    "train.duration": "10 steps",
    "train.log_every_steps": 1,
    "train.evaluate_every_steps": 5,
    "train.bound_draws": 2,
    "optimizer.warmup": "2 steps",
    "optimizer.ema_decay": 0.9,
    "model.class_dropout": 0.2,
}
DROPOUTS = {"model.residual_dropout": 0.1, "model.embedding_dropout": 0.1}
MLP = {"model.mlp_dropout": 0.1}
BIT = {"model.subcodes": BITS, "model.diffusion_steps": 8}
NOISE = {"model.diffusion_steps": 20}


@dataclasses.dataclass(frozen=True)
class World:
    """A family, or a variant of one, and the kind of tokens that it wants."""

    family: str
    size: str
    tokens: str  # "pixels", "bits" or "latents"
    overrides: dict


WORLDS = {
    "elm": World("elm", "s4", "pixels", DROPOUTS | MLP),
    "elm-any": World("elm", "s4", "pixels", {"model.scan": "any"} | DROPOUTS),
    "mlm": World("mlm", "s4", "pixels", DROPOUTS | MLP),
    "mlm-tied": World("mlm", "s4", "pixels", {"model.head": "tied_categorical"}),
    "bigr": World("bigr", "s4", "bits", BIT | DROPOUTS | MLP),
    "bigr-S2": World("bigr", "S2-s4", "bits", BIT),
    "bigr-bce": World("bigr", "bce-s4", "bits", BIT),
    "mar": World("mar", "s4", "latents", NOISE | {"model.residual_dropout": 0.1}),
    "ar_diffusion": World("ar_diffusion", "s4", "latents", NOISE),
    "dit": World("dit", "s4", "latents", NOISE),
    "dit-pixels": World("dit", "s4", "pixels", NOISE | {"model.patch": 2}),
}


@dataclasses.dataclass(frozen=True)
class Bits:
    """A tokenizer of which only the sizes are there."""

    spec = TokenSpec(
        name="made-up bits",
        vocabulary=2,
        tokens_per_image=8,
        subcodes=BITS,
        dims_per_image=96,
        grid=(*GRID, 1),
        identity="bits",
    )


def latents():
    """A tokenizer of latents of which only the sizes are there."""
    trained = types.SimpleNamespace(
        alphabet=Alphabet(CodeKind.GAUSSIAN, CHANNELS),
        latent_std=1.0,
        grid=GRID,
        dims_per_image=96,
        name="made-up latents",
        identity="latents",
    )
    return LatentTokenizer(trained)


def tokens_of(kind, rng, labels):
    """Tokens with structure: neighbours and classes tell of them."""
    images = len(labels)
    if kind == "pixels":
        steps = rng.integers(0, 2, (images, 12)).cumsum(axis=1)
        return ((steps + labels[:, None]) % 8).astype(np.uint8)
    if kind == "bits":
        first = rng.integers(0, 2, (images, 1, BITS))
        flips = rng.random((images, 8, BITS)) < 0.1
        return ((first + flips) % 2).reshape(images, -1).astype(np.uint8)
    mean = rng.normal(size=(images, 1, CHANNELS)) + 0.3 * rng.normal(size=(images, 8, CHANNELS))
    log_variance = np.full_like(mean, -3.0)
    return np.concatenate([mean, log_variance], axis=-1).reshape(images, -1).astype(np.float32)


def split(kind, examples, *, seed):
    """A split of made-up tokens."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, examples).astype(np.int32)
    rows = TokenTable(Rows(tokens_of(kind, rng, labels), labels))
    return Split(rows=rows, name="made_up", digest=str(seed), classes=3)


TOKENIZERS = {
    "pixels": lambda: Pixels(resolution=2, channels="rgb", levels=8),
    "bits": Bits,
    "latents": latents,
}


def family_job(tmp_path, name, *, layout="ddp", devices=8, **overrides):
    """A job of a world under a layout of so many devices."""
    world = WORLDS[name]
    place = {"execution.workdir": str(tmp_path), "execution.layout": layout}
    pixels = {"tokenizer.resolution": 2, "tokenizer.levels": 8}
    given = {**SMALL, **pixels, **world.overrides, **place, **overrides}
    run = config(world.size, world.family, **given)
    images = Images(
        train=split(world.tokens, 48, seed=0), validation=split(world.tokens, 21, seed=1)
    )
    made = make_layout(layout, LAYOUTS, jax.devices()[:devices])
    result = GeneratorJob(run, layout=made, tokenizer=TOKENIZERS[world.tokens](), images=images)
    result.directory.mkdir(parents=True, exist_ok=True)
    return result
