"""A run's checkpoints: those in its directory, and near ones on each host's own disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.core.execution_config import ExecutionConfig
from lab.core.local_store import LocalStore
from lab.core.manifest import Metrics
from lab.core.peers import Peers
from lab.core.shared_store import open_store
from lab.core.store import Restored


class Checkpoints:
    """What the loop saves and restores; all processes of a run make the same calls.

    A near checkpoint costs no shared storage and is lost with its host. It is gone on from where it
    is newer than what is shared, and good on every host.
    """

    def __init__(
        self,
        directory: Path,
        execution: ExecutionConfig,
        peers: Peers,
        *,
        kept: frozenset[int] = frozenset(),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`directory` is the run's; the steps `kept` are saved and stay; `check` as in Store.

        Raises LabError where one cannot write there, or nearby.
        """
        self.directory = directory / "checkpoints"
        self.newest_shared: int | None = None  # of the steps restored or saved
        self._peers = peers
        self._kept = kept
        self._every = execution.checkpoint_every_steps
        self._shared = open_store(
            self.directory,
            peers,
            keep_last=execution.keep_last,
            keep_every=execution.keep_every_steps or None,
            check=check,
        )
        self._near: LocalStore | None = None
        if execution.local_checkpoints:
            near = Path(execution.local_checkpoints) / directory.parent.name / directory.name
            self._near = LocalStore(near, peers)

    def restore(self, like: Any) -> Restored | None:
        """The newest good step of both; None where there is no step at all.

        Steps that are not as they were written are passed over and named. Raises LabError where
        there are steps and none is good, and for those of another tree.
        """
        near = self._restore_near(like) if self._near else None
        return near or self._restored(self._shared.restore(like))

    def _restore_near(self, like: Any) -> Restored | None:
        """A near step that is newer than all that the first process sees shared."""
        assert self._near is not None
        seen = json.dumps(self._shared.steps())
        shared = json.loads(self._peers.gather("shared-steps", seen)[0])
        self.newest_shared = max(shared, default=None)
        return self._near.restore(like, above=max(shared, default=-1))

    def _restored(self, found: Restored | None) -> Restored | None:
        self.newest_shared = found.step if found else None
        return found

    def restore_up_to(self, step: int, like: Any) -> Restored | None:
        """The newest good step that is shared and no newer than this one."""
        return self._restored(self._shared.restore(like, up_to=step))

    def passed_over(self, restored: Restored | None) -> list[str]:
        """A line for each step that was not good."""
        shared = restored.skipped if restored else ()
        lines = [f"{self.directory / str(each.step)}: {each.reason}" for each in shared]
        near = self._near.told() if self._near else []
        back = f"falling back to step {restored.step if restored else 0}"
        return [f"{line}; {back}" for line in [*near, *lines]]

    def save(self, step: int, tree: Any, *, metrics: Metrics, held: frozenset[int]) -> None:
        """Save into the run's directory, in the background; steps in `held` are kept.

        Waits for the save before, and raises LabError where that one failed.
        """
        self._shared.held = held | self._kept
        self._shared.save(step, tree, metrics=metrics)
        self.newest_shared = step

    def save_near(self, step: int, tree: Any, *, metrics: Metrics) -> None:
        """Save on this host's own disk, in the background; as `save` does."""
        if self._near:
            self._near.save(step, tree, metrics=metrics)

    def is_due(self, step: int) -> bool:
        """Whether a save is due by the steps."""
        return step % self._every == 0 or step in self._kept

    def next_due(self, step: int) -> int:
        """The next step after this one at which a save is due."""
        return min([step - step % self._every + self._every, *(s for s in self._kept if s > step)])

    def steps(self) -> tuple[int, ...]:
        """The steps in the run's directory, ascending."""
        return self._shared.steps()

    def wait(self) -> None:
        """Wait for the running saves; raises LabError where one failed."""
        self._shared.wait()
        if self._near:
            self._near.wait()

    def forget_after(self, step: int) -> None:
        """Delete the steps above `step`: the run was set back."""
        self._shared.forget_after(step)
        if self._near:
            self._near.forget_after(step)

    def clear_near(self) -> None:
        """Delete the near ones: the run has ended, and its last state is in its directory."""
        if self._near:
            self._near.clear()

    def close(self) -> None:
        """Wait for the running saves; raises LabError where one failed."""
        try:
            self._shared.close()
        finally:
            if self._near:
                self._near.close()
