"""The rows that the loop writes into a run's record: each with its place, amounts and clock."""

from typing import Any

from lab.core.record import Record
from lab.train.hooks import Status
from lab.train.job import Job
from lab.train.spikes import Spike
from lab.train.stopwatch import Speed, Stopwatch


class Rows:
    """A record of a job, and the clock by which its rows are written."""

    def __init__(self, record: Record, job: Job[Any], watch: Stopwatch) -> None:
        self._record = record
        self._job = job
        self._watch = watch

    def add(
        self, kind: str, step: int, fields: dict[str, Any], *, speed: Speed | None = None
    ) -> None:
        """A row, where there was none of its kind and step; with a speed the clock tells it."""
        if step in self._record.steps[kind]:
            return
        self._record.append({**self._place(kind, step), **fields, "clock": self._clock(speed)})
        if speed:
            self._watch.restart(speed.until)

    def spike(self, spike: Spike, row: dict[str, Any]) -> dict[str, Any]:
        """The row of a suspicious update, not yet written."""
        return {**self._place("spike", spike.step), **row, "clock": self._clock(None)}

    def end(self, status: Status, step: int, fields: dict[str, Any]) -> None:
        """The last row, forced to the disk."""
        row = {"kind": "end", "status": str(status), "step": step, **fields}
        self._record.append({**row, "clock": self._clock(None)})
        self._record.sync()

    def _place(self, kind: str, step: int) -> dict[str, Any]:
        return {"kind": kind, "step": step, **self._job.amounts(step)}

    def _clock(self, speed: Speed | None) -> dict[str, float | None]:
        clock: dict[str, float | None] = {"elapsed_s": round(self._watch.elapsed_s, 3)}
        if speed:
            clock["step_s"] = round(speed.step_s, 6)
            clock["data_wait_s"] = round(speed.data_wait_s, 6)
            clock.update(self._job.speed(speed.step_s))
        return clock
