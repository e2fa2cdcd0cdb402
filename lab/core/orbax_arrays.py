"""Arrays in a folder, written and read by Orbax: the one place that knows it."""

import logging
import math
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lab.core import manifest as manifests
from lab.core.manifest import Damaged, Manifest
from lab.core.orbax_noise import not_of_orbax, without_late_tracebacks
from lab.core.step_folders import one_line

# Runs that train in one process save from threads of their own, and Orbax serves one at a time: a
# second one that comes meanwhile fails (0.12), in its loops and in the options that it is given.
_ONE_AT_A_TIME = threading.RLock()
_failed = threading.Event()


def a_save_failed() -> bool:
    """Whether one did in this process: threads of Orbax may wait for its files for minutes."""
    return _failed.is_set()


def _orbax() -> Any:
    """Orbax, imported late (listing steps needs none of it) and untyped (its types do not check).

    It logs the traceback of every error once per thread and then raises the same error, which is
    the one we report: its own log is dropped, and asyncio's about its other failed reads. What it
    does not come to after an error Python would warn of.
    """
    from orbax.checkpoint import v1

    warnings.filterwarnings("ignore", r"coroutine '\w*Handler\.\w+' was never awaited")
    logging.getLogger("absl").addFilter(not_of_orbax)
    logging.getLogger("asyncio").addFilter(not_of_orbax)
    return v1


def write_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays of a job of one process into a folder that is not there; waits for the disk."""
    with _ONE_AT_A_TIME, _saving_context(), without_late_tracebacks():
        try:
            _orbax().save(folder, {path: array for path, array in arrays.items() if array.size})
        except BaseException:
            _failed.set()
            raise


def start_writing(folder: Path, leaves: dict[str, Any], *, processes: int) -> Any:
    """Copy this process's shards and begin to write them; `.result(timeout=)` waits for all.

    Every process calls it, from the thread that also starts their computations: Orbax compares
    the folder's name by a collective of the devices. What comes after it waits without one.
    """
    with _saving_context(set(range(processes))):
        return _orbax().save_async(folder, {p: leaf for p, leaf in leaves.items() if leaf.size})


def _saving_context(processes: set[int] | None = None) -> Any:
    ocp = _orbax()
    whom = ocp.options.MultiprocessingOptions(active_processes=processes)
    context = ocp.Context(multiprocessing_options=whom)
    # Weights are noise to a compressor: 8 % smaller here, and about twice as slow to restore.
    context.array.saving.use_compression = False
    return context


def read_shards(folder: Path, wanted: dict[str, Any], *, process: int) -> dict[str, Any]:
    """The wanted leaves with values; others may be in the folder. Waits for no other process.

    A jax.ShapeDtypeStruct with a sharding becomes a jax array, of which this process reads its
    shards only; a numpy array becomes one.
    """
    ocp = _orbax()
    alone = ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})
    context = ocp.Context(multiprocessing_options=alone)
    context.pytree.loading.partial_load = True
    with context:
        return _load(folder, {path: leaf for path, leaf in wanted.items() if math.prod(leaf.shape)})


def read_arrays(folder: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    """All leaves on the host; those without values are not in Orbax, which refuses them."""
    return _load(folder, manifests.placeholders(manifest)) | manifests.empty_leaves(manifest)


def _load(folder: Path, like: dict[str, Any]) -> dict[str, Any]:
    try:
        with _ONE_AT_A_TIME, without_late_tracebacks():
            return dict(_orbax().load(folder, like))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise Damaged(f"Orbax cannot read it: {one_line(error)}") from error
