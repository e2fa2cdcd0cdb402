"""Images drawn from a trained generator in batches of one size.

B images of a batch, T positions, S numbers at a position.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lab.core.errors import LabError, Stopped
from lab.core.layout import data_layout
from lab.data.sources import open_source
from lab.launch.jobs import AnyTokenizer
from lab.sampling.conditions import Known, image_keys
from lab.sampling.sampler import sample
from lab.sampling.settings import Settings
from lab.tokenizers.latents import LatentTokenizer
from lab.train.trained_generator import Trained


class Wanted(NamedTuple):
    """What is to be drawn: a class and a number of each image, and what is kept of another."""

    class_N: np.ndarray
    number_N: np.ndarray
    known: Known | None = None
    originals: np.ndarray | None = None  # the images (M, H, W, C) uint8 that are kept in part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """Images with their tokens."""

    images: np.ndarray  # (N, H, W, C) uint8
    tokens: np.ndarray  # (N, T, S)
    wanted: Wanted
    first_batch_s: float  # with the compilation
    images_per_s: float | None  # of the batches after the first, where there are any


def by_class(classes: Sequence[int], per_class: int, all_classes: int) -> Wanted:
    """`per_class` images of each class: number n of class c has the number n C + c of all."""
    class_N = np.repeat(np.asarray(classes, np.int32), per_class)
    nth_N = np.tile(np.arange(per_class, dtype=np.int32), len(classes))
    return Wanted(class_N, nth_N * all_classes + class_N)


def painted_in(
    trained: Trained,
    tokenizer: AnyTokenizer,
    *,
    split: str,
    images: Sequence[int],
    each: int,
    keep: str,
) -> Wanted:
    """`each` completions of some images of a split, of which a part is kept (`hidden_part`)."""
    data = trained.run.data
    sizes = {
        data.train_split: data.train_examples,
        data.validation_split: data.validation_examples,
    }
    source = open_source(
        data.name,
        split=split,
        examples=sizes.get(split) or None,
        data_dir=data.data_dir or None,
        manual_dir=data.manual_dir or None,
    )
    for number in images:
        if not 0 <= number < len(source):
            raise LabError(f"--images {number}: {split} has the images 0 to {len(source) - 1}")
    examples = source.read(images)
    pictures = np.stack([example["image"] for example in examples])
    hidden_T = hidden_part(keep, tokenizer.spec.grid)
    rows = tokenizer.encode(pictures)
    if isinstance(tokenizer, LatentTokenizer):  # the mean, not a draw
        rows = rows.reshape(len(rows), -1, 2 * tokenizer.channels)[..., : tokenizer.channels]
    tokens_MTS = rows.reshape(len(rows), len(hidden_T), -1)
    label_M = np.array([example["label"] for example in examples], np.int32)
    nth_N = np.tile(np.arange(each), len(images))
    number_N = nth_N * len(source) + np.repeat(np.asarray(images), each)
    tokens_NTS = np.repeat(tokens_MTS, each, axis=0)
    dtype = np.float32 if isinstance(tokenizer, LatentTokenizer) else np.int32
    return Wanted(
        np.repeat(label_M, each),
        number_N.astype(np.int32),
        Known(tokens_NTS.astype(dtype), np.tile(hidden_T, (len(number_N), 1))),
        tokenizer.decode(tokens_MTS.reshape(len(tokens_MTS), -1)),
    )


def hidden_part(keep: str, grid: tuple[int, int, int]) -> np.ndarray:
    """Which positions (T,) are drawn where a side, like "top:0.5", is kept."""
    side, _, share_text = keep.partition(":")
    rows, columns, slots = grid
    try:
        share = float(share_text)
    except ValueError:
        share = -1.0
    length = {"top": rows, "bottom": rows, "left": columns, "right": columns}.get(side)
    if length is None or not 0 < share < 1 or not 0 < round(share * length) < length:
        raise LabError(
            f"--keep {keep}: expected is top, bottom, left or right and a share that keeps some of "
            f"{rows} x {columns} cells and not all, like top:0.5"
        )
    kept = round(share * length)
    hidden = np.ones((rows, columns, slots), bool)
    where = {
        "top": np.s_[:kept],
        "bottom": np.s_[rows - kept :],
        "left": np.s_[:, :kept],
        "right": np.s_[:, columns - kept :],
    }
    hidden[where[side]] = False
    return hidden.reshape(-1)


def draw(
    trained: Trained,
    tokenizer: AnyTokenizer,
    wanted: Wanted,
    settings: Settings,
    *,
    seed: int,
    batch: int,
    progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
    devices: Sequence[jax.Device] | None = None,
) -> Samples:
    """All images, in batches of one size. Raises Stopped between batches."""
    total, done, found, ended_s = len(wanted.class_N), 0, [], []
    began_s = time.monotonic()
    for tokens in drawn(
        *(trained, tokenizer, wanted, settings),
        seed=seed,
        batch=batch,
        should_stop=should_stop,
        devices=devices,
    ):
        found.append(tokens)
        ended_s.append(time.monotonic())
        done += len(tokens)
        progress(done, total)
    tokens = np.concatenate(found)
    later_s = ended_s[-1] - ended_s[0]
    later = (total - len(found[0])) / later_s if len(ended_s) > 1 else None
    return Samples(
        images=tokenizer.decode(tokens.reshape(total, -1)),
        tokens=tokens,
        wanted=wanted,
        first_batch_s=ended_s[0] - began_s,
        images_per_s=later,
    )


def drawn(
    trained: Trained,
    tokenizer: AnyTokenizer,
    wanted: Wanted,
    settings: Settings,
    *,
    seed: int,
    batch: int,
    should_stop: Callable[[], bool],
    first: int = 0,
    devices: Sequence[jax.Device] | None = None,
) -> Iterator[np.ndarray]:
    """Tokens (b, T, S) of one batch after another, of the images from `first` on.

    The last batch is filled up, so that one program draws all; what fills it up is left out. The
    batch is split over the devices, all of this host's unless told otherwise. Raises Stopped
    between batches.
    """
    layout = data_layout(devices or jax.local_devices())
    size = -(-batch // layout.batch_shards) * layout.batch_shards
    model = trained.open(tokenizer.spec, platform=jax.local_devices()[0].platform)
    model = jax.device_put(model, layout.replicated())
    total = len(wanted.class_N)
    for start in range(first, total, size):
        if should_stop():
            raise Stopped
        part = np.minimum(np.arange(start, start + size), total - 1)
        label_B, number_B = (
            jax.device_put(each[part], layout.batch_sharding())
            for each in (wanted.class_N, wanted.number_N)
        )
        key_B = image_keys(seed, number_B)
        with jax.sharding.use_abstract_mesh(layout.abstract_mesh):  # what loops carry is split
            tokens = sample(model, label_B, key_B, settings, _part(wanted, part))
        yield np.asarray(tokens)[: total - start]


def _part(wanted: Wanted, part: np.ndarray) -> Known | None:
    if wanted.known is None:
        return None
    return Known(wanted.known.tokens_BTS[part], wanted.known.hidden_BT[part])


def described(trained: Trained, settings: Settings, **more: Any) -> dict[str, Any]:
    """All that decides the images, for samples.npz and for JSON."""
    return {
        "schema": "lab.samples/1",
        "run": str(trained.directory),
        "identity": trained.directory.name,
        "name": trained.run.name,
        "family": trained.run.model.family,
        "size": trained.run.model.size,
        "step": trained.step,
        "weights": trained.weights,
        "settings": dataclasses.asdict(settings),
        **more,
    }
