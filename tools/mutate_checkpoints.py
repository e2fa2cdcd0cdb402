"""Damage checkpoints at random and count how the store answers.

    python tools/mutate_checkpoints.py --mutations 1000 --seed 0

Two good steps are saved; every mutation changes one or two files of the newer one (its manifest
and Orbax's metadata included), then the newest step is restored. Exit code 1 where an answer is
silently wrong, is no clear error, or the process dies or hangs. With --as-large the files that
hold array values are known to the manifest by their length alone, as those above its size limit
are, so that only the digests of the values stand between a flipped bit and the weights.
"""

import argparse
import dataclasses
import enum
import faulthandler
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OLDER, NEWER = 10, 20
HANG_S = 60.0  # of one mutation; a restore here takes some hundredths of a second
READY = "ready"


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
    RAISED = "other error"
    DIED = "crash or hang"


BAD = (Outcome.WRONG, Outcome.RAISED, Outcome.DIED)


@dataclasses.dataclass(frozen=True)
class Result:
    """One mutation (its index and the seed make it again), the answer, and what was said."""

    index: int
    mutation: Mutation
    outcome: Outcome
    detail: str


Table = Counter[tuple[Mutation, Outcome]]


def run(
    mutations: int,
    *,
    seed: int,
    directory: Path,
    as_large: bool = False,
    kinds: Sequence[Mutation] = tuple(Mutation),
) -> Table:
    """Counts by mutation and outcome, in this process: any other error passes through."""
    indices = range(mutations)
    return tabulate(damage(indices, seed=seed, directory=directory, as_large=as_large, kinds=kinds))


def tabulate(results: Iterable[Result]) -> Table:
    """Counts by mutation and outcome."""
    return Counter((result.mutation, result.outcome) for result in results)


def damage(
    indices: Iterable[int],
    *,
    seed: int,
    directory: Path,
    as_large: bool = False,
    kinds: Sequence[Mutation] = tuple(Mutation),
) -> Iterator[Result]:
    """Damage a copy of the checkpoints and restore it, once for every index; kinds in turn."""
    pristine, damaged = directory / "pristine", directory / "damaged"
    trees = {step: _tree(step) for step in (OLDER, NEWER)}
    if not pristine.exists():
        _save(pristine, trees, as_large=as_large)
    for index in indices:
        shutil.rmtree(damaged, ignore_errors=True)  # of a process that died
        shutil.copytree(pristine, damaged)
        mutation = kinds[index % len(kinds)]
        file = mutate(damaged, mutation, random.Random(f"{seed}/{index}"))
        answer, said = outcome(damaged, trees)
        yield Result(index, mutation, answer, f"{file}: {said}")


def mutate(directory: Path, mutation: Mutation, rng: random.Random) -> str:
    """Apply `mutation` to a random file of the newer step (a swap: with one of either step)."""
    files = _files(directory / str(NEWER))
    file = rng.choice(files)
    content = bytearray(file.read_bytes())
    match mutation:
        case Mutation.DELETE:
            file.unlink()
        case Mutation.SWAP:
            other = rng.choice(rng.choice([files, _files(directory / str(OLDER))]))
            file.write_bytes(other.read_bytes())
            other.write_bytes(content)
        case Mutation.TRUNCATE:
            file.write_bytes(content[: rng.randrange(max(len(content), 1))])
        case Mutation.ZERO:
            file.write_bytes(bytes(len(content)))
        case Mutation.FLIP:
            if content:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(content)
    return file.relative_to(directory).as_posix()


