"""From an admitted config to the job that the loop runs: its images, tokenizer and model."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

from lab.core.codes import CodeKind
from lab.core.config import ClassifierRunConfig, DataConfig, RunConfig, TokenizerRunConfig
from lab.core.errors import LabError
from lab.core.layout import Layout
from lab.data.code_shards import CodeShards
from lab.data.progress import Progress
from lab.data.sources import open_source
from lab.data.tokens import (
    Encoder,
    ImageRows,
    MirroredEncoder,
    MirroredImages,
    ViewedRows,
    open_rows,
)
from lab.tokenizers.code_rows import open_code_rows
from lab.tokenizers.latents import LatentTokenizer
from lab.tokenizers.perceptual import load_perceptual
from lab.tokenizers.pixel_bits import PixelBits, pixel_tokenizer
from lab.tokenizers.pixels import Pixels, frames_of
from lab.tokenizers.trained import SplitTokenizer, TrainedTokenizer, open_tokenizer
from lab.train.classifier_job import ClassifierJob
from lab.train.generator_job import GeneratorJob
from lab.train.job import Images, Split
from lab.train.tokenizer_job import TokenizerJob


@dataclasses.dataclass(frozen=True)
class Preparing:
    """What is prepared before the first step, and how many of how many images are done."""

    what: str
    done: int = 0
    total: int | None = None


Watch = Callable[[Preparing], None]
AnyTokenizer = Pixels | PixelBits | SplitTokenizer | LatentTokenizer


def tokenizer_job(run: TokenizerRunConfig, layout: Layout, watch: Watch) -> TokenizerJob:
    """The job of a tokenizer's run."""
    losses = run.losses
    perceptual = load_perceptual(losses.perceptual_file) if losses.perceptual else None
    frames = frames_of(run.images.resolution, run.images.channels)
    images = images_of(run.data, frames, watch, are_images=True)
    return TokenizerJob(run, layout=layout, images=images, perceptual=perceptual)


def classifier_job(run: ClassifierRunConfig, layout: Layout, watch: Watch) -> ClassifierJob:
    """The job of a classifier's run."""
    frames = frames_of(run.images.resolution, run.images.channels)
    images = images_of(run.data, frames, watch, are_images=True)
    return ClassifierJob(run, layout=layout, images=images)


def generator_job(run: RunConfig, layout: Layout, watch: Watch) -> GeneratorJob:
    """The job of a generator's run."""
    tokenizer = make_tokenizer(run)
    if run.tokenizer.codes:
        assert not isinstance(tokenizer, Pixels | PixelBits)  # the door refuses codes of pixels
        images = coded_images(run, tokenizer, watch)
    elif isinstance(tokenizer, SplitTokenizer) and run.tokenizer.sampled:
        images = images_of(run.data, tokenizer.trained.frames, watch, are_images=True)
    else:
        images = images_of(run.data, tokenizer, watch, are_images=False)
    return GeneratorJob(run, layout=layout, tokenizer=tokenizer, images=images)


def make_tokenizer(run: RunConfig) -> AnyTokenizer:
    """The tokenizer that a config names, its bits in as many sub-codes as the model wants."""
    config = run.tokenizer
    if config.name != "trained":
        return pixel_tokenizer(config, run.model.subcodes)
    if not config.run:
        raise LabError(
            f'config.tokenizer.run = "": the run directory of the tokenizer {config.trained} is '
            "needed"
        )
    trained = opened(config.run)
    if trained.run_identity != config.trained:
        raise LabError(
            f'config.tokenizer.run = "{config.run}": holds the run {trained.run_identity}, not '
            f"{config.trained} (config.tokenizer.trained)"
        )
    if config.sampled and trained.alphabet.kind is not CodeKind.BITS:
        raise LabError(
            f"config.tokenizer.sampled = True: only bits can be drawn; {config.run} has "
            f"{trained.alphabet}"
        )
    if trained.alphabet.kind is CodeKind.GAUSSIAN:
        return LatentTokenizer(trained)
    return SplitTokenizer(trained, subcodes=run.model.subcodes, sampled=config.sampled)


