"""From flags to the tasks of an evaluation: runs x steps x what is measured x settings."""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lab.core.config import RunConfig
from lab.core.errors import LabError
from lab.core.finished import read_finished
from lab.data.sources import Source
from lab.launch.evaluate_data import ImageSet, Sources, frames_seen
from lab.launch.evaluate_flags import LEAST_IMAGES, sampling_flags
from lab.launch.evaluate_samples import curve_counts, sampler_settings
from lab.launch.evaluate_task import Task
from lab.launch.jobs import AnyTokenizer, make_tokenizer
from lab.launch.sample_settings import settings_of
from lab.metrics.probe import PENALTY_RANGE
from lab.sampling.settings import Settings
from lab.train.trained_generator import Trained, find_trained, kept_steps

if TYPE_CHECKING:
    from lab.extractors.extractor import Extractor

SAMPLES = {"fd": 1024, "reconstruction": 1024, "randomness": 512}
PROBE_IMAGES = 4096
ATTENTION_IMAGES = 256


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A run directory of a study that is not evaluated, and why."""

    directory: pathlib.Path
    reason: str


def find_runs(paths: Sequence[str]) -> tuple[list[pathlib.Path], list[LeftOut]]:
    """Run directories that are named, and of a study's those of finished generators.

    Raises LabError for a named run that is not one, and where there is none at all.
    """
    found: dict[pathlib.Path, pathlib.Path] = {}
    left_out = []
    for text in paths:
        path = pathlib.Path(text)
        if (path / "config.json").exists():
            read_finished(path, RunConfig)
            found.setdefault(path.resolve(), path)
            continue
        below = sorted([*path.glob("*/config.json"), *path.glob("*/*/config.json")])
        if not below:
            raise LabError(f"{path}: neither a run directory nor a folder of them")
        for directory in (each.parent for each in below):
            try:
                read_finished(directory, RunConfig)
                found.setdefault(directory.resolve(), directory)
            except LabError as error:
                left_out.append(LeftOut(directory, str(error)))
    if not found:
        raise LabError(f"{', '.join(paths)}: no finished generator; {left_out[0].reason}")
    return list(found.values()), left_out


def steps_of(directory: pathlib.Path, wanted: str) -> list[int | None]:
    """Which checkpoints: the last (None), all that are kept, or those that are named."""
    if wanted == "last":
        return [None]
    if wanted == "all":
        return list(kept_steps(directory))
    return [int(step) for step in wanted.split(",")]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A checkpoint that is evaluated, with its tokenizer."""

    trained: Trained
    tokenizer: AnyTokenizer

    def images(self, source: Source) -> ImageSet:
        """Images as its tokenizer sees them."""
        return ImageSet(source, frames_seen(self.tokenizer))


