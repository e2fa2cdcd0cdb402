"""The manifest of a checkpoint: what a committed step holds, with digests of all of it."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab.core.canonical import json_sha256
from lab.core.digest import array_digest, file_digest
from lab.core.errors import LabError

NAME = "manifest.json"
SCHEMA = "lab.checkpoint/1"
# Array data above this size is known by its length alone: its values are digested leaf by leaf
# after reading, and to read the file twice would cost more than the whole verification may.
WHOLE_FILE_BYTES = 4 * 2**20


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of a list that falls to one of several processes."""

    index: int
    count: int

    def of(self, names: Sequence[str]) -> list[str]:
        """Every `count`th name, from `index` on."""
        return list(names[self.index :: self.count])


ALL = Share(0, 1)
Metrics = Mapping[str, float | int | str | np.generic]


class Damaged(Exception):
    """A step that is not as it was written; the message says what and where."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What was committed: metrics, and digests of leaves and files by name."""

    step: int
    metrics: dict[str, Any]
    digests: dict[str, dict[str, Any]]  # leaf path: shape, dtype, xxh3_128 (null: by the files)
    files: dict[str, dict[str, Any]]  # path in the folder: bytes, xxh3_128 (null: length only)


def describe(
    folder: Path, *, step: int, metrics: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> Manifest:
    """The manifest of `arrays` (the values in memory) and of the files as they lie in `folder`."""
    return Manifest(
        step=step,
        metrics=metrics,
        digests={path: _describe_array(array) for path, array in arrays.items()},
        files={name: _describe_file(folder / name) for name in _files(folder)},
    )


def describe_share(folder: Path, share: Share) -> dict[str, dict[str, Any]]:
    """One process's share of the files, each with the digest of all its bytes."""
    return {name: _describe_file(folder / name, whole=True) for name in share.of(_files(folder))}


def describe_shared(
    folder: Path,
    shares: Sequence[Mapping[str, dict[str, Any]]],
    *,
    step: int,
    metrics: dict[str, Any],
    leaves: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> Manifest:
    """The manifest of what several processes wrote and described.

    A leaf in `arrays` (the values in memory) has a digest of its values. The others lie in parts
    on several processes: what vouches for them are the files.
    """
    files = {name: found for share in shares for name, found in share.items()}
    for name in _files(folder):  # one that another machine did not see yet
        files.setdefault(name, _describe_file(folder / name, whole=True))
    digests = {
        path: _describe_array(arrays[path])
        if path in arrays
        else {"shape": list(leaf.shape), "dtype": leaf.dtype.name, "xxh3_128": None}
        for path, leaf in leaves.items()
    }
    return Manifest(step=step, metrics=metrics, digests=digests, files=dict(sorted(files.items())))


def strict_metrics(metrics: Metrics) -> dict[str, Any]:
    """Metrics as strict JSON has them: a number that is not finite becomes a string.

    A NumPy scalar becomes Python's. Raises LabError for what is neither a number nor a string.
    """
    strict: dict[str, Any] = {}
    for name, given in metrics.items():
        value = given.item() if isinstance(given, np.generic) else given
        if not isinstance(value, (int, float, str)):
            raise LabError(
                f"metrics.{name} = {value!r}: a number or a string is expected, "
                f"{type(given).__name__} given"
            )
        finite = not isinstance(value, float) or math.isfinite(value)
        strict[name] = value if finite else str(value)
    return strict


def write(folder: Path, manifest: Manifest) -> None:
    """Write `folder`/manifest.json through to the disk."""
    content = {"schema": SCHEMA, **dataclasses.asdict(manifest)}
    with (folder / NAME).open("w", encoding="utf-8") as file:
        json.dump({**content, "sha256": json_sha256(content)}, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> Manifest:
    """Read and check `folder`/manifest.json.

    Raises Damaged where it is missing or not what was written, LabError for another schema.
    """
    content = _read_json(folder / NAME)
    given = content.pop("sha256", None)
    if given != json_sha256(content):
        raise Damaged(f"{NAME}: its own digest differs")
    if content.pop("schema", None) != SCHEMA:
        raise LabError(f"{folder / NAME}: another schema than {SCHEMA}")
    manifest = Manifest(**content)
    if str(manifest.step) != folder.name:
        raise Damaged(f"{NAME}: is that of step {manifest.step}")
    return manifest


def leaf_size(folder: Path, leaf: str, axis: int, *, of: str) -> int:
    """The length of an axis of a committed leaf, without reading its values.

    Raises LabError where the folder is damaged or is no checkpoint `of` what has such a leaf.
    """
    try:
        return read(folder).digests[leaf]["shape"][axis]
    except Damaged as damage:
        raise LabError(f"{folder}: {damage}") from None
    except (KeyError, TypeError, IndexError):
        raise LabError(f"{folder}: not a checkpoint of a {of} of this laboratory") from None


def check_structure(
    wanted: Mapping[str, Any], manifest: Manifest, *, folder: Path, part: bool
) -> None:
    """Raise LabError where the checkpoint is of another tree than `wanted`, shapes by leaf path.

    With `part` it may hold more.
    """
    saved = {p: digest for p, digest in manifest.digests.items() if p in wanted or not part}
    odd = f"{folder}: the checkpoint is of another tree: leaf"
    for path in sorted(set(wanted) | set(saved)):
        if path not in saved:
            raise LabError(f'{odd} "{path}" is not in it')
        if path not in wanted:
            raise LabError(f'{odd} "{path}" is in it and not expected')
        expected = (list(wanted[path].shape), np.dtype(wanted[path].dtype).name)
        found = (saved[path]["shape"], saved[path]["dtype"])
        if found != expected:
            raise LabError(f'{odd} "{path}" is {_kind(*found)} in it, {_kind(*expected)} expected')


def _kind(shape: list[int], dtype: str) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"


def check_files(folder: Path, manifest: Manifest, *, share: Share = ALL) -> None:
    """Raise Damaged at the first file that is missing, of another length or of other bytes."""
    for name in share.of(sorted(manifest.files)):
        path, expected = folder / name, manifest.files[name]
        try:
            size = path.stat().st_size
            digest = file_digest(path) if expected["xxh3_128"] else None
        except OSError as error:
            raise Damaged(f"{name}: {error.strerror}") from error
        if size != expected["bytes"]:
            raise Damaged(f"{name}: {size} bytes, {expected['bytes']} were written")
        if digest != expected["xxh3_128"]:
            raise Damaged(f"{name}: the digest differs")


def check_arrays(arrays: Mapping[str, np.ndarray], manifest: Manifest) -> None:
    """Raise Damaged at the first leaf whose shape, dtype or values are not those written."""
    if set(arrays) != set(manifest.digests):
        raise Damaged(f'leaf "{min(set(arrays) ^ set(manifest.digests))}": missing or not expected')
    for path, array in arrays.items():
        check_array(path, array, manifest)


def check_array(path: str, array: np.ndarray, manifest: Manifest) -> None:
    """Raise Damaged where a leaf is not as it was written; some have no digest of their values."""
    expected = manifest.digests[path]
    if list(array.shape) != expected["shape"] or array.dtype.name != expected["dtype"]:
        raise Damaged(f'leaf "{path}": the shape or dtype differs')
    if expected["xxh3_128"] and array_digest(array) != expected["xxh3_128"]:
        raise Damaged(f'leaf "{path}": the digest of its values differs')


def empty_leaves(manifest: Manifest) -> dict[str, np.ndarray]:
    """The leaves without values, which Orbax does not hold."""
    return {path: leaf.copy() for path, leaf in hollow_leaves(manifest).items() if not leaf.size}


def placeholders(manifest: Manifest) -> dict[str, np.ndarray]:
    """A hollow array for each leaf with values: its shape and dtype, no memory."""
    return {path: leaf for path, leaf in hollow_leaves(manifest).items() if leaf.size}


def hollow_leaves(manifest: Manifest) -> dict[str, np.ndarray]:
    """A hollow array for each leaf, with values or without."""
    return {
        path: hollow(digest["shape"], digest["dtype"]) for path, digest in manifest.digests.items()
    }


def hollow(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array of this shape and dtype that takes no memory; it cannot be written to."""
    return np.broadcast_to(np.zeros((), np.dtype(dtype)), shape)


def _describe_array(array: np.ndarray) -> dict[str, Any]:
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "xxh3_128": array_digest(array),
    }


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _describe_file(path: Path, *, whole: bool = False) -> dict[str, Any]:
    size = path.stat().st_size
    # Orbax: d/ holds array data
    whole = whole or path.parent.name != "d" or size <= WHOLE_FILE_BYTES
    return {"bytes": size, "xxh3_128": file_digest(path) if whole else None}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Damaged(f"{NAME} is missing: the step was never committed") from None
    except OSError as error:
        raise Damaged(f"{NAME}: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise Damaged(f"{NAME}: not JSON") from None
    if not isinstance(content, dict):
        raise Damaged(f"{NAME}: not a JSON object")
    return content
