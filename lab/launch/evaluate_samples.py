"""Judging images that a generator draws (tasks "fd", "randomness") or its tokenizer gives back.

N images drawn, M of the reference, F features, K classes.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.core.config import ModelConfig
from lab.launch.evaluate_data import model_tokens
from lab.launch.evaluate_draws import draw_key, tokens_of
from lab.launch.evaluate_features import Found, Readers
from lab.launch.evaluate_task import Task, Tools, labelled
from lab.launch.jobs import make_tokenizer
from lab.launch.sample_settings import CHAINS, CODES
from lab.sampling.settings import Settings

if TYPE_CHECKING:
    from lab.extractors.extractor import Extractor
    from lab.metrics.distances import Reference

REAL = "_real"  # ends the name of a metric of real images, which are judged like samples
BACK = "_reconstructed"  # of real images that the tokenizer encoded and decoded


def curve_counts(samples: int) -> tuple[int, ...]:
    """At how many samples distances are measured: an eighth, a quarter, a half, all."""
    return tuple(samples // part for part in (8, 4, 2, 1))


def named(metric: str, extractor: "Extractor") -> str:
    """A metric's name with that of the features: fd_eurosat, kid_eurosat; of Inception fid, kid."""
    if extractor.metric == "fid":
        return metric.replace("fd", "fid", 1)
    data = extractor.metric.removeprefix("fd_")
    return f"{metric}_{data}"


class Judge:
    """Draws images once for all extractors of the same settings, and judges them."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._readers = Readers(tools)
        self._drawn: tuple[str, np.ndarray] | None = None  # the last tokens, and what they are of
        self._real: dict[str, list[dict[str, Any]]] = {}
        self._back: dict[tuple[str, str, str], Found] = {}
        self._references: dict[tuple[str, str], Reference] = {}

    def __call__(self, task: Task) -> list[dict[str, Any]]:
        """The values of a task. Raises Stopped between batches where a signal has come."""
        assert task.extractor is not None and task.real is not None  # of every task of this kind
        real = self._of_real_images(task, task.extractor)
        if task.what == "reconstruction":
            return [*self._judged(task, self._reconstructed(task, task.extractor), BACK), *real]
        found = self._readers.read(
            task.extractor, self._images(task), total=task.settings["samples"]
        )
        return [*self._judged(task, found), *real]

    def _images(self, task: Task) -> Iterator[np.ndarray]:
        """The images drawn for a task, a batch at a time; tokens are kept for other extractors."""
        key = f"{task.directory} {draw_key(task)} {task.settings['samples']}"
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, tokens_of(task, self._tools)
        tokenizer, tokens = make_tokenizer(task.trained.run), self._drawn[1]
        for first in range(0, len(tokens), self._tools.batch):
            part = tokens[first : first + self._tools.batch]
            yield tokenizer.decode(part.reshape(len(part), -1))

    def _reconstructed(self, task: Task, extractor: "Extractor") -> Found:
        """Features of real images after the tokenizer: the same for all runs on one tokenizer."""
        assert task.real is not None
        tokenizer, images = make_tokenizer(task.trained.run), task.real
        key = extractor.identity, images.identity, task.settings["tokenizer"]

        def decoded() -> Iterator[np.ndarray]:
            for first in range(0, len(images), self._tools.batch):
                stop = min(first + self._tools.batch, len(images))
                rows = images.rows(tokenizer, first, stop)
                tokens = model_tokens(tokenizer, rows.tokens)
                yield tokenizer.decode(tokens.reshape(len(tokens), -1))

        if key not in self._back:
            self._back[key] = self._readers.read(extractor, decoded(), total=len(images))
        return self._back[key]

    def _reference(self, task: Task) -> "Reference":
        from lab.metrics.distances import Reference

        extractor = task.extractor
        assert extractor is not None
        key = extractor.identity, task.reference.identity
        if key not in self._references:
            found = self._readers.of_set(extractor, task.reference, workdir_of(task.directory))
            self._references[key] = Reference(
                found.moments, found.features_NF, found.log_probabilities_NK
            )
        return self._references[key]

    def _judged(self, task: Task, found: Found, suffix: str = "") -> list[dict[str, Any]]:
        from lab.metrics.distances import judge

        self._tools.told("judging")(0, None)
        settings, count = task.settings, len(found.features_NF)
        values = judge(
            found.features_NF,
            found.log_probabilities_NK,
            self._reference(task),
            level=settings["level"],
            seed=settings["seed"],
            counts=curve_counts(count),
        )
        assert task.extractor is not None
        names = [named(value.metric, task.extractor) + suffix for value in values]
        rows = labelled(values)
        return [{**row, "metric": name} for row, name in zip(rows, names, strict=True)]

    def _of_real_images(self, task: Task, extractor: "Extractor") -> list[dict[str, Any]]:
        """What as many real images of another split get: the floor at this number."""
        assert task.real is not None
        about = [extractor.identity, task.reference.identity, task.real.identity]
        settings = [task.settings["level"], task.settings["seed"]]
        key = json.dumps([*about, *settings])
        if key not in self._real:
            found = self._readers.of_set(extractor, task.real, workdir_of(task.directory))
            self._real[key] = self._judged(task, found, REAL)
        return self._real[key]


def workdir_of(directory: pathlib.Path) -> pathlib.Path:
    """<workdir> of <workdir>/<study>/<identity>, wherever it lies now."""
    return directory.absolute().parent.parent


def sampler_settings(sampler: Settings, model: ModelConfig) -> dict[str, Any]:
    """The settings of a draw that mean something to a family, as a row holds them."""
    drawing, unmasking = (dataclasses.asdict(each) for each in (sampler.drawing, sampler.unmasking))
    if model.head not in CODES:
        del drawing["top_k"], drawing["top_p"]
    if model.head not in CHAINS:
        del drawing["steps"]
    if not sampler.unmasking.ranked:
        del unmasking["gumbel"], unmasking["gumbel_change"], unmasking["remask"]
    guidance: dict[str, Any] = dataclasses.asdict(sampler.guidance)
    if not sampler.guidance.needed:
        del guidance["schedule"]
    kept: dict[str, Any] = {"guidance": guidance, "drawing": drawing}
    if model.order == "masked":
        kept["unmasking"] = unmasking
    if model.order == "joint":
        kept["method"] = str(sampler.method)
    return json.loads(json.dumps(kept))
