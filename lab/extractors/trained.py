"""The extractor of a trained classifier, from its run directory, and extractors by name."""

import dataclasses
import json
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp

from lab.core.canonical import json_sha256
from lab.core.config import ClassifierRunConfig, identity
from lab.core.errors import LabError
from lab.core.finished import read_finished
from lab.core.manifest import leaf_size
from lab.core.store import Store, tree_sha256
from lab.extractors.build import classifier_spec
from lab.extractors.classifier import Classifier, ClassifierSpec, Levels, Running, builder
from lab.extractors.extractor import PRECISION, Extractor, Features, resized
from lab.extractors.inception import open_inception

CHECKPOINTS = "checkpoints"
HEAD = "params/head/weight/value"  # a leaf with a column a class
PREPARATION = "bilinear, half-pixel centres, antialiased"
INCEPTION = "inception:"


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no truth of being equal
class TrainedClassifier:
    """A classifier as an extractor: a pytree of its weights, in float32 on every device."""

    classifier: Classifier
    name: str
    identity: str
    metric: str
    features: int
    classes: int
    side: int  # pixels
    channels: int
    facts: str  # `about`, as JSON: a static part of a pytree must be hashable

    @property
    def about(self) -> dict[str, Any]:
        """Name, identity, metric, run, weights, preparation, data, and accuracy with its
        interval."""
        return json.loads(self.facts)

    def __call__(self, images_BHWC: jax.Array) -> Features:
        """Features and log probabilities of images uint8 (B, R, R, 1 or 3), of any side."""
        levels_BHWC = resized(images_BHWC, side=self.side, channels=self.channels, antialias=True)
        with jax.default_matmul_precision(PRECISION):
            features_BF = self.classifier.features(levels_BHWC)
            logits_BK = self.classifier.logits(features_BF)
        return Features(features_BF, jax.nn.log_softmax(logits_BK.astype(jnp.float32)))


jax.tree_util.register_dataclass(
    TrainedClassifier,
    data_fields=["classifier"],
    meta_fields=["name", "identity", "metric", "features", "classes", "side", "channels", "facts"],
)


def open_extractor(text: str) -> Extractor:
    """The extractor that a flag names: the run directory of a classifier, or `inception:FILE`."""
    if text.startswith(INCEPTION):
        return open_inception(pathlib.Path(text.removeprefix(INCEPTION)))
    if not text:
        raise LabError(
            f'extractor "": the run directory of a classifier, or {INCEPTION}FILE, is expected'
        )
    return open_classifier(pathlib.Path(text))


def open_classifier(directory: pathlib.Path) -> TrainedClassifier:
    """The classifier of a finished run; its average where the run kept one.

    Raises LabError for a directory of anything else, and for a run that has not ended well.
    """
    finished = read_finished(directory, ClassifierRunConfig)
    run = finished.run
    weights = "ema" if run.optimizer.ema_decay else "raw"
    folder = directory / CHECKPOINTS / str(finished.step)
    classes = leaf_size(folder, HEAD, 1, of="classifier")
    spec = classifier_spec(run, classes=classes)
    classifier = _restored(
        directory, spec, part="params" if weights == "raw" else weights, step=finished.step
    )
    preparation = f"{run.images.resolution} {run.images.channels}, {PREPARATION}"
    facts = {
        "name": run.name,
        "identity": json_sha256([tree_sha256(classifier), preparation])[:12],
        "metric": f"fd_{sanitised(run.data.name)}",
        "run": identity(run),
        "weights": weights,
        "preparation": preparation,
        "data": finished.rows[0]["data"],
        "accuracy": _accuracy(directory, finished.rows, weights),
    }
    return TrainedClassifier(
        classifier=classifier,
        name=facts["name"],
        identity=facts["identity"],
        metric=facts["metric"],
        features=spec.features,
        classes=spec.classes,
        side=spec.resolution,
        channels=spec.channels,
        facts=json.dumps(facts, sort_keys=True),
    )


def sanitised(name: str) -> str:
    """A name of a data set as part of the name of a metric: lower case, digits, underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _restored(directory: pathlib.Path, spec: ClassifierSpec, *, part: str, step: int) -> Classifier:
    """Computes in float32 wherever it was trained: features are compared between machines."""
    running = Running(platform=jax.default_backend(), unroll=True)
    nothing = Levels(mean=[0.0] * spec.channels, std=[1.0] * spec.channels)
    like = {part: jax.eval_shape(builder(spec, running, nothing), jax.random.key(0))}
    with Store(directory / CHECKPOINTS, writable=False) as store:
        restored = store.restore(like, step=step, part=True)
    assert restored is not None  # a named step is restored or raises
    return restored.tree[part]


def _accuracy(
    directory: pathlib.Path, rows: list[dict[str, Any]], weights: str
) -> dict[str, float]:
    """On validation images, with its interval and their number, of the last evaluation."""
    found = [r for r in rows if r["kind"] == "evaluation" and r["weights"] == weights]
    if not found:
        raise LabError(f"{directory}: its record has no evaluation of the {weights} weights")
    row = found[-1]
    return {
        "value": row["accuracy"],
        "low": row["accuracy_low"],
        "high": row["accuracy_high"],
        "level": row["accuracy_level"],
        "examples": row["examples"],
    }
