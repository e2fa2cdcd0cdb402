"""Images drawn for an evaluation: as tokens, a part a batch on the disk until a run is judged.

N images, T positions, S numbers at a position.
"""

import os
import pathlib
import shutil

import numpy as np

from lab.core.canonical import json_sha256
from lab.launch.evaluate_task import Task, Tools
from lab.launch.jobs import make_tokenizer
from lab.launch.sample_job import Wanted, drawn

FOLDER = "draws"  # of a run directory, while it is judged


def draw_key(task: Task) -> str:
    """What the images of a task are known by: all that decides image n, whatever N is."""
    settings = {name: task.settings[name] for name in ("sampler", "seed", "labels")}
    classes = task.reference.identity if settings["labels"] == "data" else ""
    what = {"step": task.trained.step, "weights": task.trained.weights, "classes": classes}
    return json_sha256({**settings, **what})[:12]


def wanted_of(task: Task, tools: Tools) -> Wanted:
    """Classes and numbers of the images of a task: those of the reference, or each as often."""
    count = task.settings["samples"]
    number_N = np.arange(count, dtype=np.int32)
    if task.settings["labels"] == "balanced":
        return Wanted((number_N % task.trained.classes).astype(np.int32), number_N)
    return Wanted(task.reference.labels(count, tools.told("classes")), number_N)


def tokens_of(task: Task, tools: Tools) -> np.ndarray:
    """Tokens (N, T, S) of the images of a task; what an interrupted process drew is not drawn
    again. Raises Stopped between batches where a signal has come.
    """
    folder, total = task.directory / FOLDER / draw_key(task), task.settings["samples"]
    parts = read_parts(folder)
    done, told = sum(map(len, parts)), tools.told("drawing")
    told(min(done, total), total)
    if done >= total:
        return np.concatenate(parts)[:total]
    assert task.sampler is not None  # of every task that draws
    folder.mkdir(parents=True, exist_ok=True)
    for tokens in drawn(
        *(task.trained, make_tokenizer(task.trained.run), wanted_of(task, tools), task.sampler),
        seed=task.settings["seed"],
        batch=tools.batch,
        first=done,
        should_stop=tools.stops,
    ):
        write_part(folder, done, tokens)
        parts.append(tokens)
        done += len(tokens)
        told(done, total)
    return np.concatenate(parts)


def read_parts(folder: pathlib.Path) -> list[np.ndarray]:
    """The parts of a folder from the first image on, as far as none is missing or damaged."""
    parts, done = [], 0
    while (path := _part_path(folder, done)).exists():
        try:
            part = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            break
        if part.ndim != 3 or not len(part):
            break
        parts.append(part)
        done += len(part)
    return parts


def write_part(folder: pathlib.Path, first: int, tokens: np.ndarray) -> None:
    """Write the tokens of the images from `first` on; a reader sees the whole file or none."""
    draft = folder / ".part.npy"
    np.save(draft, tokens)
    os.replace(draft, _part_path(folder, first))


def _part_path(folder: pathlib.Path, first: int) -> pathlib.Path:
    return folder / f"{first:08d}.npy"


def forget_draws(directory: pathlib.Path) -> None:
    """Remove the tokens of a run that is judged."""
    shutil.rmtree(directory / FOLDER, ignore_errors=True)
