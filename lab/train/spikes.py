"""What the loop does about a suspicious update: leave it out, or return to an earlier step.

PaLM's spikes came from a state and a batch together: going back some 100 steps and leaving out the
batches up to the spike made them disappear (Chowdhery et al. 2022, section 5.1). Here all of it is
a function of the config and the steps: which checkpoint to return to, which batches are left out,
when to give up. Counters in the state say which rollbacks lie in its past, so that a run which is
killed anywhere comes to the same rollbacks again, or has them behind it.
"""

import dataclasses
from typing import Any

import numpy as np

from lab.core.guard_config import OFF, ROLLBACK, SKIP, STOP
from lab.core.layout import Layout
from lab.train.guard import COUNTERS, Guard, Verdict
from lab.train.state import State


@dataclasses.dataclass(frozen=True)
class Spike:
    """A suspicious update, which was not applied; `step` counts it."""

    step: int
    loss: float
    grad_norm: float
    verdict: Verdict

    def __str__(self) -> str:
        named = {"loss": self.verdict.z_loss, "gradient norm": self.verdict.z_grad_norm}
        values = {"loss": self.loss, "gradient norm": self.grad_norm}
        above = {name: "" if z is None else f" (z {z:.3g})" for name, z in named.items()}
        return ", ".join(f"{name} {value:.4g}{above[name]}" for name, value in values.items())


class Diverged(Exception):
    """The loss is not finite or exploded, or there were too many spikes; `step` counts updates."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"step {step}: {reason}")
        self.step = step


class RollBack(Exception):
    """The run must return to an earlier step because of this spike."""

    def __init__(self, spike: Spike) -> None:
        super().__init__(str(spike))
        self.spike = spike


class Spikes:
    """The guard of a run between its updates; without one nothing is ever suspicious.

    `shift` is how many batches lie between the step and the batch it trains on.
    """

    def __init__(self, guard: Guard | None) -> None:
        self._settings = guard.settings if guard else OFF
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._last: int | None = None  # step of the newest suspicious update
        # After a suspicious update so many calm ones must come before the state is trusted.
        self._calm = max(1, self._settings.window // 8)

    @property
    def shift(self) -> int:
        """Batches that were left out so far."""
        return self._counters["shift"]

    @property
    def rollbacks(self) -> int:
        """How many there were so far."""
        return self._counters["rollbacks"]

    def adopt(self, state: State) -> None:
        """Take what a state says of the rollbacks behind it; no checkpoint is suspicious."""
        self._last = None
        carried = state.get("guard", {})
        self._counters = {name: int(np.asarray(carried.get(name, 0))) for name in COUNTERS}

    def action(self, spike: Spike) -> str:
        """What follows from a spike: the policy, or to stop where there were too many."""
        self._last = spike.step
        policy, most = self._settings.policy, self._settings.most_skips
        skips = spike.verdict.skips if policy == SKIP else self.after(spike)["repeats"]
        return STOP if skips > most else policy

    def too_many(self) -> str:
        """Why the run stops, in words."""
        settings = self._settings
        if settings.policy == SKIP:
            return f"more than {settings.most_skips} of {settings.window} updates suspicious"
        return f"more than {settings.most_skips} rollbacks in a row that gained no ground"

    def target(self, spike: Spike) -> int:
        """The step to return to: a multiple of `rollback_steps` with calm updates behind it."""
        return self._newest_anchor(spike.step - 1)

    def _newest_anchor(self, step: int) -> int:
        every = self._settings.rollback_steps
        return max(0, step - self._calm) // every * every

    def left_out(self, spike: Spike) -> int:
        """Batches from the step to return to, up to the spike's own."""
        return spike.step - self.target(spike)

    def after(self, spike: Spike) -> dict[str, int]:
        """The counters with a rollback because of this spike behind."""
        target, before = self.target(spike), self._counters
        again = before["rollbacks"] and target <= before["target"]
        return {
            "shift": before["shift"] + self.left_out(spike),
            "rollbacks": before["rollbacks"] + 1,
            "target": target,
            "repeats": before["repeats"] + 1 if again else 1,
        }

    def with_counters(self, state: State, counters: dict[str, int], *, layout: Layout) -> State:
        """The state of a step returned to, with the rollback behind it."""
        placed = layout.replicate({k: np.asarray(v, np.int32) for k, v in counters.items()})
        self._counters = counters
        return {**state, "guard": {**state["guard"], **placed}}

    def suspects(self, step: int) -> bool:
        """Whether a spike is so near that the state after so many updates is not trusted."""
        return self._last is not None and step - self._last < self._calm

    @property
    def anchors(self) -> int:
        """Steps between the checkpoints that are due because a rollback may return there; or 0."""
        return self._settings.rollback_steps if self._settings.policy == ROLLBACK else 0

    def is_anchor(self, step: int) -> bool:
        """Whether this is one of them."""
        return bool(self.anchors) and step % self.anchors == 0

    def held(self, step: int, *, newest: int | None) -> frozenset[int]:
        """Checkpoints that a save after so many updates must not push out.

        Those to which a later spike may return; where the state is not trusted, the newest too.
        """
        held = {newest} if newest is not None and self.suspects(step) else set()
        if self._settings.policy == ROLLBACK:
            held |= set(range(self._newest_anchor(step), step + 1, self._settings.rollback_steps))
        return frozenset(held)

    def row(self, spike: Spike, *, loss_key: str, action: str) -> dict[str, Any]:
        """What the record says of it."""
        verdict = spike.verdict
        row = {
            loss_key: spike.loss,
            "grad_norm": spike.grad_norm,
            "z_loss": verdict.z_loss,
            "z_grad_norm": verdict.z_grad_norm,
            "action": action,
        }
        if action == ROLLBACK:
            row |= {"to_step": self.target(spike), "batches_left_out": self.left_out(spike)}
            row |= {"rollback": self.rollbacks + 1}
        return row
