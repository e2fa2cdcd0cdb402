"""A classifier's run, set up: images, network, steps and record."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from lab.core.config import ClassifierRunConfig
from lab.core.counts import TRAINING
from lab.core.keys import Stream
from lab.core.layout import Layout
from lab.core.units import StepSize
from lab.extractors.build import classifier_spec
from lab.extractors.classifier import Classifier, Levels, Running, builder
from lab.train.classification import Classifications
from lab.train.classifier_step import LOSS, SMOOTHED, Learner, make_classifier_steps
from lab.train.evaluate import per_image
from lab.train.job import Images, Job, Loss
from lab.train.optimizer import direction
from lab.train.programs import Steps
from lab.train.state import State, initial_state

SCALED_BY = 1024  # training images whose levels set the start of the network's input scale


class ClassifierJob(Job[ClassifierRunConfig]):
    """Training of a classifier on images and their labels.

    The loss of evaluations is the cross-entropy of the label; training minimises it with smoothed
    labels where the config says so, under a name of its own.
    """

    loss = Loss(LOSS, "nats/image of its label")

    def __init__(self, run: ClassifierRunConfig, *, layout: Layout, images: Images) -> None:
        super().__init__(run, layout=layout, images=images)
        self.spec = classifier_spec(run, classes=images.train.classes)
        self.shape = (self.spec.resolution, self.spec.resolution, self.spec.channels)

    @property
    def training_loss(self) -> Loss:
        """The cross-entropy, by a name of its own where labels are smoothed."""
        if not self.run.classifier.label_smoothing:
            return self.loss
        return Loss(SMOOTHED, "nats/image of its smoothed label")

    @property
    def model(self) -> Classifier:
        """The classifier, abstract: shapes without values."""
        return self._bare_state["params"]

    @functools.cached_property
    def step_size(self) -> StepSize:
        """One step in every unit of duration; an image is one token, its label."""
        return StepSize(
            batch_examples=self.run.train.batch_size,
            epoch_examples=len(self.images.train.rows),
            tokens_per_example=1,
            flops_per_token=self._training_flops_per_image,
            parameters=sum(self.model.parameters().values()),
        )

    @property
    def _training_flops_per_image(self) -> float:
        return float(TRAINING * sum(self.model.forward_flops().values()))

    @property
    def loss_limit(self) -> float:
        """`explode_factor` times what knowing nothing loses."""
        return self.run.train.explode_factor * math.log(self.spec.classes)

    @functools.cached_property
    def _make_state(self) -> Callable[[jax.Array], State]:
        running = Running(
            compute_dtype=self.compute_dtype,
            platform=self.platform,
            remat=self.run.execution.remat,
            unroll=self.run.execution.unroll_layers,
        )
        return functools.partial(
            initial_state,
            builder(self.spec, running, self._levels),
            direction(self.run.optimizer),
            ema=self.run.optimizer.ema_decay > 0,
        )

    @functools.cached_property
    def _levels(self) -> Levels:
        """Of the first training images."""
        rows = self.images.train.rows
        first = rows.rows(np.arange(min(SCALED_BY, len(rows)))).tokens
        levels = first.reshape(-1, self.spec.channels).astype(np.float64)
        std = np.maximum(levels.std(axis=0), 1.0)  # a channel may be constant
        return Levels(mean=levels.mean(axis=0).tolist(), std=std.tolist())

    def _make_steps(self) -> Steps:
        learner = Learner(
            optimizer=self.run.optimizer,
            transform=direction(self.run.optimizer),
            loss_key=self.training_loss.key,
            label_smoothing=self.run.classifier.label_smoothing,
        )
        return make_classifier_steps(
            self.layout,
            self._shardings,
            learner,
            guard=self.guard,
            most=self.run.execution.steps_per_dispatch,
        )

    def place(
        self, batch: Mapping[str, np.ndarray], stream: Stream, step: int
    ) -> dict[str, jax.Array]:
        """Images (B, R, R, C) uint8 and labels (B,) on the devices; nothing is random."""
        return self._placed(self.host_batch(batch))

    def host_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Images (B, R, R, C) uint8 and labels (B,)."""
        return {"images": batch["tokens"].reshape(-1, *self.shape), "label": batch["label"]}

    def evaluate(
        self, steps: Steps, params: Any, *, between: Callable[[], None]
    ) -> Classifications:
        """Loss and predicted class of every validation image."""
        columns = per_image(
            lambda batch: steps.evaluate(params, batch), self.validation_batches(), between=between
        )
        return Classifications(columns)

    def amounts(self, step: int) -> dict[str, Any]:
        """Images seen, and training FLOPs."""
        examples = step * self.run.train.batch_size
        return {"examples_seen": examples, "flops": examples * self._training_flops_per_image}

    def counted(self) -> dict[str, Any]:
        """Parameters, and forward FLOPs of an image, by role."""
        roles = {
            "params": self.model.parameters(),
            "forward_flops_per_image": self.model.forward_flops(),
        }
        return {f"{kind}_{role}": n for kind, found in roles.items() for role, n in found.items()}

    def speed(self, step_s: float) -> dict[str, float | None]:
        """Images a second."""
        return {"images_per_s": round(self.run.train.batch_size / step_s, 1)}

    def header(self) -> dict[str, Any]:
        """The first row of the record."""
        run, training = self.run, self.training_loss
        named = {"training_loss": dataclasses.asdict(training)} if training != self.loss else {}
        return {
            "identity": self.identity,
            "study": run.study,
            "name": run.name,
            "seed": run.seed,
            "family": "classifier",
            "size": run.classifier.size,
            **named,
            "compute_dtype": self.compute_dtype,
            "units": {
                "loss": self.loss.unit,
                "params": "count",
                "flops": "count",
                "examples": "count",
            },
            "data": self._data_header(),
            "images": dataclasses.asdict(run.images),
            "classes": self.spec.classes,
            "features": self.spec.features,
            "params": self.model.parameters(),
            "forward_flops_per_image": self.model.forward_flops(),
            "examples_per_step": run.train.batch_size,
            "steps": self.total_steps,
        }
