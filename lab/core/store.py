"""Checkpoints: written by Orbax in the background, committed whole, verified when restored.

A step is written to a temporary folder, its manifest last, and then renamed: a folder with a
plain number for a name is a committed step, whatever moment the process was killed at. Orbax
notices neither flipped bits nor missing steps, so a restore compares all that it reads with the
manifest and falls back to the newest step that is as it was written.
"""

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from lab.core import manifest as manifests
from lab.core.digest import host_copies, named_leaves, tree_sha256
from lab.core.errors import LabError
from lab.core.manifest import Damaged, Manifest, Metrics

__all__ = ["Restored", "Skipped", "Store", "tree_sha256"]

# What a killed process may leave behind. The dot keeps them out of every listing of steps.
_SAVING, _REPLACED, _DELETING = ".saving-", ".replaced-", ".deleting-"
_LATE_READS_S = 0.1


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
    ) -> None:
        """Raises LabError where `directory` cannot be made or written to."""
        if keep_last < 1:
            raise LabError(f"keep_last = {keep_last}: at least the last step must be kept")
        self._directory = Path(directory).absolute()
        self._keep_last = keep_last
        self._keep_every = keep_every
        self._writable = writable
        self._damaged: set[int] = set()  # steps that a restore found not to be good
        self._pending: Future[None] | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        if writable:
            _make_writable(self._directory)
            _remove_leftovers(self._directory)

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
        arrays = host_copies(named_leaves(tree))
        if not any(array.size for array in arrays.values()):
            raise LabError(f"step {step}: the tree holds no values to save")
        for path, array in arrays.items():
            if not array.dtype.isnative:  # Orbax swaps the bytes: not those of the digest
                raise LabError(f'leaf "{path}" is of {array.dtype.str}: only native byte order')
        strict = manifests.strict_metrics(metrics)
        self._pending = self._writer.submit(self._write, int(step), arrays, strict)

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

    def restore(self, like: Any, *, step: int | None = None, part: bool = False) -> Restored | None:
        """The newest good step, or the good step `step`, in the structure of `like`.

        With `part` the checkpoint may hold more than `like`: the rest is left out.

        `like` is a tree of jax.ShapeDtypeStruct or of arrays, and gives every leaf its sharding
        (a numpy leaf stays a numpy array). None where there is no step at all. Steps that are not
        as they were written are passed over and named. Raises LabError where none is good, where
        `step` is not, and where the checkpoint is of another tree than `like`.
        """
        self.wait()
        folders = self._folders()
        if step is not None and step not in folders:
            listed = ", ".join(map(str, folders)) or "none"
            raise LabError(f"{self._directory}: no step {step}; there are {listed}")
        candidates = folders[::-1] if step is None else (step,)
        skipped: list[Skipped] = []
        for candidate in candidates:
            try:
                manifest = manifests.read(self._folder(candidate))
                tree = self._restore_tree(like, manifest, part=part)
            except Damaged as damage:
                skipped.append(Skipped(candidate, str(damage)))
                self._damaged.add(candidate)
            else:
                return Restored(candidate, tree, manifest.metrics, tuple(skipped))
        if not skipped:
            return None
        reasons = "; ".join(f"step {s.step}: {s.reason}" for s in skipped)
        raise LabError(f"{self._directory}: no good checkpoint: {reasons}")

    def _restore_tree(self, like: Any, manifest: Manifest, *, part: bool) -> Any:
        import jax

        folder = self._folder(manifest.step)
        wanted = named_leaves(like)
        _check_structure(wanted, manifest, folder=folder, part=part)
        manifests.check_files(folder, manifest)
        arrays = _read_arrays(folder, manifest)
        manifests.check_arrays(arrays, manifest)
        leaves = _place([arrays[path] for path in wanted], list(wanted.values()))
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _write(self, step: int, arrays: dict[str, np.ndarray], metrics: dict[str, Any]) -> None:
        temporary = self._directory / f"{_SAVING}{step}"
        try:
            _write_arrays(temporary, arrays)
            manifest = manifests.describe(temporary, step=step, metrics=metrics, arrays=arrays)
            manifests.write(temporary, manifest)
            self._commit(temporary, step)
        except (OSError, ValueError, RuntimeError) as error:
            raise LabError(self._not_saved(step, error)) from error
        self._damaged.discard(step)
        try:
            self._delete_old(step)
        except OSError as error:
            raise LabError(f"{self._directory}: an old step stays: {_one_line(error)}") from error

    def _not_saved(self, step: int, error: Exception) -> str:
        """Tidy up after a failed save; one line that says why, whatever else fails meanwhile."""
        line = f"{self._folder(step)}: not saved: {_one_line(error)}"
        try:
            _remove_leftovers(self._directory)
            return f"{line}; saved steps: {', '.join(map(str, self.steps())) or 'none'}"
        except LabError as second:
            return f"{line}; then {second}"

    def _commit(self, temporary: Path, step: int) -> None:
        folder = self._folder(step)
        replaced = self._directory / f"{_REPLACED}{step}"
        _sync(temporary)
        if folder.exists():
            folder.rename(replaced)  # a kill before the next line: opening puts it back
        temporary.rename(folder)
        _sync(self._directory)
        shutil.rmtree(replaced, ignore_errors=True)

    def _delete_old(self, newest: int) -> None:
        """Apply the keep policy to the steps up to `newest`, which was just committed.

        Steps above it are of a run that was set back: they stay until it comes by again. A step
        known to be damaged is not counted among the last, and goes when it is older than they.
        """
        committed = set(self.steps()) - self._damaged
        good = sorted(step for step in committed if step <= newest)
        last = good[-self._keep_last :]
        for step in self._folders():
            due = step in committed and self._keep_every and step % self._keep_every == 0
            if step < last[0] and not due:
                doomed = self._directory / f"{_DELETING}{step}"
                self._folder(step).rename(doomed)  # never a half-deleted step under its number
                shutil.rmtree(doomed)

    def _folder(self, step: int) -> Path:
        return self._directory / str(step)

    def _folders(self) -> tuple[int, ...]:
        if not self._directory.is_dir():
            return ()
        try:
            return tuple(sorted(_numbered(self._directory)))
        except OSError as error:
            raise LabError(f"{self._directory}: not readable: {error.strerror}") from error


