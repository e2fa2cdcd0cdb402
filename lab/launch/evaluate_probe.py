"""Linear probes of the features of each layer: task "probe".

N images, M of them to test, L blocks, D width.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from lab.launch.evaluate_data import ImageSet
from lab.launch.evaluate_inside import Inside
from lab.launch.evaluate_task import Task, Tools
from lab.metrics.probe import Probe, ridge_probe, sgd_probe
from lab.models.inside import layer_features

PROBES = {"ridge": ridge_probe, "sgd": sgd_probe}


class _Features(NamedTuple):
    layers_LND: np.ndarray
    label_N: np.ndarray


def probe(task: Task, tools: Tools) -> list[dict[str, Any]]:
    """How well a linear map tells the classes from the features of each layer.

    The images have the null class and nothing is hidden. Raises Stopped between batches and
    between layers where a signal has come.
    """
    assert task.train is not None  # of every task of this kind
    inside, settings = Inside(task, tools), task.settings
    train = features_of(inside, task.train, tools, what="features to train", time=settings["time"])
    test = features_of(inside, task.reference, tools, what="features", time=settings["time"])
    told, layers = tools.told(f"{settings['probe']} probe"), len(train.layers_LND)
    found = []
    for layer in range(layers):
        told(layer, layers)
        made = PROBES[settings["probe"]](
            train.layers_LND[layer],
            train.label_N,
            test.layers_LND[layer],
            test.label_N,
            classes=task.trained.classes,
            level=settings["level"],
            seed=settings["seed"],
        )
        found.append(probe_value(made, layer=layer, samples=len(test.label_N)))
    return found


def probe_value(made: Probe, *, layer: int, samples: int) -> dict[str, Any]:
    """A layer's probe as a row holds it; `correct_hex` has a bit an image, for paired tests."""
    return {
        "metric": "probe_top1",
        **dataclasses.asdict(made.top1),
        "method": f"{made.top1.method} over images; the trained map fixed",
        "better": "higher",
        "unit": "share",
        "samples": samples,
        "layer": layer,
        "iterations": made.iterations,
        "penalty": made.penalty,
        "penalty_at_edge": made.penalty_at_edge,
        "gradient_norm": made.gradient_norm,
        "correct_hex": np.packbits(made.correct_M).tobytes().hex(),
    }


def features_of(
    inside: Inside, images: ImageSet, tools: Tools, *, what: str, time: int
) -> _Features:
    """Features of every layer (L + 1, N, D) float32, and the classes."""
    read = jax.jit(lambda model, tokens: layer_features(model, tokens, time=time))
    told, done, parts, labels = tools.told(what), 0, [], []
    told(0, len(images))
    for batch in inside.batches(images):
        parts.append(np.asarray(read(inside.model, batch.tokens_BTS))[:, : batch.count])
        labels.append(np.asarray(batch.label_B)[: batch.count])
        done += batch.count
        told(done, len(images))
    return _Features(np.concatenate(parts, axis=1), np.concatenate(labels))
