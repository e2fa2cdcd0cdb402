"""Writing a folder of codes: shard by shard, each whole or not there, the manifest last.

While it is made, `.making` holds the plan and, for each shard that is done, what is known of it. A
process that is killed leaves at most a draft there. Whoever writes a shard holds its lock, which
is the launcher's business.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterable
from typing import Any

from lab.core.canonical import json_sha256
from lab.core.digest import file_digest
from lab.core.errors import LabError
from lab.data import code_manifest
from lab.data.code_format import Codes, CodeSet, pack
from lab.data.code_manifest import (
    MAKING,
    NAME,
    PLAN,
    CodeManifest,
    ShardEntry,
    check_length,
    check_shard,
    read_manifest,
    read_sealed,
    shard_file,
    shard_span,
    write_sealed,
)

# Records one by one for random access. Codes are close to uniform: compression gains nothing.
WRITER_OPTIONS = "group_size:1,uncompressed,max_parallelism:1"
SHARD_SCHEMA = "lab.code_shard/1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How a set of codes is made."""

    what: CodeSet
    shards: int
    command: str  # which finishes the folder; not part of what is compared

    def __post_init__(self):
        if not 1 <= self.shards <= self.what.data.examples:
            raise LabError(
                f"{self.shards} shards of {self.what.data.examples} examples; allowed: 1 to "
                f"{self.what.data.examples}"
            )

    def as_json(self) -> dict[str, Any]:
        """What two processes of one folder must agree on."""
        return {**self.what.compared(), "shard_count": self.shards}

    @property
    def digest(self) -> str:
        """The plan's digest, which each shard carries while the folder is made."""
        return json_sha256(self.as_json())

    def span(self, index: int) -> range:
        """The examples of a shard."""
        return shard_span(self.what.data.examples, index, self.shards)

    def file(self, index: int) -> str:
        """The file of a shard."""
        return shard_file(index, self.shards)


def begin(directory: pathlib.Path, plan: Plan) -> None:
    """Take an empty folder for this plan, or check that an unfinished one is of this plan."""
    path = directory / MAKING / PLAN
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        content = {**plan.as_json(), "command": plan.command}
        write_sealed(path, content, draft=_draft(directory, f"plan-{_process()}"))
    _compare(path, read_sealed(path), plan.as_json())


def check_finished(directory: pathlib.Path, plan: Plan) -> CodeManifest:
    """The manifest of a finished folder; raises LabError where it is of other codes."""
    manifest = read_manifest(directory)
    ours = plan.as_json()
    theirs = {**manifest.what.as_json(), "shard_count": len(manifest.shards)}
    _compare(directory / NAME, theirs, ours)
    return manifest