def _numbered(directory: Path) -> Iterator[int]:
    for path in directory.iterdir():
        name = path.name
        if name.isascii() and name.isdecimal() and str(int(name)) == name and path.is_dir():
            yield int(name)


def _make_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{directory}: cannot be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise LabError(f"{directory}: cannot be written to, no checkpoint can be saved there")


def _remove_leftovers(directory: Path) -> None:
    """Remove what a save or a deletion that was cut off left; bring back a step half replaced."""
    for replaced in directory.glob(f"{_REPLACED}*"):
        folder = directory / replaced.name.removeprefix(_REPLACED)
        try:
            if not folder.exists():
                replaced.rename(folder)
        except OSError as error:
            raise LabError(f"{replaced}: cannot be brought back: {_one_line(error)}") from error
    for prefix in (_SAVING, _REPLACED, _DELETING):
        for path in directory.glob(f"{prefix}*"):
            shutil.rmtree(path, ignore_errors=True)


def _check_structure(
    wanted: dict[str, Any], manifest: Manifest, *, folder: Path, part: bool
) -> None:
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


def _orbax() -> Any:
    """Orbax, imported late (listing steps needs none of it) and untyped (its types do not check).

    It logs the traceback of every error once per thread and then raises the same error, which is
    the one we report: its own log is dropped, and asyncio's about its other failed reads.
    """
    from orbax.checkpoint import v1

    logging.getLogger("absl").addFilter(_not_of_orbax)
    logging.getLogger("asyncio").addFilter(_not_of_orbax)
    return v1


def _not_of_orbax(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return "/orbax/checkpoint/" not in record.pathname and "in OCDBT database" not in str(error)


def _write_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    ocp = _orbax()
    context = ocp.Context()
    # Weights are noise to a compressor: 8 % smaller here, and about twice as slow to restore.
    context.array.saving.use_compression = False
    with context:
        ocp.save(folder, {path: array for path, array in arrays.items() if array.size})


def _read_arrays(folder: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    """All leaves on the host; those without values are not in Orbax, which refuses them."""
    try:
        with _without_late_tracebacks():
            arrays = dict(_orbax().load(folder))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise Damaged(f"Orbax cannot read it: {_one_line(error)}") from error
    for path, digest in manifest.digests.items():
        if 0 in digest["shape"]:
            arrays[path] = np.zeros(digest["shape"], np.dtype(digest["dtype"]))
    return arrays


@contextlib.contextmanager
def _without_late_tracebacks() -> Iterator[None]:
    """After a failed load, drop what its other reads print when they find their loop closed.

    Orbax closes its event loop at the first error; TensorStore's reads that are still under way
    then each write a traceback ("Exception ignored in: None") to the terminal.
    """
    before = sys.unraisablehook

    def hook(late: Any) -> None:
        if str(late.exc_value) != "Event loop is closed":
            before(late)

    sys.unraisablehook = hook
    loaded = False
    try:
        yield
        loaded = True
    finally:
        if not loaded:
            threading.Event().wait(_LATE_READS_S)
        sys.unraisablehook = before


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


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _one_line(error: BaseException) -> str:
    """The reason, where the system gave one (TensorStore hides it at the end); else the text."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
