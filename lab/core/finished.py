"""A finished run, from its directory: its config and its record."""

import dataclasses
import json
import pathlib
from typing import Any, Generic, TypeVar

from lab.core.config import (
    AnyRun,
    ClassifierRunConfig,
    RunConfig,
    TokenizerRunConfig,
    admit,
    identity,
)
from lab.core.errors import LabError
from lab.core.record import read_rows

Run = TypeVar("Run", bound=AnyRun)
NAMES: dict[type, str] = {
    RunConfig: "generator",
    TokenizerRunConfig: "tokenizer",
    ClassifierRunConfig: "classifier",
}


@dataclasses.dataclass(frozen=True)
class Finished(Generic[Run]):
    """A run that has ended well: its config, and the rows of its record."""

    run: Run
    rows: list[dict[str, Any]]

    @property
    def step(self) -> int:
        """The step of its last checkpoint."""
        return self.rows[-1]["step"]


def read_finished(directory: pathlib.Path, kind: type[Run]) -> Finished[Run]:
    """The finished run of a generator, of a tokenizer or of a classifier.

    Raises LabError for a directory of anything else, and for a run that has not ended well.
    """
    run = _read_config(directory, kind)
    rows = read_rows(directory / "record.jsonl")
    if not rows or rows[-1]["kind"] != "end" or rows[-1]["status"] != "finished":
        raise LabError(f"{directory}: this {NAMES[kind]} is not trained to its end; train it first")
    return Finished(run, rows)


def _read_config(directory: pathlib.Path, kind: type[Run]) -> Run:
    path = directory / "config.json"
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        config, given = document["config"], document["identity"]
    except FileNotFoundError:
        raise LabError(
            f"{path}: missing; the run directory of a {NAMES[kind]} is expected"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise LabError(f"{path}: not a config of this laboratory") from None
    run = admit(config)
    if not isinstance(run, kind):
        raise LabError(
            f"{directory}: a {NAMES[type(run)]}'s run; that of a {NAMES[kind]} is expected"
        )
    if identity(run) != given:
        raise LabError(f"{path}: its fields give the identity {identity(run)}, it says {given}")
    return run
