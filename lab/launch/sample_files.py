"""What a draw of images leaves behind: a labelled grid, and all arrays."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lab.launch.sample_job import Samples

CELL = 64  # pixels of a shown image, at least
GAP, MARGIN = 4, 88  # between images; left of them, for the label of a row
SHADE = 128  # where a part is not kept
FONT_SIZE = 14


def write(directory: pathlib.Path, samples: Samples, about: dict[str, Any], hidden: Any) -> None:
    """Write samples.png and samples.npz, each whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = samples.wanted
    arrays = {
        "images": samples.images,
        "tokens": samples.tokens,
        "classes": wanted.class_N,
        "numbers": wanted.number_N,
        "settings": np.array(json.dumps(about)),
    }
    if wanted.originals is not None:
        arrays["originals"] = wanted.originals
    with (directory / "samples.npz.tmp").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(directory / "samples.npz.tmp", directory / "samples.npz")
    rows, labels = rows_of(samples, hidden)
    picture = grid(rows, labels, heads=() if hidden is None else ("image", "kept", "drawn"))
    with (directory / "samples.png.tmp").open("wb") as file:
        picture.save(file, format="png")
    os.replace(directory / "samples.png.tmp", directory / "samples.png")


def rows_of(samples: Samples, hidden_HW: np.ndarray | None) -> tuple[list[np.ndarray], list[str]]:
    """A row a class; or a row an image that is kept in part, it and its kept part first."""
    wanted = samples.wanted
    if wanted.originals is None:
        classes = list(dict.fromkeys(wanted.class_N.tolist()))
        return (
            [samples.images[wanted.class_N == each] for each in classes],
            [f"class {each}" for each in classes],
        )
    assert hidden_HW is not None
    each = len(samples.images) // len(wanted.originals)
    rows, labels = [], []
    for at, original in enumerate(wanted.originals):
        kept = np.where(hidden_HW[..., None], SHADE, original).astype(np.uint8)
        drawn = samples.images[at * each : (at + 1) * each]
        rows.append(np.concatenate([original[None], kept[None], drawn]))
        labels.append(f"class {wanted.class_N[at * each]}")
    return rows, labels


def grid(rows: Sequence[np.ndarray], labels: Sequence[str], heads: Sequence[str]) -> Any:
    """A picture of rows of images (n, H, W, 1 or 3) uint8, whole multiples larger.

    A label stands left of each row, the heads above the first columns.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = rows[0].shape[1:3]
    factor = max(1, -(-CELL // height))
    step_y, step_x = height * factor + GAP, width * factor + GAP
    above = GAP + (FONT_SIZE + GAP if heads else 0)
    size = (MARGIN + max(len(row) for row in rows) * step_x, above + len(rows) * step_y)
    picture = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    for x, head in enumerate(heads):
        pen.text((MARGIN + x * step_x, GAP), head, fill="black", font=font)
    for y, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = above + y * step_y
        pen.text((GAP, top + (step_y - FONT_SIZE) // 2), label, fill="black", font=font)
        for x, image in enumerate(row):
            large = np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
            colour = np.broadcast_to(large, (*large.shape[:2], 3))
            shown = Image.fromarray(np.ascontiguousarray(colour))
            picture.paste(shown, (MARGIN + x * step_x, top))
    return picture
