"""The checkpoints of a job of several processes: each writes and reads its own shards.

The format is that of one process, and either restores what the other saved, on any number of
processes and devices. A shared file system is needed. Orbax writes; the files are digested in
shares; the first process writes the manifest and commits by one rename. Where one process fails
they all do: it says so, and nobody waits for it. All agree on which step is good.
"""

import dataclasses
import functools
import itertools
import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lab.core import manifest as manifests
from lab.core.digest import host_copies, named_leaves
from lab.core.errors import NotSaved
from lab.core.manifest import Damaged, Manifest, Metrics, Share
from lab.core.orbax_arrays import read_shards, start_writing
from lab.core.orbax_noise import without_late_tracebacks
from lab.core.peers import PeerFailed, Peers
from lab.core.step_folders import one_line
from lab.core.store import Store, check_leaves

_LOOK_S = 0.1
_TURN = itertools.count()  # every process opens, saves and restores in one order
Found = TypeVar("Found")


@dataclasses.dataclass(frozen=True)
class _Save:
    """A save that was begun: what Orbax is writing, and the topic on which processes talk of it."""

    step: int
    topic: str
    response: Any
    leaves: dict[str, Any]
    arrays: dict[str, np.ndarray]  # on the first process: values that every process has
    metrics: dict[str, Any]


def open_store(
    directory: Path,
    peers: Peers,
    *,
    keep_last: int,
    keep_every: int | None,
    check: Callable[[], None] = lambda: None,
) -> Store:
    """The checkpoints of a run, for writing, by one process or several; see `Store`."""
    if peers.count == 1:
        return Store(directory, keep_last=keep_last, keep_every=keep_every, check=check)
    return SharedStore(directory, peers, keep_last=keep_last, keep_every=keep_every, check=check)


