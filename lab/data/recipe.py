"""What a data set's module hands to the door: how to build it, and what the data is."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks of a data set.

    examples is how many images of the split a procedural source makes (None: its default); from a
    real one the door takes the first so many. manual_dir holds files that the user fetched.
    """

    split: str
    examples: int | None
    manual_dir: pathlib.Path | None
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A TFDS builder to be prepared, and the facts that determine every pixel of its images."""

    make_builder: Callable[[pathlib.Path], Any]  # data_dir -> tfds.core.DatasetBuilder
    provenance: dict[str, Any] | None  # JSON; None: take the facts that TFDS recorded
    manual_dir: pathlib.Path | None = None  # for builders that ask TFDS's download manager
    images: int | None = None  # made when it is prepared, all splits together; None: not known
    held_out_tenths: int = 1  # of train, as validation where the data set has no such split