@functools.lru_cache(maxsize=4)
def opened(run: str) -> TrainedTokenizer:
    """The trained tokenizer of a run directory, opened once for all runs of this process."""
    return open_tokenizer(pathlib.Path(run))


def coded_images(
    run: RunConfig, tokenizer: SplitTokenizer | LatentTokenizer, watch: Watch
) -> Images:
    """Both splits from the folder that lab.launch.encode wrote."""
    data = run.data
    train, validation = (
        coded_split(
            run, tokenizer, name, told_by(watch, name), examples=examples, augmentation=views
        )
        for name, examples, views in (
            (data.train_split, data.train_examples, data.augmentation),
            (data.validation_split, data.validation_examples, "none"),
        )
    )
    return Images(train=train, validation=validation)


def coded_split(
    run: RunConfig,
    tokenizer: SplitTokenizer | LatentTokenizer,
    name: str,
    told: Callable[[str], Progress],
    *,
    examples: int,
    augmentation: str,
) -> Split:
    """The first `examples` images of a split (0: all) from the folder of codes of a run."""
    data, folder = run.data, pathlib.Path(run.tokenizer.codes)
    shards = CodeShards(folder / name, progress=told("codes"))
    shards.require(tokenizer_identity=tokenizer.trained.identity)
    rows = open_code_rows(
        shards,
        tokenizer,
        examples=examples,
        augmentation=augmentation,
        progress=told("codes to tokens"),
    )
    about = shards.manifest.data
    if about.split != name:
        raise LabError(f"{folder / name}: codes of the split {about.split}, not {name}")
    if about.name.split("/")[0].split(":")[0] != data.name.split("/")[0].split(":")[0]:
        raise LabError(f"{folder / name}: codes of {about.name}, not of {data.name}")
    digest = shards.what.digest_of_first(len(rows))
    return Split(rows=rows, name=about.name, digest=digest, classes=about.classes)


def told_by(watch: Watch, split: str) -> Callable[[str], Progress]:
    """From what is prepared of a split to what is told how much of it is done."""
    return lambda what: lambda done, total: watch(Preparing(f"{split} {what}", done, total))


_KEPT: dict[tuple[DataConfig, str, bool], Images] = {}
_MOST_KEPT = 2


def images_of(data: DataConfig, encoder: AnyTokenizer, watch: Watch, *, are_images: bool) -> Images:
    """Both splits, encoded once for all runs of this process that share them."""
    key = (data, encoder.identity, are_images)
    if key not in _KEPT:
        parts = [
            (data.train_split, data.train_examples, data.augmentation),
            (data.validation_split, data.validation_examples, "none"),
        ]
        train, validation = (
            _split(data, encoder, name, examples, watch, augmentation=views, are_images=are_images)
            for name, examples, views in parts
        )
        while len(_KEPT) >= _MOST_KEPT:
            del _KEPT[next(iter(_KEPT))]  # the oldest
        _KEPT[key] = Images(train=train, validation=validation)
    return _KEPT[key]


def _split(
    data: DataConfig,
    encoder: AnyTokenizer,
    name: str,
    examples: int,
    watch: Watch,
    *,
    augmentation: str,
    are_images: bool,
) -> Split:
    told = told_by(watch, name)
    source = open_source(
        data.name,
        split=name,
        examples=examples or None,
        data_dir=data.data_dir or None,
        manual_dir=data.manual_dir or None,
        progress=told("images"),
    )
    info = source.info

    def opened_rows(encoder: Encoder) -> ImageRows:
        return open_rows(source, encoder, are_images=are_images, progress=told("tokens"))

    rows = opened_rows(encoder)
    if augmentation == "flip":
        mirrored = (
            MirroredImages(rows, encoder.spec.grid)
            if are_images
            else opened_rows(MirroredEncoder(encoder))
        )
        rows = ViewedRows([rows, mirrored])
    return Split(rows=rows, name=info.name, digest=info.digest, classes=info.classes)
