"""Checkpoints on a host's own disk: near and often, beside those that all hosts share.

Every process saves the parts of the state that lie on its devices into a folder of its own, and
waits for nobody. After a restart on the same hosts all go on from the newest step that every one of
them still has as it was written, if it is newer than what is shared; a host that came new has none,
and then none is used. The parts fit the layout that saved them alone.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lab.core.digest import array_digest, host_copies, named_leaves, row_major_bytes
from lab.core.errors import LabError
from lab.core.manifest import Damaged, Manifest, Metrics, hollow, hollow_leaves
from lab.core.peers import Peers
from lab.core.store import Restored, Store

# Two processes may be two saves apart when they die: one that has written a step waits in the next
# save for nobody, and in the update after it for all.
KEPT = 3
PARTS = "parts_digest"  # in a step's metrics: which parts of which leaves it holds


class _PartsStore(Store):
    """Steps written as plain bytes, a file a part: without a word to the other processes.

    Orbax compares the folder's name over all processes by a collective of the devices, and here
    they differ.
    """

    def _write_arrays(self, temporary: Path, arrays: dict[str, np.ndarray]) -> None:
        temporary.mkdir()
        for number, name in enumerate(sorted(arrays)):
            with open(temporary / f"{number}.bin", "wb") as file:
                file.write(row_major_bytes(arrays[name]))
                file.flush()
                os.fsync(file.fileno())

    def _read_arrays(self, folder: Path, manifest: Manifest) -> dict[str, np.ndarray]:
        like = hollow_leaves(manifest)
        return {
            name: _read(folder / f"{number}.bin", like[name])
            for number, name in enumerate(sorted(like))
        }


def _read(path: Path, like: np.ndarray) -> np.ndarray:
    try:
        return np.fromfile(path, np.uint8).view(like.dtype).reshape(like.shape)
    except (OSError, ValueError) as error:
        raise Damaged(f"{path.name}: {error}") from error


class LocalStore:
    """The checkpoints of one process of a run: `directory`/<process>-of-<processes>/<step>/."""

    def __init__(self, directory: Path, peers: Peers) -> None:
        """Raises LabError where `directory` cannot be made or written to."""
        self._passed_over: list[str] = []  # what a restore found not to be good, in words
        self._peers = peers
        self._directory = directory / f"{peers.index}-of-{peers.count}"
        self._store = _PartsStore(self._directory, keep_last=KEPT if peers.count > 1 else 1)

    def save(self, step: int, tree: Any, *, metrics: Metrics) -> None:
        """Copy this process's parts of `tree` and return; a thread writes them."""
        parts = _parts(named_leaves(tree))
        self._store.save(step, parts, metrics={**metrics, PARTS: _digest(parts)})

    def restore(self, like: Any, *, above: int) -> Restored | None:
        """The newest step above `above` that is good on all processes, or None.

        All processes call it together, once.
        """
        wanted = named_leaves(like)
        parts = _hollow_parts(wanted)
        here = [step for step in self._fitting(_digest(parts)) if step > above]
        told = [json.loads(text) for text in self._peers.gather("local-steps", json.dumps(here))]
        for step in sorted(set.intersection(*map(set, told)), reverse=True):
            found, problem = self._read(wanted, parts, step)
            problems = self._peers.gather(f"local-{step}", problem)
            if not any(problems):
                assert found is not None
                import jax

                leaves = [found.tree[path] for path in wanted]
                tree = jax.tree.unflatten(jax.tree.structure(like), leaves)
                return dataclasses.replace(found, tree=tree)
            self._passed_over.append(next(filter(None, problems)))
        return None

    def _fitting(self, digest: str) -> list[int]:
        """Steps whose parts are those of this layout, by what their manifests say."""
        fitting = []
        for step in self._store.steps():
            try:
                if self._store.metrics(step).get(PARTS) == digest:
                    fitting.append(step)
            except LabError as error:
                self._passed_over.append(str(error))
        return fitting

    def _read(
        self, wanted: Mapping[str, Any], parts: dict[str, np.ndarray], step: int
    ) -> tuple[Restored | None, str]:
        """This process's parts, placed; else why not."""
        try:
            found = self._store.restore(parts, step=step)
        except LabError as error:
            return None, str(error)
        assert found is not None  # a step asked for by its number is there or an error
        metrics = {name: value for name, value in found.metrics.items() if name != PARTS}
        tree = {path: _placed(path, leaf, found.tree) for path, leaf in wanted.items()}
        return dataclasses.replace(found, tree=tree, metrics=metrics), ""

    def told(self) -> list[str]:
        """What a restore passed over, a line each; said once."""
        told, self._passed_over = self._passed_over, []
        return told

    def wait(self) -> None:
        """Wait for the running save, if any; raises LabError where it failed."""
        self._store.wait()

    def close(self) -> None:
        """Wait for the running save; raises LabError where it failed."""
        self._store.close()

    def forget_after(self, step: int) -> None:
        """Delete the steps above `step`: the run was set back."""
        self._store.forget_after(step)

    def clear(self) -> None:
        """Delete all: the run has ended, and what is shared has its last state."""
        self._store.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def _where(path: str, index: tuple[slice, ...], shape: tuple[int, ...]) -> str:
    """The name of a part: its leaf and its place in it, "w@0:8,16:32"."""
    ends = (slice_.indices(size) for slice_, size in zip(index, shape, strict=True))
    return f"{path}@{','.join(f'{start}:{stop}' for start, stop, _ in ends)}"


def _parts(leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Copies of the parts on this process's devices, of equal ones the first."""
    found: dict[str, Any] = {}
    for path, leaf in leaves.items():
        for shard in leaf.addressable_shards:
            found.setdefault(_where(path, shard.index, leaf.shape), shard.data)
    return host_copies(found)


def _hollow_parts(wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Shapes and dtypes of the parts that this process will have."""
    found = {}
    for path, leaf in wanted.items():
        size = leaf.sharding.shard_shape(leaf.shape)
        for index in leaf.sharding.addressable_devices_indices_map(leaf.shape).values():
            found[_where(path, index, leaf.shape)] = hollow(size, leaf.dtype)
    return found


def _digest(parts: Mapping[str, np.ndarray]) -> str:
    lines = [f"{name} {part.dtype.name} {part.shape}" for name, part in sorted(parts.items())]
    return array_digest(np.frombuffer("\n".join(lines).encode(), np.uint8))


def _placed(path: str, leaf: Any, parts: Mapping[str, np.ndarray]) -> Any:
    """The leaf made of its parts, each on its device."""
    import jax

    where = leaf.sharding.addressable_devices_indices_map(leaf.shape)
    shards = [
        jax.device_put(parts[_where(path, index, leaf.shape)], device)
        for device, index in where.items()
    ]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)
