"""Digests of arrays and of trees of arrays: of the values, never of how they lie on devices."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from lab.core.errors import LabError


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of any pytree by path ("params/blocks/w"), in the order of its flattening.

    Raises LabError for a leaf that is no array, and for two leaves under one path.
    """
    import jax

    named: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise LabError(f'leaf "{path}" is a {type(leaf).__name__}: only arrays can be saved')
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise LabError(f'leaf "{path}" is of {leaf.dtype}: only plain arrays can be saved')
        if path in named:
            raise LabError(f'leaf "{path}": two leaves of the tree have this path')
        named[path] = leaf
    return named


def host_copies(named: dict[str, Any]) -> dict[str, np.ndarray]:
    """Copies of the global values in host memory, which no later donation can overwrite.

    Raises LabError for an array of which this process holds only a part: lab/core/shared_store.py
    saves those.
    """
    for path, leaf in named.items():
        if not getattr(leaf, "is_fully_addressable", True):
            raise LabError(
                f'leaf "{path}" is spread over several processes: only arrays that one process '
                "holds in full can be saved"
            )
        if hasattr(leaf, "copy_to_host_async"):
            leaf.copy_to_host_async()
    # A CPU array shares its memory with the numpy array it gives out: copy, always.
    return {path: np.array(leaf, copy=True) for path, leaf in named.items()}


def array_digest(array: np.ndarray) -> str:
    """XXH3 (128 bits, hex) of the bytes in row-major order; about the speed of memory."""
    return xxhash.xxh3_128_hexdigest(row_major_bytes(array))


def file_digest(path: Path) -> str:
    """XXH3 (128 bits, hex) of a file's bytes."""
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def tree_sha256(tree: Any) -> str:
    """SHA-256 (hex) of all leaves of a tree: their paths, dtypes, shapes and values.

    The same under every sharding, on any number of processes, and for jax and numpy arrays alike.
    Leaves that lie on several processes are gathered one at a time, by all of them together: a host
    needs room for the largest. Raises LabError as `named_leaves` does.
    """
    total = hashlib.sha256()
    for path, leaf in sorted(named_leaves(tree).items()):
        array = _gathered(leaf)
        total.update(f"{path}\n{array.dtype.name}\n{array.shape}\n".encode())
        total.update(row_major_bytes(array))
    return total.hexdigest()


def _gathered(leaf: Any) -> np.ndarray:
    """The global value of a leaf; where it lies on several processes all of them call this."""
    if getattr(leaf, "is_fully_addressable", True):
        return np.asarray(leaf)
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(leaf, tiled=True)


def row_major_bytes(array: np.ndarray) -> memoryview:
    """The values as bytes, in row-major order; a copy only where they do not lie so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
