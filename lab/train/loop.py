"""The training loop.

The order, which resumption depends on:

    restore or initialise -> for each step: evaluate the state before the update -> save -> batch ->
    update -> write the previous update's row

The row of an update is written while the next one runs, so that the device never waits for the
host; before a save it is written first, so that a checkpoint never stands for rows that are
missing. Data order, keys and the rate are functions of the step and are not saved. A wish to stop
is seen before each update and between the batches of an evaluation, which is then made anew.

Several updates may go in one dispatch (lab/train/dispatch.py), as many as fit before the next step
at which something is due; what is said here of an update is then true of them together.

Under a guard (lab/train/guard.py) an update may be left out, or the run set back to an earlier
step, as if it had been stopped there and gone on with the batches after the spike.

Several processes run this loop alike, each with its devices' part of every batch; the first one
writes the record. What only one of them knows (a signal, a clock) it wishes through an Agreement,
and all see it before the same update; they do not stop inside an evaluation.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from lab.core.digest import tree_sha256
from lab.core.errors import LabError, Stopped
from lab.core.guard_config import ROLLBACK, STOP
from lab.core.peers import Peers
from lab.core.record import Record
from lab.core.store import Restored
from lab.core.writing import writing
from lab.train.agreement import Agreement, Wishes, meet
from lab.train.checkpoints import Checkpoints
from lab.train.dispatch import Dispatcher, Started, Updated
from lab.train.hooks import Doing, Hooks, Outcome, Progress, Status
from lab.train.job import Job
from lab.train.optimizer import learning_rate
from lab.train.pack import Seat
from lab.train.rows import Rows
from lab.train.spikes import Diverged, RollBack, Spike, Spikes
from lab.train.state import State
from lab.train.stopwatch import Speed, Stopwatch

__all__ = ["Doing", "Hooks", "Loop", "Outcome", "Progress", "Status"]


@dataclasses.dataclass(frozen=True)
class _Waiting:
    """Updates of one dispatch, their rows not yet written."""

    updates: Started
    wishes: jax.Array | None  # of all processes, sent with them


class Loop:
    """One run from its newest good checkpoint to its end."""

    def __init__(self, job: Job, hooks: Hooks, dispatcher: Dispatcher | Seat | None = None):
        self.job = job
        self.hooks = hooks
        hooks.beat(Doing.RESTORING, 0)
        self.peers = Peers.of_jax()
        self.agreement = None
        if self.peers.count > 1:
            meet(job.layout, self.peers)
            self.agreement = Agreement(job.layout)
        self.dispatcher = dispatcher or Dispatcher(job, job.steps())
        self.wishes = Wishes()  # that all processes know of
        given = {"kept": job.branch_steps, "check": hooks.check_claim}
        self.store = Checkpoints(job.directory, job.run.execution, self.peers, **given)
        self.spikes = Spikes(job.guard)
        self._begin_at(self.store.restore(job.abstract_state))
        self.record = Record(
            job.directory / "record.jsonl",
            job.header(),
            step=self.start,
            rollbacks=self.spikes.rollbacks,
            evaluation_rows=1 + (self.state["ema"] is not None),
            follows=not self.peers.leads,
        )
        self.watch = Stopwatch(hooks.clock, step=self.start)
        self.rows = Rows(self.record, job, self.watch)
        self.updated, self.looked = False, False  # before the first of both something compiles

    def _begin_at(self, restored: Restored | None) -> None:
        """Take a checkpoint for the state from which to go on; None: the state at the beginning."""
        job = self.job
        for line in self.store.passed_over(restored):
            self.hooks.warn(line)
        self.start = restored.step if restored else 0
        self.step = self.start
        before = restored.metrics if restored else {}
        self.saved_step = self.store.newest_shared if restored else None
        self.saved_evaluation = job.loss.key in before  # of the state of that step
        self.save_owed = False  # put off until the state is trusted
        self.state: State = restored.tree if restored else job.initial_state()
        self.spikes.adopt(self.state)
        self.waiting: _Waiting | None = None
        names = (f"training_{job.training_loss.key}", "learning_rate", "grad_norm")
        self.last_update: dict[str, Any] = {k: before[k] for k in names if k in before}

    def run(self) -> Outcome:
        """Train to the end, to a signal or to a divergence; always leaves a good record."""
        try:
            return self._run_or_stop()
        except Diverged as reason:
            return self._diverged(reason)
        finally:
            self.hooks.beat(Doing.SAVING, self.step)  # one may be running still
            self.store.close()
            self.record.close()

    def _run_or_stop(self) -> Outcome:
        while True:
            try:
                return self._run()
            except RollBack as back:
                self._roll_back(back.spike)
            except Stopped:
                return self._interrupted(self.step)

    def _stop_if_asked(self) -> None:
        if self.wishes.stop if self.agreement else self.hooks.should_stop():
            raise Stopped

    def _between_batches(self) -> None:
        """Between the batches of an evaluation; the first of them compiles."""
        self.hooks.beat(Doing.EVALUATING if self.looked else Doing.COMPILING, self.step)
        self.looked = True
        if not self.agreement:
            self._stop_if_asked()

    def _timed_save_is_due(self) -> bool:
        """By this process's clock; of several processes the first one's counts."""
        every_s = 60 * self.job.run.execution.checkpoint_every_minutes
        return bool(every_s) and self.watch.since_save_s >= every_s

    def _run(self) -> Outcome:
        job, total, shift = self.job, self.job.total_steps, self.spikes.shift
        with job.train_batches().prefetched(self.start + shift, total + shift) as batches:
            while self.step < total:
                self._before_update(self.step)
                self._stop_if_asked()
                self.step += self._update(self.step, batches)
        self._write_waiting()
        metrics = self._evaluate(total)
        if self.saved_step != total or not self.saved_evaluation:
            self._save(total, metrics)
        self._wait_for_save()
        self._end(Status.FINISHED, total, params_sha256=tree_sha256(self.state["params"]))
        self.store.clear_near()
        return Outcome(Status.FINISHED, total, f"{total} steps done")

    def _next(self, batches: Iterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        self.hooks.beat(Doing.READING, self.step)
        with self.watch.waiting_for_data():
            return next(batches)

    def _before_update(self, step: int) -> None:
        train, execution = self.job.run.train, self.job.run.execution
        metrics: dict[str, Any] = {}
        due = train.evaluate_every_steps and step % train.evaluate_every_steps == 0
        if due and step not in self.record.steps["evaluation"]:
            metrics = self._evaluate(step)
        # A stop inside this evaluation saved the state without it.
        without = bool(metrics) and self.saved_step == step and not self.saved_evaluation
        timed = self.wishes.save if self.agreement else self._timed_save_is_due()
        due = timed or self.store.is_due(step) or self.spikes.is_anchor(step)
        if self.save_owed or (due and (step > self.start or without)):
            self._write_waiting()
            self.save_owed = self.spikes.suspects(step)
            if not self.save_owed:
                self._save(step, metrics)
        elif (every := execution.local_checkpoint_every_steps) and step % every == 0:
            self._save_near(step)

    def _together(self, step: int) -> int:
        """How many updates may go in one dispatch: nothing is due between them."""
        train, execution = self.job.run.train, self.job.run.execution
        due = (
            train.evaluate_every_steps,
            execution.local_checkpoint_every_steps,
            self.spikes.anchors,
        )
        ends = [self.job.total_steps, self.store.next_due(step)]
        ends += [step - step % every + every for every in due if every]
        return min(self.dispatcher.most, min(ends) - step)

    def _update(self, step: int, batches: Iterator[dict[str, np.ndarray]]) -> int:
        """Start the next updates, and write those before; how many were started."""
        job, first, count = self.job, not self.updated, self._together(step)
        given = [self._next(batches) for _ in range(count)]
        self.hooks.beat(Doing.COMPILING if first else Doing.UPDATING, step)
        rates = [
            learning_rate(
                job.run.optimizer, each, total_steps=job.total_steps, warmup_steps=job.warmup_steps
            )
            for each in range(step, step + count)
        ]
        self.state, started = self.dispatcher.start(
            self.state, step, given, rates, shift=self.spikes.shift
        )
        sent = self._send_wishes(after=started.metrics["grad_norm"])
        previous, self.waiting = self.waiting, _Waiting(started, sent)
        self._write(previous)
        if first:
            self.updated = True
            jax.block_until_ready(started.metrics)  # compiling is no part of the speed
            self.watch.restart(step + count)
        return count

    def _send_wishes(self, *, after: jax.Array) -> jax.Array | None:
        """What this process wishes of all, to be known to all when this update's row is written."""
        if self.agreement is None:
            return None
        save = self.peers.leads and self._timed_save_is_due()
        wishes = Wishes(stop=self.hooks.should_stop(), save=save)
        return self.agreement.propose(wishes, after=after)

    def _hear_wishes(self, waiting: _Waiting) -> None:
        if self.agreement is None or waiting.wishes is None:
            return
        wishes = self.agreement.read(waiting.wishes)
        if self.saved_step is not None and waiting.updates.last <= self.saved_step:
            wishes = dataclasses.replace(wishes, save=False)  # it was wished before that save
        self.wishes = self.wishes.either(wishes)

    def _write_waiting(self) -> None:
        waiting, self.waiting = self.waiting, None
        self._write(waiting)

    def _write(self, waiting: _Waiting | None) -> None:
        """Check the numbers of updates, and write their rows where they are due."""
        if waiting is None:
            return
        self.hooks.check_claim()
        self._hear_wishes(waiting)
        each = list(waiting.updates.each(self.job.training_loss.key))
        speed = self.watch.speed(waiting.updates.last)  # that of all of them alike
        for update in each:
            self._write_update(update, speed)

    def _write_update(self, update: Updated, speed: Speed) -> None:
        job, step, loss = self.job, update.step, update.loss
        if update.verdict is not None and update.verdict.suspicious:
            self._answer(Spike(step, loss, update.grad_norm, update.verdict))
            return
        key, unit, rate = job.training_loss.key, job.training_loss.unit, update.learning_rate
        row, norm = update.row(key), update.grad_norm
        self.last_update = {f"training_{key}": loss, "learning_rate": rate, "grad_norm": norm}
        if not all(math.isfinite(value) for value in row.values()) or loss > job.loss_limit:
            raise Diverged(
                step,
                f"loss {loss:.4g} {unit} (limit {job.loss_limit:.4g}), learning rate {rate:.4g}, "
                f"gradient norm {norm:.4g}",
            )
        if step % job.run.train.log_every_steps == 0 or step == job.total_steps:
            self.rows.add("train", step, row, speed=speed)
            self.hooks.progress(Progress(step, job.total_steps, loss, unit))

    def _answer(self, spike: Spike) -> None:
        """Leave the update out, as the step did already, or raise what follows from it."""
        action, step = self.spikes.action(spike), spike.step
        if action == ROLLBACK:
            raise RollBack(spike)
        self.record.append(self._spike_row(spike, action))
        if action == STOP:
            raise Diverged(step, f"{spike}; {self.spikes.too_many()}")
        self.hooks.warn(f"step {step}: {spike}: the update is left out")

    def _spike_row(self, spike: Spike, action: str) -> dict[str, Any]:
        key = self.job.training_loss.key
        return self.rows.spike(spike, self.spikes.row(spike, loss_key=key, action=action))

    def _roll_back(self, spike: Spike) -> None:
        """Return to an earlier step and leave out the batches up to the spike.

        What a kill leaves of it is a run that comes to the same spike again. So is one whose
        checkpoint of that step is damaged: it goes on from an older one.
        """
        spikes, target = self.spikes, self.spikes.target(spike)
        self.hooks.warn(
            f"step {spike.step}: {spike}: back to step {target} without the "
            f"{spikes.left_out(spike)} batches from there"
        )
        self.hooks.beat(Doing.RESTORING, target)
        row, counters = self._spike_row(spike, ROLLBACK), spikes.after(spike)
        before, self.state = spikes.rollbacks, {}  # room for the other state
        restored = self.store.restore_up_to(target, self.job.abstract_state)
        if restored is None and target:
            raise LabError(
                f"{self.store.directory}: no checkpoint up to step {target}, to "
                f"which the spike of step {spike.step} sets the run back; nothing is deleted"
            )
        self._begin_at(restored)
        self.store.forget_after(target)  # not before another one is found good
        if self.start == target:
            self.record.set_back(target, rollbacks=before)
            self.record.append(row)
            self.state = spikes.with_counters(self.state, counters, layout=self.job.layout)
        else:
            self.record.set_back(self.start, rollbacks=spikes.rollbacks)
        self.watch.restart(self.start)

    def _evaluate(self, step: int) -> dict[str, Any]:
        """Evaluate the state, write its rows, and return what stands beside the checkpoint."""
        self._write_waiting()
        if self.agreement:
            self._stop_if_asked()  # before the evaluation, for it is not seen inside
        self.hooks.beat(Doing.EVALUATING, self.step)
        states = {"raw": self.state["params"], "ema": self.state["ema"]}
        rows = {
            name: self.job.evaluate(self.dispatcher.steps, params, between=self._between_batches)
            for name, params in states.items()
            if params is not None
        }
        raw = rows["raw"]
        if step in self.record.steps["evaluation"]:
            rows = {}  # killed between the last save and the end row
        for weights, evaluation in rows.items():
            row = {"split": "validation", "weights": weights, **evaluation.row()}
            self.rows.add("evaluation", step, row)
        if self.peers.leads:
            with writing(self.job.directory / "validation.npz"):
                raw.save(self.job.directory, step=step)
        loss = raw.row()[self.job.loss.key]
        if not math.isfinite(loss):
            raise Diverged(step, f"validation loss {loss} {self.job.loss.unit}")
        unit = self.job.loss.unit
        self.hooks.progress(Progress(step, self.job.total_steps, loss, unit, evaluated=True))
        self.watch.restart(step)
        return {**raw.row(), "weights": "raw"}

    def _save(self, step: int, metrics: dict[str, Any]) -> None:
        self.hooks.check_claim()
        self._write_waiting()
        self.hooks.beat(Doing.SAVING, step)
        self.record.sync()
        held = self.spikes.held(step, newest=self.saved_step)
        whole, there = self.dispatcher.whole(self.state), {**self._progress_at(step), **metrics}
        self.store.save(step, whole, metrics=there, held=held)
        self.saved_step, self.saved_evaluation = step, bool(metrics)
        self.wishes = dataclasses.replace(self.wishes, save=False)
        self.watch.saved(step)

    def _save_near(self, step: int) -> None:
        """Beside the shared ones; a state that is not trusted is not saved."""
        self._write_waiting()
        if step == self.start or self.spikes.suspects(step):
            return
        self.hooks.beat(Doing.SAVING, step)
        self.record.sync()
        whole = self.dispatcher.whole(self.state)
        self.store.save_near(step, whole, metrics=self._progress_at(step))
        self.watch.restart(step)

    def _progress_at(self, step: int) -> dict[str, Any]:
        """What stands beside every checkpoint: sizes, counts so far, the last update's numbers."""
        return {**self.job.amounts(step), **self.job.counted(), **self.last_update}

    def _interrupted(self, step: int) -> Outcome:
        """Save and leave; a state that is not trusted is not saved, the run comes to it again."""
        try:
            self._write_waiting()
            trusted = not self.spikes.suspects(step)
        except RollBack:
            trusted = False
        if trusted and self.saved_step != step:
            self._save(step, {})
        self._wait_for_save()
        if trusted:
            return Outcome(Status.INTERRUPTED, step, f"saved at step {step}")
        good = f"step {self.saved_step}" if self.saved_step else "no checkpoint"
        return Outcome(
            Status.INTERRUPTED, step, f"saved is {good}; what follows it ends in a loss spike"
        )

    def _wait_for_save(self) -> None:
        self.hooks.beat(Doing.SAVING, self.step)
        self.store.wait()

    def _diverged(self, reason: Diverged) -> Outcome:
        self._wait_for_save()
        good = self.store.steps()
        kept = f"the last good checkpoint is step {good[-1]}" if good else "no checkpoint was saved"
        message = f"diverged at {reason}; {kept}"
        self._end(Status.DIVERGED, reason.step, reason=message)
        return Outcome(Status.DIVERGED, reason.step, message)

    def _end(self, status: Status, step: int, **fields: Any) -> None:
        self.hooks.check_claim()
        self.rows.end(status, step, fields)
