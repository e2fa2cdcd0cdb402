"""Images a second of every family at one size and 256 tokens; the cache against full passes.

    python -m benchmarks.sampling [--size s6] [--images 8] [--only elm mlm] [--json]

Models are as they are before training: the work is the same. Each number is the best of a few
rounds after the compilation; the two that make a ratio take turns. Guidance is on, as in use: the
class and the null class run together. Masked families and diffusions take as many rounds and steps
as their published samplers (lab/launch/sample_settings.py). Tokens: one of 1,024 ids, 2 x 10 bits
for ELM, 24 bits for BiGR, 16 numbers for MAR and its relative, 32 x 32 x 4 latents in patches of 2
for DiT.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.rows import Row, add_flags, named, report, row

TARGET = 10.0  # the cached pass over the full one at 256 tokens
GRID = (16, 16, 1)
ROUNDS, LONG_S = 3, 10.0  # fewer rounds where one takes long


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What a family is measured on, and what its config is told of it."""

    vocabulary: int = 0
    channels: int = 0
    grid: tuple[int, int, int] = GRID
    told: dict[str, int] = dataclasses.field(default_factory=dict)


FAMILIES = {
    "elm": Tokens(vocabulary=1024, told={"subcodes": 2}),
    "llamagen": Tokens(vocabulary=1024),
    "mlm": Tokens(vocabulary=1024),
    "bigr": Tokens(vocabulary=2, told={"subcodes": 24}),
    "mar": Tokens(channels=16),
    "ar_diffusion": Tokens(channels=16),
    "dit": Tokens(channels=4, grid=(32, 32, 1), told={"patch": 2}),
}


def model_and_settings(family: str, size: str) -> tuple[Any, Any]:
    """A model as it is before training, and the usual settings with guidance."""
    import jax

    from lab.core.config import RunConfig, admit
    from lab.launch.sample_settings import settings_of
    from lab.models import families

    about = FAMILIES[family]
    config = importlib.import_module(f"configs.{family}").get_config(size)
    config.model.update(about.told)
    families.fill_sizes(config.model)
    run = admit(config)
    assert isinstance(run, RunConfig)  # these configs are of generators
    tokens = families.Codes(
        vocabulary=about.vocabulary, grid=about.grid, classes=10, channels=about.channels
    )
    platform = jax.devices()[0].platform
    dtype = "float32" if platform == "cpu" else "bfloat16"
    running = families.Running(compute_dtype=dtype, platform=platform)
    model = jax.jit(families.builder(run.model, tokens, running))(jax.random.key(0))
    names = ("schedule", "temperature", "top_k", "top_p", "rounds", "order", "gumbel")
    names += ("gumbel_change", "remask", "pace", "steps", "method")
    flags = argparse.Namespace(guidance=2.0, **dict.fromkeys(names))
    return model, settings_of(flags, run.model, tokens.positions)


def best_s(calls: list[Callable[[], Any]]) -> list[float]:
    """The shortest time of each call, in turns, compiled before."""
    import jax

    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        jax.block_until_ready(call())
    for _ in range(ROUNDS):
        for call, found in zip(calls, times, strict=True):
            began_s = time.perf_counter()
            jax.block_until_ready(call())
            found.append(time.perf_counter() - began_s)
        if sum(map(sum, times)) > LONG_S:
            break
    return [min(found) for found in times]


def measured(family: str, size: str, images: int):
    """Images a second of a family; of an autoregressive one without diffusion the ratio too."""
    import jax
    import jax.numpy as jnp

    from lab.models.heads import CategoricalHead
    from lab.models.orders import RasterOrder
    from lab.sampling import autoregressive
    from lab.sampling.conditions import blank, image_keys
    from lab.sampling.sampler import sample

    model, settings = model_and_settings(family, size)
    label_B, key_B = jnp.arange(images) % 10, image_keys(0, jnp.arange(images))
    calls = [lambda: sample(model, label_B, key_B, settings)]
    compared = isinstance(model.order, RasterOrder) and isinstance(model.head, CategoricalHead)
    if compared:
        full = jax.jit(autoregressive.draw, static_argnames=("settings", "features"))
        tokens_BTS = blank(model, images)
        hidden_BT = jnp.ones(tokens_BTS.shape[:2], bool)
        options = {"settings": settings, "features": autoregressive.Pass.FULL}
        calls.append(lambda: full(model, label_B, key_B, tokens_BTS, hidden_BT, **options))
    times = best_s(calls)
    name = f"{family} {size}, {images} at once"
    rows = [Row(f"{name}: images/s", f"{images / times[0]:.2f}", "", None)]
    if compared:
        rows.append(Row(f"{name}: images/s, full passes", f"{images / times[1]:.2f}", "", None))
        ratio = times[1] / times[0]
        title = f"{name}: cached over full passes"
        rows.append(row(title, ratio, TARGET, best="at least", form=".1f"))
    return rows


def main(argv: list[str]) -> int:
    """Print the rows; 1 where the cache is too slow."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", default="s6", help="of lab/models/sizes.py (s6)")
    parser.add_argument("--images", type=int, default=8, help="drawn at once (8)")
    parser.add_argument("--only", nargs="+", choices=sorted(FAMILIES), help="these families")
    add_flags(parser)
    flags = parser.parse_args(argv)
    parts = [
        named(family, measured, family, flags.size, flags.images)
        for family in flags.only or FAMILIES
    ]
    return report(parts, flags, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
