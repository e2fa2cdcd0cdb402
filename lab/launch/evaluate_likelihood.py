"""Held-out nats of a checkpoint: task "likelihood"."""

import dataclasses
import math
from typing import Any

import jax

from configs.layouts import LAYOUTS
from lab.core.config import RunConfig
from lab.core.layout import Layout, make_layout
from lab.data.tokens import open_rows
from lab.launch.evaluate_task import Task, Tools, bounded
from lab.launch.jobs import AnyTokenizer, make_tokenizer
from lab.tokenizers.trained import SplitTokenizer
from lab.train.evaluate import mean_and_se
from lab.train.generator_job import GeneratorJob
from lab.train.job import Images, Split

METHOD = "normal, standard error over images"


def likelihood(task: Task, tools: Tools) -> list[dict[str, Any]]:
    """Nats of an image and bits a dimension over the images of a task, as training evaluates them.

    Raises Stopped between batches where a signal has come.
    """
    layout = make_layout("ddp", LAYOUTS, jax.local_devices())
    tokenizer = make_tokenizer(task.trained.run)
    run = evaluated(task.trained.run, layout, draws=task.settings["draws"])
    images = images_of(task, tokenizer, tools)
    job = GeneratorJob(run, layout=layout, tokenizer=tokenizer, images=images)
    model = task.trained.open(job.spec, platform=job.platform)
    batches = -(-len(task.reference) // run.train.evaluation_batch_size)
    told, done = tools.told("likelihood"), 0

    def between() -> None:
        nonlocal done
        done += 1  # each batch is handed out and comes back
        told(done, 2 * batches)

    found = job.evaluate(job.steps(), model, between=between)
    mean, se = mean_and_se(found.nats_per_image)
    per_dim = 1 / (job.spec.dims_per_image * math.log(2))
    about = {
        "method": METHOD,
        "better": "lower",
        "samples": len(task.reference),
        "layer": None,
        "likelihood": str(job.model.likelihood),
    }
    level = task.settings["level"]
    nats = bounded(mean, se, level=level)
    bits = bounded(mean * per_dim, se * per_dim, level=level)
    return [
        {"metric": "loss_nats_per_image", **nats, "unit": "nats/image", **about},
        {"metric": "bits_per_dim", **bits, "unit": "bits/dim", **about},
    ]


def evaluated(run: RunConfig, layout: Layout, *, draws: int) -> RunConfig:
    """The run as this process evaluates it: batches that the devices can share, nothing trained."""
    shards = layout.batch_shards
    size = -(-run.train.evaluation_batch_size // shards) * shards
    return dataclasses.replace(
        run,
        train=dataclasses.replace(
            run.train, batch_size=size, evaluation_batch_size=size, bound_draws=draws
        ),
        execution=dataclasses.replace(run.execution, remat="none"),  # as the model is opened
    )


def images_of(task: Task, tokenizer: AnyTokenizer, tools: Tools) -> Images:
    """The images of a task as rows; a job also wants some to train on, and gets the same."""
    source, run = task.reference.source, task.trained.run
    encoder, are_images = tokenizer, False
    if isinstance(tokenizer, SplitTokenizer) and run.tokenizer.sampled:
        encoder, are_images = tokenizer.trained.frames, True
    rows = open_rows(source, encoder, are_images=are_images, progress=tools.told("tokens"))
    info = source.info
    split = Split(rows=rows, name=info.name, digest=info.digest, classes=info.classes)
    return Images(train=split, validation=split)
