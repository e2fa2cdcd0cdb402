"""Prepare a TFDS data set once: atomically, by one process at a time, without TensorFlow."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

from lab.core.errors import LabError
from lab.data.manual import require_network
from lab.data.png import encode_png
from lab.data.progress import Progress, count_examples, silent
from lab.data.recipe import Recipe

_WAIT_S = 0.1


def prepare(recipe: Recipe, data_dir: pathlib.Path, *, progress: Progress = silent) -> Any:
    """The prepared TFDS builder. A kill leaves nothing that loads; a second process waits.

    `progress` is told of the images that are made; what it raises stops this.
    """
    with _quiet():
        final = pathlib.Path(recipe.make_builder(data_dir).data_dir)
        if not final.exists():
            waits = functools.partial(progress, 0, recipe.images)
            with _made_under_lock(data_dir, final, waits) as workshop:
                if not final.exists():
                    draft = recipe.make_builder(workshop)
                    count_examples(draft, total=recipe.images, progress=progress)
                    _download_and_prepare(draft, recipe, data_dir / "downloads")
                    final.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(draft.data_dir, final)
        # A builder reads what is stored when it is made: the first one may be older than the data.
        builder = recipe.make_builder(data_dir)
    _check_format(builder)
    return builder


def _check_format(builder: Any) -> None:
    """Random access needs ArrayRecord; a folder of tfrecords that is already there is an error."""
    stored = [builder.info.file_format, *builder.info.alternative_file_formats]
    names = [entry.value for entry in stored if entry is not None]
    if "array_record" not in names:
        raise LabError(
            f"{builder.data_dir}: stored as {', '.join(names)}; allowed: array_record (prepare it "
            f"again in another data_dir)"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS warns of a configuration made from arguments, and leaves a temporary folder behind each
    builder without data: it makes one before it looks whether its bucket is in use (it is not)."""
    from tensorflow_datasets.core.dataset_info import DatasetInfo

    logger = logging.getLogger("absl")
    level, from_bucket = logger.level, DatasetInfo.initialize_from_bucket
    logger.setLevel(logging.ERROR)
    DatasetInfo.initialize_from_bucket = lambda self: None  # pyrefly: ignore
    try:
        yield
    finally:
        logger.setLevel(level)
        DatasetInfo.initialize_from_bucket = from_bucket


@contextlib.contextmanager
def _made_under_lock(
    data_dir: pathlib.Path, final: pathlib.Path, waits: Callable[[], None]
) -> Iterator[pathlib.Path]:
    """A folder beside the data for drafts, held by one process; the system frees a dead one's."""
    workshop = data_dir / ".preparing" / "-".join(final.relative_to(data_dir).parts)
    try:
        workshop.parent.mkdir(parents=True, exist_ok=True)
        lock = open(workshop.with_name(workshop.name + ".lock"), "w")
    except OSError as error:
        raise LabError(f"{data_dir}: data sets cannot be written here: {error}") from error
    with lock:
        while not _taken(lock):
            waits()
            threading.Event().wait(_WAIT_S)
        shutil.rmtree(workshop, ignore_errors=True)  # what a killed preparation left
        try:
            yield workshop
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def _taken(lock: IO[str]) -> bool:
    """Whether the lock is ours now; to wait inside flock would not see a wish to stop."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _download_and_prepare(builder: Any, recipe: Recipe, download_dir: pathlib.Path) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    tfds.disable_progress_bar()
    # It prints two lines on standard output, which is the launcher's; redirecting the stream would
    # swallow what other threads say meanwhile.
    builder._log_download_bytes = builder._log_download_done = lambda: None
    _encode_arrays_by_pillow(builder.info.features)
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS is None:  # else TFDS says what must lie where
        require_network(builder.url_infos or (), what=builder.name)
    folder = str(recipe.manual_dir) if recipe.manual_dir else None
    try:
        builder.download_and_prepare(
            download_dir=str(download_dir),
            download_config=tfds.download.DownloadConfig(manual_dir=folder),
            file_format="array_record",
        )
    except ModuleNotFoundError as error:
        raise LabError(
            f"{builder.name}: preparing it needs {error.name}, which is not installed; prepare it "
            f"elsewhere (file_format array_record) and point data_dir there"
        ) from error
    except (OSError, DownloadError, NonMatchingChecksumError, AssertionError) as error:
        line = " ".join(str(error).split())[:300]
        raise LabError(
            f"{builder.name}: cannot be prepared: {line}; allowed: a network, or its files in "
            f"data.manual_dir (TFDS_MANUAL_DIR)"
        ) from error


def _encode_arrays_by_pillow(features: Any) -> None:
    """Stock builders give arrays, which TFDS encodes by TensorFlow; give it Pillow instead."""
    from tensorflow_datasets.core.features import image_feature

    for feature in features.values():
        if isinstance(feature, image_feature.Image) and feature.encoding_format != "jpeg":
            feature._image_encoder._encode_image = encode_png


def default_data_dir() -> pathlib.Path:
    """TFDS_DATA_DIR, or .cache/tfds under the current directory."""
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR") or ".cache/tfds").absolute()


def default_manual_dir() -> pathlib.Path | None:
    """TFDS_MANUAL_DIR, or None."""
    found = os.environ.get("TFDS_MANUAL_DIR")
    return pathlib.Path(found).absolute() if found else None