class SharedStore(Store):
    """The checkpoints of one run, saved and restored by several processes together.

    Every process makes the same calls in the same order, on the thread that starts computations.
    """

    def __init__(
        self,
        directory: Path,
        peers: Peers,
        *,
        keep_last: int,
        keep_every: int | None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._peers = peers
        self._share = Share(peers.index, peers.count)
        self._talked = ""
        super().__init__(directory, keep_last=keep_last, keep_every=keep_every, check=check)

    def _open(self) -> None:
        if self._peers.leads:
            super()._open()
        self._gather("open", "")  # nobody writes before the leftovers are gone

    def _gather(self, what: str, text: str) -> list[str]:
        return self._peers.gather(f"{what}-{next(_TURN)}", text)

    def _begin(self, step: int, named: dict[str, Any], metrics: Metrics) -> Callable[[], None]:
        check_leaves(named, step=step)
        strict = manifests.strict_metrics(metrics)
        topic = f"save-{next(_TURN)}"
        try:
            whole = {p: _whole(leaf) for p, leaf in named.items() if _is_whole(leaf)}
            arrays = host_copies(whole) if self._peers.leads else {}
            response = start_writing(self._temporary(step), named, processes=self._peers.count)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(step, topic, error) from error
        save = _Save(step, topic, response, named, arrays, strict)
        return functools.partial(self._finish, save)

    def _finish(self, save: _Save) -> None:
        peers, done = self._peers, f"{save.topic}-done"
        try:
            self._wait_for_all(save)
            mine = manifests.describe_share(self._temporary(save.step), self._share)
            shares = [json.loads(text) for text in peers.gather(save.topic, json.dumps(mine))]
            if peers.leads:
                self._forget_before(save.topic)
                self._commit_shares(save, shares)
                peers.tell(done, "")
            peers.hear(done, 0)
        except PeerFailed as failure:
            raise NotSaved(str(failure)) from failure
        except (OSError, ValueError, RuntimeError, NotSaved) as error:
            raise self._failed(save.step, save.topic, error) from error

    def _forget_before(self, topic: str) -> None:
        """Drop what was said of the save before; that all came to this one shows that it ended."""
        for each in (self._talked, f"{self._talked}-done") if self._talked else ():
            self._peers.forget(each)
        self._talked = topic

    def _wait_for_all(self, save: _Save) -> None:
        """Wait for what Orbax writes, and see where another process will not come.

        Orbax is asked on a thread of its own, without a limit of time: the TimeoutError of such a
        limit could not be told from that of Orbax's own deadline.
        """
        written: Future[None] = Future()
        given = (save.response, written)
        with without_late_tracebacks():
            threading.Thread(target=_pass_on, args=given, name="orbax", daemon=True).start()
            while not wait([written], timeout=_LOOK_S).done:
                self._peers.check(save.topic)
            written.result()

    def _commit_shares(self, save: _Save, shares: list[dict[str, Any]]) -> None:
        temporary = self._temporary(save.step)
        manifest = manifests.describe_shared(
            temporary,
            shares,
            step=save.step,
            metrics=save.metrics,
            leaves=save.leaves,
            arrays=save.arrays,
        )
        manifests.write(temporary, manifest)
        self._commit(temporary, save.step)
        self._tidy(save.step)

    def _failed(self, step: int, topic: str, error: Exception) -> NotSaved:
        """Tell the others, so that all fail and none waits."""
        if isinstance(error, NotSaved):
            line = str(error)
        elif self._peers.leads:
            line = self._not_saved(step, error)
        else:
            line = f"{self._folder(step)}: not saved: {one_line(error)}"
        for each in (topic, f"{topic}-done"):
            self._peers.fail(each, line)
        return NotSaved(line)

    def forget_after(self, step: int) -> None:
        """Delete the steps above `step`: the first process does, and the others hear what is left
        when they restore.
        """
        if self._peers.leads:
            super().forget_after(step)
        self.wait()

    def _candidates(self) -> tuple[int, ...]:
        """Those that the first process sees."""
        return tuple(json.loads(self._gather("steps", json.dumps(self._folders()))[0]))

    def _set_aside(self, steps: Iterable[int]) -> None:
        """The first process does; all hear how it went."""
        steps, problem = list(steps), ""
        if not steps:
            return
        if self._peers.leads:
            try:
                super()._set_aside(steps)
            except NotSaved as error:
                problem = str(error)
        told = self._gather("aside", problem)[0]
        if told:
            raise NotSaved(told)

    def _read_manifest(self, step: int) -> Manifest:
        return self._agreed(lambda: manifests.read(self._folder(step)))

    def _restore_tree(self, like: Any, manifest: Manifest, *, part: bool) -> Any:
        import jax

        folder, process = self._folder(manifest.step), self._peers.index
        wanted = named_leaves(like)
        manifests.check_structure(wanted, manifest, folder=folder, part=part)
        self._agreed(lambda: manifests.check_files(folder, manifest, share=self._share))
        found = self._agreed(lambda: read_shards(folder, wanted, process=process))
        self._agreed(lambda: self._check_values(folder, manifest, found))
        found = {**_without_values(wanted), **found}
        leaves = [found[path] for path in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _check_values(self, folder: Path, manifest: Manifest, found: dict[str, Any]) -> None:
        """Compare the leaves with their digests, where the digests of the files do not suffice.

        One that lies in parts on several processes is read anew as a whole by one of them. They
        are read one at a time: together they may be larger than a host's memory.
        """
        if all(file["xxh3_128"] for file in manifest.files.values()):
            return
        spread = []
        for path, leaf in found.items():
            if _is_whole(leaf):
                manifests.check_array(path, np.asarray(_whole(leaf)), manifest)
            else:
                spread.append(path)
        hollow = manifests.placeholders(manifest)
        for path in self._share.of(sorted(spread)):
            (array,) = read_shards(folder, {path: hollow[path]}, process=self._peers.index).values()
            manifests.check_array(path, array, manifest)

    def _agreed(self, check: Callable[[], Found]) -> Found:
        """What `check` gives this process; Damaged on all processes where it is on any."""
        found, problem = [], ""
        try:
            found.append(check())
        except Damaged as damage:
            problem = str(damage)
        for told in self._gather("damage", problem):
            if told:
                raise Damaged(told)
        return found[0]


def _pass_on(response: Any, written: Future[None]) -> None:
    try:
        written.set_result(response.result())
    except BaseException as error:  # noqa: BLE001 raised again where it is waited for
        written.set_exception(error)


def _is_whole(leaf: Any) -> bool:
    """Whether this process has all values of a leaf."""
    return getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated


def _whole(leaf: Any) -> Any:
    """The leaf in one piece, on a device of this process or as the numpy array that it is."""
    return leaf if getattr(leaf, "is_fully_addressable", True) else leaf.addressable_data(0)


def _without_values(wanted: dict[str, Any]) -> dict[str, Any]:
    """Leaves of no values, which Orbax does not hold, where `wanted` says that they lie."""
    import jax

    def made(leaf: Any) -> Any:
        empty = np.zeros(leaf.shape, leaf.dtype)
        sharding = getattr(leaf, "sharding", None)
        if sharding is None:
            return empty
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: empty[index])

    return {path: made(leaf) for path, leaf in wanted.items() if 0 in leaf.shape}
