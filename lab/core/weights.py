"""Weights of others: read from safetensors files only, and assigned to a tree by an explicit map.

A safetensors file is a table of names, dtypes and shapes followed by the bytes of the arrays:
reading one runs nothing. Pickles, which run what they hold, are refused by name and by content.
"""

import collections
import dataclasses
import enum
import hashlib
import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab.core.digest import named_leaves
from lab.core.errors import LabError

PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # zip: PyTorch
NAMED = 3  # leaves of each fault that a message names


class Turn(enum.StrEnum):
    """How their array becomes ours. I inputs, O outputs, H and W a kernel's rows and columns."""

    AS_IS = "as_is"
    CONVOLUTION = "convolution"  # OIHW -> HWIO
    LINEAR = "linear"  # OI -> IO
    POINTWISE_TO_LINEAR = "pointwise_to_linear"  # OI11 -> IO
    LINEAR_TO_POINTWISE = "linear_to_pointwise"  # OI -> 11IO


def _pointwise_to_linear(array: np.ndarray) -> np.ndarray:
    return array.reshape(array.shape[:2]).T


def _linear_to_pointwise(array: np.ndarray) -> np.ndarray:
    return array.T[None, None]


TURNS: dict[Turn, Callable[[np.ndarray], np.ndarray]] = {
    Turn.AS_IS: np.asarray,
    Turn.CONVOLUTION: lambda array: array.transpose(2, 3, 1, 0),
    Turn.LINEAR: np.transpose,
    Turn.POINTWISE_TO_LINEAR: _pointwise_to_linear,
    Turn.LINEAR_TO_POINTWISE: _linear_to_pointwise,
}
THEIR_AXES = {Turn.CONVOLUTION: 4, Turn.LINEAR: 2, Turn.LINEAR_TO_POINTWISE: 2}


@dataclasses.dataclass(frozen=True)
class NamedWeight:
    """One line of a name map: our leaf by path ("decoder/out/weight"), their array, its turn.

    The "/value" that Flax puts at the end of a parameter's path may be left out.
    """

    ours: str
    theirs: str
    turn: Turn = Turn.AS_IS


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """The arrays of a safetensors file by name, and the SHA-256 (hex) of its bytes."""

    path: Path
    sha256: str
    arrays: dict[str, np.ndarray]


def read_weights(path: Path) -> WeightFile:
    """Read a safetensors file whole; bfloat16 stays bfloat16.

    Raises LabError for a file that is absent, a pickle, damaged, or of dtypes without a NumPy
    equal.
    """
    import safetensors

    if not path.is_file():
        raise LabError(f"{path}: no such file; weights are read from a safetensors file")
    content = path.read_bytes()
    _refuse_pickle(path, content)
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise LabError(
            f"{path}: not a whole safetensors file ({error}; {len(content)} bytes); "
            "only safetensors is read, copy or convert it again"
        ) from error
    arrays = {
        name: _array(path, name, entry)
        for name, entry in sorted(entries, key=operator.itemgetter(0))
    }
    return WeightFile(path, hashlib.sha256(content).hexdigest(), arrays)


def assign(
    abstract_tree: Any,
    file: WeightFile,
    names: Sequence[NamedWeight],
    *,
    ignored: tuple[str, ...] = (),
) -> Any:
    """The tree with every leaf filled from the file by the map, NumPy arrays of the leaf's dtype.

    `abstract_tree` holds arrays or ShapeDtypeStructs. Arrays of the file whose names start with
    one of `ignored` may stay unused. Raises one LabError that names what is missing, unused or of
    a wrong shape, the first few of each with their number.
    """
    import jax

    leaves = {_plain(path): leaf for path, leaf in named_leaves(abstract_tree).items()}
    weights = {_plain(weight.ours): weight for weight in names}
    faults = {
        "mapped twice": _repeated(_plain(weight.ours) for weight in names),
        "leaves that the map leaves out": [n for n in leaves if n not in weights],
        "in the map but not in the tree": [n for n in weights if n not in leaves],
        "missing in the file": [w.theirs for w in names if w.theirs not in file.arrays],
        "unused in the file": _unused(file, names, ignored),
        "of a wrong shape or dtype": _misfits(leaves, weights, file),
    }
    if any(faults.values()):
        listed = "; ".join(f"{what}: {_some(found)}" for what, found in faults.items() if found)
        raise LabError(f"{file.path}: the weights do not fit: {listed}")
    filled = [
        np.ascontiguousarray(TURNS[w.turn](file.arrays[w.theirs])).astype(leaf.dtype)
        for leaf, w in ((leaf, weights[name]) for name, leaf in leaves.items())
    ]
    return jax.tree.unflatten(jax.tree.structure(abstract_tree), filled)


def _refuse_pickle(path: Path, content: bytes) -> None:
    if path.suffix.lower() in PICKLE_SUFFIXES or content.startswith(PICKLE_STARTS):
        raise LabError(
            f"{path}: looks like a pickle (PyTorch or other); only safetensors is read, and no "
            "pickle ever is: convert it where it comes from with safetensors.torch.save_file"
        )


def _array(path: Path, name: str, entry: dict[str, Any]) -> np.ndarray:
    import ml_dtypes

    known = {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "I64": np.int64,
        "I32": np.int32,
        "I16": np.int16,
        "I8": np.int8,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }
    if entry["dtype"] not in known:
        allowed = ", ".join(known)
        raise LabError(f'{path}: array "{name}" is of {entry["dtype"]}; allowed are {allowed}')
    dtype = np.dtype(known[entry["dtype"]])
    return np.frombuffer(entry["data"], dtype.newbyteorder("<")).reshape(entry["shape"])


def _plain(path: str) -> str:
    return path.removesuffix("/value")


def _repeated(values: Iterable[str]) -> list[str]:
    return [value for value, count in collections.Counter(values).items() if count > 1]


def _unused(file: WeightFile, names: Sequence[NamedWeight], ignored: tuple[str, ...]) -> list[str]:
    used = {weight.theirs for weight in names}
    return [name for name in file.arrays if name not in used and not name.startswith(ignored)]


def _misfits(
    leaves: dict[str, Any], weights: dict[str, NamedWeight], file: WeightFile
) -> list[str]:
    """What each array that does not fit its leaf is, and what the leaf takes."""
    found = []
    for ours, weight in weights.items():
        if ours not in leaves or weight.theirs not in file.arrays:
            continue
        leaf, array = leaves[ours], file.arrays[weight.theirs]
        told = f"{weight.theirs} {array.dtype}{list(array.shape)} -> {ours}"
        if not _can_turn(array, weight.turn):
            found.append(f"{told} by {weight.turn}")
        elif TURNS[weight.turn](array).shape != tuple(leaf.shape) or (
            _is_real(array.dtype) != _is_real(leaf.dtype)
        ):
            found.append(f"{told} {leaf.dtype}{list(leaf.shape)} by {weight.turn}")
    return found


def _can_turn(array: np.ndarray, turn: Turn) -> bool:
    if turn is Turn.POINTWISE_TO_LINEAR:
        return array.ndim > 2 and array.shape[2:] == (1,) * (array.ndim - 2)
    return array.ndim == THEIR_AXES.get(turn, array.ndim)


def _is_real(dtype: Any) -> bool:
    import jax.numpy as jnp

    return jnp.issubdtype(dtype, jnp.floating)


def _some(found: list[str]) -> str:
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more