def _files(folder: Path) -> list[Path]:
    """All files, by size: TensorStore names some at random, and a seed must mean the same."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: (path.stat().st_size, path))


def outcome(directory: Path, trees: dict[int, Any]) -> tuple[Outcome, str]:
    """Restore the newest step and judge the answer against the trees that were saved."""
    from lab.core.errors import LabError
    from lab.core.store import Store

    store = Store(directory, writable=False)
    try:
        restored = store.restore(trees[NEWER])
    except LabError as error:
        clear = "\n" not in str(error) and f"step {NEWER}: " in str(error)
        return Outcome.STOPPED if clear else Outcome.RAISED, str(error)
    if restored is None or not _same(restored.tree, trees[restored.step]):
        return Outcome.WRONG, "other values"
    if restored.metrics != _metrics(restored.step):
        return Outcome.WRONG, "other metrics"
    if restored.step == NEWER:
        return Outcome.WRONG if restored.skipped else Outcome.HARMLESS, str(restored.skipped)
    named = [skipped.step for skipped in restored.skipped if skipped.reason]
    return Outcome.FELL_BACK if named == [NEWER] else Outcome.WRONG, str(restored.skipped)


def supervise(
    flags: argparse.Namespace, directory: Path, *, worker: Sequence[str] = (__file__,)
) -> list[Result]:
    """All results; a process of its own does the work, and another goes on where it died."""
    results: list[Result] = []
    while len(results) < flags.mutations:
        answered, death = _work(flags, directory, first=len(results), worker=worker)
        results += answered
        if not death:
            continue
        # One that died after its last answer died of that one.
        index = min(len(results), flags.mutations - 1)
        mutation = tuple(Mutation)[index % len(Mutation)]
        raised = death.startswith("Traceback")
        outcome = Outcome.RAISED if raised else Outcome.DIED
        results[index:] = [Result(index, mutation, outcome, death.splitlines()[-1])]
    return results


def _work(
    flags: argparse.Namespace, directory: Path, *, first: int, worker: Sequence[str]
) -> tuple[list[Result], str]:
    """The results of one process, and what it said when it died ("": it finished)."""
    arguments = [f"--mutations={flags.mutations}", f"--seed={flags.seed}"]
    arguments += [f"--first={first}", f"--directory={directory}"]
    arguments += ["--as-large"] if flags.as_large else []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        child = subprocess.run(
            [sys.executable, *worker, *arguments],
            cwd=ROOT,
            env={"JAX_PLATFORMS": "cpu", **os.environ},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        errors.seek(0)
        said = errors.read().strip()
    ready, *lines = child.stdout.splitlines() or [""]
    if ready != READY:
        raise SystemExit(f"error: the checkpoints to damage could not be saved: {said}")
    death = said[said.rfind("Traceback") :] if "Traceback" in said and child.returncode > 0 else ""
    death = death or f"exit code {child.returncode}"
    return [_parse(line) for line in lines], death if child.returncode else ""


def _parse(line: str) -> Result:
    index, mutation, answer, detail = json.loads(line)
    return Result(index, Mutation(mutation), Outcome(answer), detail)


def answer_lines(flags: argparse.Namespace) -> None:
    """The worker: one line of JSON for each mutation. One that hangs ends the process."""
    directory = Path(flags.directory)
    made = list(damage((), seed=flags.seed, directory=directory, as_large=flags.as_large))
    print(READY, *made, flush=True)
    indices = range(flags.first, flags.mutations)
    faulthandler.enable()
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    for result in damage(indices, seed=flags.seed, directory=directory, as_large=flags.as_large):
        print(json.dumps(dataclasses.astuple(result)), flush=True)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
    faulthandler.cancel_dump_traceback_later()


def show(results: list[Result], *, title: str) -> None:
    """The table, one mutation a line, with totals; then every bad answer."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid

    counts = tabulate(results)
    grid = Grid("mutation", title=title, show_footer=True)
    grid.columns[0].footer = "all"
    for answer in Outcome:
        total = str(sum(counts[mutation, answer] for mutation in Mutation))
        grid.add_column(answer, justify="right", footer=total)
    for mutation in Mutation:
        grid.add_row(mutation, *(str(counts[mutation, answer]) for answer in Outcome))
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(grid)
    for bad in (result for result in results if result.outcome in BAD):
        console.print(escape(f"{bad.index}: {bad.mutation}: {bad.outcome}: {bad.detail}"))


def as_json(results: list[Result], **about: Any) -> str:
    """Counts by mutation and outcome, and every bad answer."""
    counts = tabulate(results)
    table = {m: {o: counts[m, o] for o in Outcome} for m in Mutation}
    bad = [dataclasses.asdict(result) for result in results if result.outcome in BAD]
    return json.dumps({**about, "counts": table, "bad": bad}, indent=1)


def _tree(step: int) -> dict[str, Any]:
    """A run state: 26 thousand parameters and their two moments."""
    import jax.numpy as jnp

    rng = np.random.default_rng(step)

    def params() -> dict[str, Any]:
        return {
            "embedding": jnp.asarray(rng.normal(size=(256, 64)), jnp.float32),
            "w": jnp.asarray(rng.normal(size=(64, 128)), jnp.float32),
            "half": jnp.asarray(rng.normal(size=(32, 64)), jnp.bfloat16),
        }

    return {"params": params(), "opt": [params(), params()], "step": jnp.int32(step)}


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


def parse() -> argparse.Namespace:
    """The flags; those of the worker are not listed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as-large", action="store_true", help="no digests of files with values")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.mutations < 1:
        parser.error(f"--mutations {flags.mutations}: at least 1")
    return flags


def main() -> int:
    """Print the table; 1 where an answer was bad."""
    flags = parse()
    if flags.directory:
        answer_lines(flags)
        return 0
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        results = supervise(flags, Path(directory))
    elapsed_s = time.monotonic() - began_s
    about = {"mutations": flags.mutations, "seed": flags.seed, "as_large": flags.as_large}
    if flags.json:
        print(as_json(results, **about, elapsed_s=round(elapsed_s, 1)))
    else:
        large = ", as large" if flags.as_large else ""
        show(results, title=f"{flags.mutations} mutations, seed {flags.seed}{large}")
        print(f"{elapsed_s:.0f} s")
    return int(any(result.outcome in BAD for result in results))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
