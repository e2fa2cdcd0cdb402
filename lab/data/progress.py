"""What preparing tells whoever waits: a callback, so that this room knows no clock and no display.

The callback may raise to stop the preparation, which then leaves nothing behind.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

Progress = Callable[[int, int | None], None]  # images done, images in all (None: not known)
EVERY = 64  # images


def silent(done: int, total: int | None) -> None:
    """For whoever does not watch."""


def count_examples(builder: Any, *, total: int | None, progress: Progress) -> None:
    """Have a TFDS builder tell of the examples that it makes, those of all its splits together."""
    make = builder._generate_examples
    done = 0

    def told(examples: Iterator[Any]) -> Iterator[Any]:
        nonlocal done
        for example in examples:
            if done % EVERY == 0:
                progress(done, total)
            yield example
            done += 1
        progress(done, total)

    @functools.wraps(make)
    def counted(*args: Any, **kwargs: Any) -> Any:
        examples = make(*args, **kwargs)
        return told(examples) if isinstance(examples, Iterator) else examples  # Beam's are none

    builder._generate_examples = counted
