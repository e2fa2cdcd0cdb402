"""The manifest of a folder of codes: what it holds, and the digest of every shard."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

from lab.core.canonical import json_sha256
from lab.core.digest import file_digest
from lab.core.errors import LabError
from lab.data.code_format import SCHEMA, CodeSet, DataFacts, TokenizerFacts, code_set

NAME = "manifest.json"
MAKING = ".making"  # what an unfinished folder keeps of its shards; gone when it is finished
PLAN = "plan.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard file: its examples, its length and XXH3 (128 bits, hex) of its bytes."""

    file: str
    examples: int
    bytes: int
    xxh3_128: str


@dataclasses.dataclass(frozen=True)
class CodeManifest:
    """What a finished folder holds. Shard i of S holds examples [N i // S, N (i + 1) // S)."""

    what: CodeSet
    shards: tuple[ShardEntry, ...]

    @property
    def data(self) -> DataFacts:
        """Which images."""
        return self.what.data

    @property
    def tokenizer(self) -> TokenizerFacts:
        """Which tokenizer."""
        return self.what.tokenizer

    @property
    def sha256(self) -> str:
        """Digest of the manifest, and so of every byte of the codes."""
        return json_sha256(self._content())

    def _content(self) -> dict[str, Any]:
        return {**self.what.as_json(), "shards": [dataclasses.asdict(s) for s in self.shards]}

    def write(self, path: pathlib.Path, *, draft: pathlib.Path) -> None:
        """Write through to the disk, by way of `draft`."""
        write_sealed(path, self._content(), draft=draft)


def shard_file(index: int, shards: int) -> str:
    """The name of a shard's file."""
    return f"codes-{index:05d}-of-{shards:05d}.array_record"


def shard_span(examples: int, index: int, shards: int) -> range:
    """The examples of a shard."""
    return range(examples * index // shards, examples * (index + 1) // shards)


def read_manifest(directory: pathlib.Path) -> CodeManifest:
    """Read and check `directory`/manifest.json.

    Raises LabError where it is missing (and says how far the folder is), not as it was written, or
    of another schema.
    """
    path = directory / NAME
    if not path.exists():
        raise LabError(f"{directory}: {_how_far(directory)}")
    content = read_sealed(path)
    if content.get("schema") != SCHEMA:
        raise LabError(f"{path}: schema {content.get('schema')!r}; allowed: {SCHEMA}")
    try:
        what = code_set(content)
        shards = tuple(ShardEntry(**entry) for entry in content["shards"])
    except (LabError, KeyError, TypeError) as error:
        raise LabError(f"{path}: {error}") from None
    for index, entry in enumerate(shards):
        count = len(shard_span(what.data.examples, index, len(shards)))
        if (entry.file, entry.examples) != (shard_file(index, len(shards)), count):
            raise LabError(f"{path}: shard {index} is {entry.file!r} of {entry.examples} examples")
    if not shards:
        raise LabError(f"{path}: no shards")
    return CodeManifest(what, shards)


def _how_far(directory: pathlib.Path) -> str:
    """Why a folder without a manifest is no set of codes, and what finishes it."""
    if not directory.is_dir():
        return "no such folder"
    made = sorted(path.name for path in directory.glob(shard_file(0, 0).replace("00000", "*")))
    try:
        plan = read_sealed(directory / MAKING / PLAN)
    except LabError:
        if not made:
            return f"no codes: no {NAME}, no shards"
        total = int(made[0].removesuffix(".array_record").rpartition("-")[2])
        return f"no {NAME}: {len(made)} of {total} shards are there; encode again"
    return (
        f"half-finished: {len(made)} of {plan['shard_count']} shards are there; to finish it: "
        f"{plan['command']}"
    )


def check_length(directory: pathlib.Path, entry: ShardEntry) -> None:
    """Raise LabError where a shard is missing or of another length."""
    path = directory / entry.file
    if not path.is_file():
        raise LabError(f"{path}: missing; the encode command makes it again")
    size = path.stat().st_size
    if size != entry.bytes:
        raise LabError(
            f"{path}: {size} bytes, {entry.bytes} were written; the encode command makes it again"
        )


def check_shard(directory: pathlib.Path, entry: ShardEntry) -> None:
    """Raise LabError where a shard is not as it was written: reads all of it."""
    check_length(directory, entry)
    path = directory / entry.file
    if file_digest(path) != entry.xxh3_128:
        raise LabError(f"{path}: the digest differs; the encode command makes it again")


def write_sealed(path: pathlib.Path, content: dict[str, Any], *, draft: pathlib.Path) -> None:
    """Write JSON with its own digest, through to the disk, by way of `draft`."""
    with draft.open("w", encoding="utf-8") as file:
        sealed = {**content, "sha256": json_sha256(content)}
        json.dump(sealed, file, indent=1, allow_nan=False)
        file.write("\n")
    put_in_place(draft, path)


def read_sealed(path: pathlib.Path) -> dict[str, Any]:
    """What `write_sealed` was given; raises LabError where the file is not that."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise LabError(f"{path}: not JSON") from None
    if not isinstance(content, dict):
        raise LabError(f"{path}: not a JSON object")
    if content.pop("sha256", None) != json_sha256(content):
        raise LabError(f"{path}: its own digest differs")
    return content


def put_in_place(draft: pathlib.Path, path: pathlib.Path) -> None:
    """Give a written file its name; a power cut leaves the old or the new and no mixture."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
