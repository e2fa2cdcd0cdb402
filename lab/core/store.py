"""Checkpoints: written by Orbax in the background, committed whole, verified when restored.

A step is written to a temporary folder, its manifest last, and then renamed: a folder with a
plain number for a name is a committed step, whatever moment the process was killed at. Orbax
notices neither flipped bits nor missing steps, so a restore compares all that it reads with the
manifest and falls back to the newest step that is as it was written.
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from lab.core import manifest as manifests
from lab.core.digest import host_copies, named_leaves, tree_sha256
from lab.core.errors import LabError, NotSaved
from lab.core.manifest import Damaged, Manifest, Metrics
from lab.core.orbax_arrays import read_arrays, write_arrays
from lab.core.step_folders import (
    DELETING,
    REPLACED,
    SAVING,
    make_writable,
    numbered,
    one_line,
    remove_leftovers,
    remove_set_aside,
    set_aside,
    sync,
)

__all__ = ["Restored", "Skipped", "Store", "tree_sha256"]


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A step that was not good, and why."""

    step: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Restored:
    """A step as it was saved, and the newer ones that had to be passed over."""

    step: int
    tree: Any
    metrics: dict[str, Any]
    skipped: tuple[Skipped, ...]


class Store:
    """The checkpoints of one run: `directory`/<step>/.

    Kept are the last `keep_last` steps, and every step that `keep_every` divides (None or 0:
    no more than the last). One process writes; any number may read with `writable=False`.
    Steps in `held` are kept as long as they are in it.
    Opening for writing removes what a killed writer left behind. Use it as a context manager, or
    call `close`: a save that is still running when the interpreter exits is lost.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep_last: int = 1,
        keep_every: int | None = None,
        writable: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`check` is called before a step is committed: what it raises stops that.

        Raises LabError where `directory` cannot be made or written to.
        """
        if keep_last < 1:
            raise LabError(f"keep_last = {keep_last}: at least the last step must be kept")
        self._directory = Path(directory).absolute()
        self._keep_last = keep_last
        self._keep_every = keep_every
        self._writable = writable
        self._check = check
        self.held: frozenset[int] = frozenset()
        self._pending: Future[None] | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._open()

    def _open(self) -> None:
        if self._writable:
            make_writable(self._directory)
            remove_leftovers(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def save(self, step: int, tree: Any, *, metrics: Metrics) -> None:
        """Copy `tree` to the host and return; a thread writes it. A step that exists is replaced.

        Waits for the save before. Raises LabError for that one's failure, for a tree that cannot
        be saved and for metrics that are neither numbers nor strings.
        """
        if not self._writable:
            raise LabError(f"{self._directory}: opened for reading, nothing can be saved")
        if step < 0:
            raise LabError(f"{self._directory}: step {step}: 0 or more is expected")
        self.wait()
        self._pending = self._writer.submit(self._begin(int(step), named_leaves(tree), metrics))

    def _begin(self, step: int, named: dict[str, Any], metrics: Metrics) -> Callable[[], None]:
        """Copy what is to be saved, so that it may change; the rest is the thread's."""
        arrays = host_copies(named)
        check_leaves(arrays, step=step)
        return functools.partial(self._write, step, arrays, manifests.strict_metrics(metrics))

    def wait(self) -> None:
        """Wait for the running save, if any; raises LabError where it failed."""
        if self._pending is None:
            return
        try:
            self._pending.result()
        finally:
            if self._pending.done():  # not so where Ctrl-C cut the waiting short
                self._pending = None

    def close(self) -> None:
        """Wait for the running save and stop the thread; raises LabError where it failed."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def steps(self) -> tuple[int, ...]:
        """The committed steps, ascending."""
        return tuple(s for s in self._folders() if (self._folder(s) / manifests.NAME).is_file())

    def metrics(self, step: int) -> dict[str, Any]:
        """The metrics of one step (numbers that are not finite as strings, "nan", "inf").

        Raises LabError where the step is missing or its manifest is damaged.
        """
        try:
            return manifests.read(self._folder(step)).metrics
        except Damaged as damage:
            raise LabError(f"{self._folder(step)}: {damage}") from None

    def restore(
        self,
        like: Any,
        *,
        step: int | None = None,
        up_to: int | None = None,
        part: bool = False,
    ) -> Restored | None:
        """The newest good step, or the good step `step`, in the structure of `like`.

        With `up_to` no newer step than that one. With `part` the checkpoint may hold more than
        `like`: the rest is left out.

        `like` is a tree of jax.ShapeDtypeStruct or of arrays, and gives every leaf its sharding
        (a numpy leaf stays a numpy array). None where there is no step at all. Steps that are not
        as they were written are passed over and named; where one may write they are set aside, so
        that a step which cannot be read for a while never comes back behind another that was gone
        on from. Raises LabError where none is good, where `step` is not, and where the checkpoint
        is of another tree than `like`.
        """
        self.wait()
        folders = self._candidates()
        if step is not None and step not in folders:
            listed = ", ".join(map(str, folders)) or "none"
            raise LabError(f"{self._directory}: no step {step}; there are {listed}")
        candidates = folders[::-1] if step is None else (step,)
        candidates = [each for each in candidates if up_to is None or each <= up_to]
        skipped: list[Skipped] = []
        for candidate in candidates:
            try:
                manifest = self._read_manifest(candidate)
                tree = self._restore_tree(like, manifest, part=part)
            except Damaged as damage:
                skipped.append(Skipped(candidate, str(damage)))
            else:
                self._set_aside([each.step for each in skipped])
                return Restored(candidate, tree, manifest.metrics, tuple(skipped))
        if not skipped:
            return None
        reasons = "; ".join(f"step {s.step}: {s.reason}" for s in skipped)
        raise LabError(f"{self._directory}: no good checkpoint: {reasons}")

    def _candidates(self) -> tuple[int, ...]:
        return self._folders()

    def _set_aside(self, steps: Iterable[int]) -> None:
        if not self._writable:
            return
        for step in steps:
            try:
                set_aside(self._directory, step)
            except OSError as error:
                raise NotSaved(f"{self._folder(step)}: stays: {one_line(error)}") from error

    def _read_manifest(self, step: int) -> Manifest:
        return manifests.read(self._folder(step))

    def _restore_tree(self, like: Any, manifest: Manifest, *, part: bool) -> Any:
        import jax

        folder = self._folder(manifest.step)
        wanted = named_leaves(like)
        manifests.check_structure(wanted, manifest, folder=folder, part=part)
        manifests.check_files(folder, manifest)
        arrays = self._read_arrays(folder, manifest)
        manifests.check_arrays(arrays, manifest)
        leaves = _place([arrays[path] for path in wanted], list(wanted.values()))
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _write(self, step: int, arrays: dict[str, np.ndarray], metrics: dict[str, Any]) -> None:
        temporary = self._temporary(step)
        try:
            self._write_arrays(temporary, arrays)
            manifest = manifests.describe(temporary, step=step, metrics=metrics, arrays=arrays)
            manifests.write(temporary, manifest)
            self._commit(temporary, step)
        except (OSError, ValueError, RuntimeError) as error:
            raise NotSaved(self._not_saved(step, error)) from error
        self._tidy(step)

    def _write_arrays(self, temporary: Path, arrays: dict[str, np.ndarray]) -> None:
        """Have Orbax write; once more where its deadline passes.

        It goes by the clock of the day, and a jump of it is no slow disk (tools/faults.py).
        """
        try:
            write_arrays(temporary, arrays)
        except TimeoutError:
            shutil.rmtree(temporary, ignore_errors=True)
            write_arrays(temporary, arrays)

    def _read_arrays(self, folder: Path, manifest: Manifest) -> dict[str, np.ndarray]:
        return read_arrays(folder, manifest)

    def _tidy(self, step: int) -> None:
        try:
            self._delete_old(step)
            remove_set_aside(self._directory, up_to=step)
        except OSError as error:
            raise NotSaved(f"{self._directory}: an old step stays: {one_line(error)}") from error

    def _not_saved(self, step: int, error: Exception) -> str:
        """Tidy up after a failed save; one line that says why, whatever else fails meanwhile."""
        line = f"{self._folder(step)}: not saved: {one_line(error)}"
        try:
            remove_leftovers(self._directory, step=step)
            return f"{line}; saved steps: {', '.join(map(str, self.steps())) or 'none'}"
        except LabError as second:
            return f"{line}; then {second}"

    def _commit(self, temporary: Path, step: int) -> None:
        try:
            self._check()
        except LabError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        folder = self._folder(step)
        replaced = self._directory / f"{REPLACED}{step}"
        sync(temporary)
        if folder.exists():
            folder.rename(replaced)  # a kill before the next line: opening puts it back
        temporary.rename(folder)
        sync(self._directory)
        shutil.rmtree(replaced, ignore_errors=True)

    def _delete_old(self, newest: int) -> None:
        """Apply the keep policy to the steps up to `newest`, which was just committed.

        Steps above it are of a run that was set back: they stay until it comes by again.
        """
        committed = set(self.steps())
        good = sorted(step for step in committed if step <= newest)
        last = good[-self._keep_last :]
        for step in self._folders():
            due = step in committed and self._keep_every and step % self._keep_every == 0
            if step < last[0] and not due and step not in self.held:
                self._delete(step)

    def _delete(self, step: int) -> None:
        doomed = self._directory / f"{DELETING}{step}"
        self._folder(step).rename(doomed)  # never a half-deleted step under its number
        shutil.rmtree(doomed)

    def forget_after(self, step: int) -> None:
        """Delete the steps above `step`, newest first: a run was set back, and will save others.

        Waits for the running save. Raises LabError where it failed, or one cannot be deleted.
        """
        self.wait()
        for newer in reversed(self._folders()):
            if newer > step:
                try:
                    self._delete(newer)
                except OSError as error:
                    raise NotSaved(f"{self._folder(newer)}: stays: {one_line(error)}") from error

    def _folder(self, step: int) -> Path:
        return self._directory / str(step)

    def _temporary(self, step: int) -> Path:
        return self._directory / f"{SAVING}{step}"

    def _folders(self) -> tuple[int, ...]:
        if not self._directory.is_dir():
            return ()
        try:
            return tuple(sorted(numbered(self._directory)))
        except OSError as error:
            raise LabError(f"{self._directory}: not readable: {error.strerror}") from error


def check_leaves(leaves: dict[str, Any], *, step: int) -> None:
    """Raises LabError for what a checkpoint cannot hold."""
    if not any(leaf.size for leaf in leaves.values()):
        raise LabError(f"step {step}: the tree holds no values to save")
    for path, leaf in leaves.items():
        if not leaf.dtype.isnative:  # Orbax swaps the bytes: not those of the digest
            raise LabError(f'leaf "{path}" is of {leaf.dtype.str}: only native byte order')


def _place(arrays: list[np.ndarray], like: list[Any]) -> list[Any]:
    """Put every array where its counterpart in `like` lies; a numpy array stays one."""
    import jax

    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    on_device = [i for i, leaf in enumerate(like) if hasattr(leaf, "sharding")]
    # On a CPU these may lie in the memory of the numpy arrays (may_alias=False does not prevent
    # it). A step that donates them is safe: XLA copies such a buffer, and never writes into it.
    placed = jax.device_put(
        [arrays[i] for i in on_device], [like[i].sharding or here for i in on_device]
    )
    leaves: list[Any] = list(arrays)
    for i, leaf in zip(on_device, placed, strict=True):
        leaves[i] = leaf
    return leaves