def _compare(path: pathlib.Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise LabError(
                f"{path}: {key} is {_text(theirs.get(key))}, not {_text(value)}; choose another "
                f"--out, or remove the folder"
            )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return str(value)


def write_shard(
    directory: pathlib.Path, plan: Plan, index: int, batches: Iterable[Codes]
) -> ShardEntry:
    """Write a shard from batches of its examples in order, and say that it is done.

    Where a batch raises, nothing is left but what was there before.
    """
    final, draft = directory / plan.file(index), _draft(directory, plan.file(index))
    try:
        count = _write_records(draft, plan.what, batches)
        if count != len(plan.span(index)):
            raise LabError(f"{final}: {count} examples, {len(plan.span(index))} are its share")
        entry = ShardEntry(
            file=final.name,
            examples=count,
            bytes=draft.stat().st_size,
            xxh3_128=file_digest(draft),
        )
        code_manifest.put_in_place(draft, final)
    finally:
        draft.unlink(missing_ok=True)
    _write_entry(directory, plan, index, entry)
    return entry


def _write_records(draft: pathlib.Path, what: CodeSet, batches: Iterable[Codes]) -> int:
    """Write all records; how many they were."""
    from array_record.python.array_record_module import ArrayRecordWriter

    count = 0
    writer = None
    try:
        writer = ArrayRecordWriter(str(draft), WRITER_OPTIONS)
        for batch in batches:
            for record in pack(batch.codes, batch.labels, what):
                writer.write(record.tobytes())
            count += len(batch.codes)
        writer.close()
    except RuntimeError as error:  # a full disk
        line = " ".join(str(error).split())[:200]
        raise LabError(f"{draft}: cannot be written: {line}") from error
    finally:
        if writer is not None and writer.is_open():
            with contextlib.suppress(RuntimeError):
                writer.close()
    return count


def shard_entry(directory: pathlib.Path, plan: Plan, index: int) -> ShardEntry | None:
    """What is known of a shard that is done, from `.making`; None where it is not done.

    Looks at the length of the file and not inside.
    """
    try:
        content = read_sealed(_entry_path(directory, plan, index))
        if content.pop("schema") != SHARD_SCHEMA or content.pop("plan") != plan.digest:
            return None
        entry = ShardEntry(**content)
        check_length(directory, entry)
    except (LabError, KeyError, TypeError):
        return None
    if (entry.file, entry.examples) != (plan.file(index), len(plan.span(index))):
        return None
    return entry


def is_sound(directory: pathlib.Path, plan: Plan, index: int) -> bool:
    """Whether a shard is done and as it was written: reads all of it."""
    entry = shard_entry(directory, plan, index)
    return entry is not None and not _damage(directory, entry)


def shard_count(directory: pathlib.Path, plan: Plan) -> int:
    """How many shards are done."""
    return sum(shard_entry(directory, plan, i) is not None for i in range(plan.shards))


def finish(directory: pathlib.Path, plan: Plan) -> CodeManifest | None:
    """Verify all shards and write the manifest; None where a shard is not done.

    A shard that was damaged since it was written counts as not done from then on, and raises
    LabError. Any number of processes may do this: they write the same bytes.
    """
    found = [shard_entry(directory, plan, index) for index in range(plan.shards)]
    entries = [entry for entry in found if entry is not None]
    if len(entries) < plan.shards:
        if not (directory / NAME).exists():
            return None
        # Another process finished meanwhile, and removed what was known of the shards.
        shutil.rmtree(directory / MAKING, ignore_errors=True)
        return check_finished(directory, plan)
    for index, entry in enumerate(entries):
        message = _damage(directory, entry)
        if message:
            _entry_path(directory, plan, index).unlink(missing_ok=True)
            raise LabError(message)
    manifest = CodeManifest(plan.what, tuple(entries))
    manifest.write(directory / NAME, draft=_draft(directory, f"manifest-{_process()}"))
    shutil.rmtree(directory / MAKING, ignore_errors=True)
    return manifest


def reopen(directory: pathlib.Path, plan: Plan, manifest: CodeManifest) -> list[str]:
    """Make a finished folder with damaged shards an unfinished one without them.

    The messages of what is wrong; empty where all is as it was written, and nothing is touched.
    """
    messages = [_damage(directory, entry) for entry in manifest.shards]
    if any(messages):
        begin(directory, plan)
        for index, entry in enumerate(manifest.shards):
            if not messages[index]:
                _write_entry(directory, plan, index, entry)
        (directory / NAME).unlink(missing_ok=True)
    return [message for message in messages if message]


def _damage(directory: pathlib.Path, entry: ShardEntry) -> str:
    """What is wrong with a shard, or nothing."""
    try:
        check_shard(directory, entry)
    except LabError as error:
        return str(error)
    return ""


def _write_entry(directory: pathlib.Path, plan: Plan, index: int, entry: ShardEntry) -> None:
    content = {"schema": SHARD_SCHEMA, "plan": plan.digest, **dataclasses.asdict(entry)}
    path = _entry_path(directory, plan, index)
    write_sealed(path, content, draft=_draft(directory, path.name))


def _entry_path(directory: pathlib.Path, plan: Plan, index: int) -> pathlib.Path:
    return directory / MAKING / (plan.file(index) + ".json")


def _draft(directory: pathlib.Path, name: str) -> pathlib.Path:
    return directory / MAKING / (name + ".draft")


def _process() -> str:
    """A name that no other process has, on any host of the file system."""
    return f"{os.uname().nodename}-{os.getpid()}"