class Planner:
    """Makes the tasks of a checkpoint; refuses what can be refused before anything is computed."""

    def __init__(
        self, flags: argparse.Namespace, sources: Sources, extractors: Sequence["Extractor"]
    ) -> None:
        self._flags = flags
        self._sources = sources
        self._extractors = extractors
        self._kinds: dict[str, Callable[[Subject], Iterator[Task]]] = {
            "fd": self._fd,
            "reconstruction": self._reconstruction,
            "randomness": self._randomness,
            "probe": self._probe,
            "attention": self._attention,
            "likelihood": self._likelihood,
        }

    def tasks(self, directories: Sequence[pathlib.Path]) -> list[Task]:
        """All tasks, each once; those of one checkpoint and setting stand together."""
        flags, found = self._flags, {}
        for directory in directories:
            for step in steps_of(directory, flags.steps):
                trained = find_trained(directory, weights=flags.weights or "", step=step)
                subject = Subject(trained, make_tokenizer(trained.run))
                for what in flags.what:
                    for task in self._kinds[what](subject):
                        found.setdefault((directory, task.key), task)
        return list(found.values())

    def _fd(self, subject: Subject) -> Iterator[Task]:
        return self._judged(subject, "fd", [{}])

    def _randomness(self, subject: Subject) -> Iterator[Task]:
        return self._judged(subject, "randomness", self._flags.grid)

    def _judged(
        self, subject: Subject, what: str, points: Sequence[dict[str, Any]]
    ) -> Iterator[Task]:
        flags, samples = self._flags, self._flags.samples or SAMPLES[what]
        reference, floor = self._reference(subject, samples)
        for point in points:
            sampler = self._sampler(subject, point)
            for extractor in self._extractors:
                yield Task(
                    trained=subject.trained,
                    what=what,
                    settings={
                        "sampler": sampler_settings(sampler, subject.trained.run.model),
                        "seed": flags.seed,
                        "samples": samples,
                        "labels": flags.labels,
                        "level": flags.level,
                        "counts": list(curve_counts(samples)),
                        "kid_counts": list(curve_counts(samples)),
                        "real": floor.about(),
                    },
                    extractor=extractor,
                    reference=reference,
                    sampler=sampler,
                    real=floor,
                )

    def _reconstruction(self, subject: Subject) -> Iterator[Task]:
        """What the tokenizer alone makes of as many real images."""
        flags = self._flags
        samples = flags.samples or SAMPLES["reconstruction"]
        reference, floor = self._reference(subject, samples)
        for extractor in self._extractors:
            yield Task(
                trained=subject.trained,
                what="reconstruction",
                settings={
                    "tokenizer": subject.tokenizer.identity,
                    "seed": flags.seed,
                    "samples": len(floor),
                    "level": flags.level,
                    "counts": list(curve_counts(len(floor))),
                    "kid_counts": list(curve_counts(len(floor))),
                    "real": floor.about(),
                },
                extractor=extractor,
                reference=reference,
                real=floor,
            )

    def _reference(self, subject: Subject, samples: int) -> tuple[ImageSet, ImageSet]:
        """What is judged against, and as many real images of another split as there are samples."""
        flags, data = self._flags, subject.trained.run.data
        reference = self._sources.first(
            data, flags.reference, flags.reference_images, flag="--reference-images"
        )
        other = "validation" if flags.reference == "train" else "train"
        real = self._sources.at_most(data, other, samples)
        for name, source in ((flags.reference, reference), (other, real)):
            if len(source) < LEAST_IMAGES:
                raise LabError(
                    f"{subject.trained.directory}: {data.name} has {len(source)} {name} images; "
                    f"at least {LEAST_IMAGES} are needed to judge by"
                )
        return subject.images(reference), subject.images(real)

    def _sampler(self, subject: Subject, point: dict[str, Any]) -> Settings:
        positions = subject.tokenizer.spec.tokens_per_image
        flags = sampling_flags(self._flags, point)
        try:
            return settings_of(flags, subject.trained.run.model, positions)
        except LabError as error:
            line = str(error).replace("--steps", "--diffusion-steps")
            raise LabError(f"{subject.trained.directory}: {line}") from None

    def _held_out(self, subject: Subject, usual: int | None) -> ImageSet:
        """The images of --split: as many as --images, or as is usual where there are so many."""
        flags, data = self._flags, subject.trained.run.data
        if flags.images or not usual:
            source = self._sources.first(data, flags.split, flags.images, flag="--images")
        else:
            source = self._sources.at_most(data, flags.split, usual)
        return subject.images(source)

    def _probe(self, subject: Subject) -> Iterator[Task]:
        flags, data = self._flags, subject.trained.run.data
        images = flags.probe_images or PROBE_IMAGES
        train = subject.images(self._sources.at_most(data, "train", images))
        if flags.split == "train":
            raise LabError("--split train: a probe is trained on it; allowed: validation, test")
        yield Task(
            trained=subject.trained,
            what="probe",
            settings={
                "probe": flags.probe,
                **({"penalties": PENALTY_RANGE} if flags.probe == "ridge" else {}),
                "train_images": len(train),
                "train_identity": train.identity,
                "time": self._time(subject),
                "seed": flags.seed,
                "level": flags.level,
            },
            reference=self._held_out(subject, PROBE_IMAGES),
            train=train,
        )

    def _attention(self, subject: Subject) -> Iterator[Task]:
        yield Task(
            trained=subject.trained,
            what="attention",
            settings={"time": self._time(subject), "level": self._flags.level},
            reference=self._held_out(subject, ATTENTION_IMAGES),
        )

    def _time(self, subject: Subject) -> int:
        model, time = subject.trained.run.model, self._flags.time
        if time and (model.order != "joint" or time >= model.diffusion_steps):
            allowed = f"0 to {model.diffusion_steps - 1}" if model.order == "joint" else "0"
            raise LabError(f"{subject.trained.directory}: --time {time}: allowed is {allowed}")
        return time

    def _likelihood(self, subject: Subject) -> Iterator[Task]:
        run, flags = subject.trained.run, self._flags
        usual = run.data.validation_examples or None if flags.split == "validation" else None
        yield Task(
            trained=subject.trained,
            what="likelihood",
            settings={"draws": flags.draws or run.train.bound_draws, "level": flags.level},
            reference=self._held_out(subject, usual),
        )
