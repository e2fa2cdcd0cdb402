"""Damage checkpoints at random and count how the store answers.

    python tools/mutate_checkpoints.py --mutations 1000 --seed 0

Two good steps are saved; every mutation changes one or two files of the newer one (its manifest
and Orbax's metadata included), then the newest step is restored. Exit code 1 where an answer is
silently wrong. With --as-large the files that hold array values are known to the manifest by
their length alone, as those above its size limit are, so that only the digests of the values
stand between a flipped bit and the weights.
"""

import argparse
import enum
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OLDER, NEWER = 10, 20


class Mutation(enum.StrEnum):
    """What happens to a file."""

    FLIP = "flip a bit"
    TRUNCATE = "truncate"
    DELETE = "delete"
    SWAP = "swap two files"
    ZERO = "zero"


class Outcome(enum.StrEnum):
    """How the store answers."""

    HARMLESS = "right values"
    FELL_BACK = "fell back"
    STOPPED = "clear stop"
    WRONG = "SILENTLY WRONG"


Table = Counter[tuple[Mutation, Outcome]]


def run(mutations: int, *, seed: int, directory: Path, as_large: bool = False) -> Table:
    """Counts by mutation and outcome; any other error than LabError passes through."""
    pristine = directory / "pristine"
    trees = {step: _tree(step) for step in (OLDER, NEWER)}
    _save(pristine, trees, as_large=as_large)
    rng = random.Random(seed)
    table: Table = Counter()
    for _ in range(mutations):
        damaged = directory / "damaged"
        shutil.copytree(pristine, damaged)
        mutation = rng.choice(list(Mutation))
        mutate(damaged, mutation, rng)
        table[mutation, outcome(damaged, trees)] += 1
        shutil.rmtree(damaged)
    return table


def mutate(directory: Path, mutation: Mutation, rng: random.Random) -> None:
    """Apply `mutation` to a random file of the newer step (a swap: with one of either step)."""
    files = sorted(path for path in (directory / str(NEWER)).rglob("*") if path.is_file())
    file = rng.choice(files)
    content = bytearray(file.read_bytes())
    match mutation:
        case Mutation.DELETE:
            file.unlink()
        case Mutation.SWAP:
            older = sorted(path for path in (directory / str(OLDER)).rglob("*") if path.is_file())
            other = rng.choice(rng.choice([files, older]))
            file.write_bytes(other.read_bytes())
            other.write_bytes(content)
        case Mutation.TRUNCATE:
            file.write_bytes(content[: rng.randrange(len(content) + 1)])
        case Mutation.ZERO:
            file.write_bytes(bytes(len(content)))
        case Mutation.FLIP:
            if content:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(content)


def outcome(directory: Path, trees: dict[int, Any]) -> Outcome:
    """Restore the newest step and judge the answer against the trees that were saved."""
    from lab.core.errors import LabError
    from lab.core.store import Store

    store = Store(directory, writable=False)
    try:
        restored = store.restore(trees[NEWER])
    except LabError as error:
        clear = "\n" not in str(error) and f"step {NEWER}: " in str(error)
        return Outcome.STOPPED if clear else Outcome.WRONG
    if restored is None or not _same(restored.tree, trees[restored.step]):
        return Outcome.WRONG
    if restored.metrics != _metrics(restored.step):
        return Outcome.WRONG
    if restored.step == NEWER:
        return Outcome.WRONG if restored.skipped else Outcome.HARMLESS
    named = [skipped.step for skipped in restored.skipped if skipped.reason]
    return Outcome.FELL_BACK if named == [NEWER] else Outcome.WRONG


def as_text(table: Table) -> str:
    """The table, one mutation a line, with totals."""
    lines = [f"{'':16}" + "".join(f"{outcome:>16}" for outcome in Outcome)]
    for mutation in Mutation:
        counts = "".join(f"{table[mutation, outcome]:16}" for outcome in Outcome)
        lines.append(f"{mutation:16}{counts}")
    totals = (sum(table[mutation, outcome] for mutation in Mutation) for outcome in Outcome)
    return "\n".join([*lines, f"{'all':16}" + "".join(f"{total:16}" for total in totals)])


def _tree(step: int) -> dict[str, Any]:
    import jax.numpy as jnp

    rng = np.random.default_rng(step)
    return {
        "params": {
            "w": jnp.asarray(rng.normal(size=(16, 24)), jnp.float32),
            "half": jnp.asarray(rng.normal(size=(8, 8)), jnp.bfloat16),
        },
        "opt": [jnp.zeros((16, 24)), jnp.asarray(rng.normal(size=(300,)), jnp.float32)],
        "step": jnp.int32(step),
    }


def _metrics(step: int) -> dict[str, Any]:
    return {"loss_nats_per_token": 1 / step, "tokens": step * 1000, "split": "validation"}


def _save(directory: Path, trees: dict[int, Any], *, as_large: bool) -> None:
    from lab.core import manifest
    from lab.core.store import Store

    limit = -1 if as_large else manifest.WHOLE_FILE_BYTES
    with mock.patch.object(manifest, "WHOLE_FILE_BYTES", limit):
        with Store(directory, keep_last=2) as store:
            for step, tree in trees.items():
                store.save(step, tree, metrics=_metrics(step))


def _same(tree: Any, expected: Any) -> bool:
    import jax

    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True)
    return jax.tree.structure(tree) == jax.tree.structure(expected) and all(
        a.dtype == b.dtype
        and a.shape == b.shape
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in pairs
    )


def main() -> int:
    """Print the table; 1 where an answer was silently wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as-large", action="store_true", help="no digests of files with values")
    flags = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        table = run(
            flags.mutations, seed=flags.seed, directory=Path(directory), as_large=flags.as_large
        )
    print(as_text(table))
    print(f"{flags.mutations} mutations, seed {flags.seed}, {time.monotonic() - start:.0f} s")
    return int(any(table[mutation, Outcome.WRONG] for mutation in Mutation))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
