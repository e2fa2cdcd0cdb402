"""What a sweep will take, run by run, before anything runs: parameters, tokens, FLOPs, time."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

from lab.core.branches import trunk_of
from lab.core.config import AnyRun, identity
from lab.core.errors import LabError
from lab.core.program import program
from lab.core.units import DurationUnit
from lab.launch.branching import latest_beginning
from lab.launch.calibration import Measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds of a run by itself, as an interval; a measurement is one number."""

    low_s: float
    high_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a sweep."""

    name: str
    identity: str
    rung: str
    program: str
    params: Mapping[str, int]  # by role
    parameters: float  # N: of a generator's blocks; of another kind all
    tokens: int  # of a generator's positions; a tokenizer or classifier: images
    flops: float
    epochs: float
    steps: int
    own_steps: int  # of a branch: those after its trunk
    evaluations: int  # that the run makes itself
    state_bytes: int
    trunk: str | None  # identity of the run that must come before
    batch_images: int
    layout: str
    evaluation_images: int
    seconds: Cost | None = None
    step_bytes: int | None = None

    @property
    def own_flops(self) -> float:
        """Without those of the trunk."""
        return self.flops * self.own_steps / self.steps

    def as_json(self) -> dict[str, Any]:
        """Plain values, units in the names."""
        return {**dataclasses.asdict(self), "own_flops": self.own_flops}


def planned_run(run: AnyRun, job: Any, *, rung: str, identities: Container[str]) -> PlannedRun:
    """Count one run; its trunk counts where it is one of these."""
    import jax

    steps, size = job.total_steps, job.step_size
    begins, trunk = 0, None
    if run.execution.trunk:
        found = identity(trunk_of(run))
        if found in identities:
            trunk, begins = found, latest_beginning(job)
    every = run.train.evaluate_every_steps
    looks = sum(1 for step in range(0, steps, every) if step > begins or not begins) if every else 0
    averaged = 2 if run.optimizer.ema_decay else 1
    amounts = job.amounts(steps)
    leaves = jax.tree.leaves(job.abstract_state)
    return PlannedRun(
        name=run.name,
        identity=job.identity,
        rung=rung,
        program=program(run),
        params=job.header()["params"],
        parameters=size.parameters,
        tokens=int(amounts["tokens"] if "tokens" in amounts else amounts["examples_seen"]),
        flops=float(amounts["flops"]),
        epochs=steps * size.of(DurationUnit.EPOCHS),
        steps=steps,
        own_steps=steps - begins,
        evaluations=(looks + 1) * averaged,
        state_bytes=sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves),
        trunk=trunk,
        batch_images=run.train.batch_size,
        layout=run.execution.layout,
        evaluation_images=len(job.images.validation.rows),
    )


def with_measured(run: PlannedRun, measured: Measured | None) -> PlannedRun:
    """The run with its time, where its program was measured; start-up is the worker's."""
    if measured is None:
        return run
    seconds = (
        measured.compile_s
        + run.own_steps * measured.update_s
        + run.evaluations * measured.evaluation_s
    )
    cost = Cost(low_s=seconds, high_s=seconds)
    return dataclasses.replace(run, seconds=cost, step_bytes=measured.step_bytes)


def with_report(run: PlannedRun, reports: Sequence[Mapping[str, Any]]) -> PlannedRun:
    """The run with the time that a compile report estimates for its update, and evaluation."""
    for report in reports:
        same = {role: report["params"].get(role) for role in run.params} == dict(run.params)
        if not same or report["batch_images"] != run.batch_images:
            continue
        steps = {step["step"]: step for step in report["steps"]}
        train = steps.get("train")
        if train is None or train["seconds"] is None:
            continue
        low, high = (run.own_steps * train["seconds"][end] for end in ("low", "high"))
        look = steps.get("evaluate")
        if look is not None and look["seconds"] is not None:
            calls = run.evaluations * math.ceil(run.evaluation_images / look["images"])
            low, high = (
                total + calls * look["seconds"][end]
                for total, end in ((low, "low"), (high, "high"))
            )
        memory = int(train["memory"]["needed"])
        cost = Cost(low_s=low, high_s=high)
        return dataclasses.replace(run, seconds=cost, step_bytes=memory)
    return run


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a design may take: seconds of the clock, or training FLOPs."""

    amount: float
    unit: str  # "s" or "flops"

    def __str__(self) -> str:
        return f"{self.amount:g} FLOPs" if self.unit == "flops" else duration_text(self.amount)


_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_budget(text: str) -> Budget:
    """Read "2h", "90m", "45s", "1d" or "1e17flops". Raises LabError."""
    for unit in sorted([*_SECONDS, "flops"], key=len, reverse=True):
        if text.endswith(unit):
            try:
                amount = float(text.removesuffix(unit))
            except ValueError:
                break
            if not (math.isfinite(amount) and amount > 0):
                break
            return Budget(amount, unit) if unit == "flops" else Budget(amount * _SECONDS[unit], "s")
    raise LabError(f"--budget {text}: a time like 2h, 90m, 45s, 1d or an amount like 1e17flops")


def makespan_s(
    runs: Sequence[PlannedRun], *, workers: int, startup_s: float, high: bool = True
) -> float | None:
    """When the last of `workers` is done, each taking the next run in the order of the sweep.

    A branch waits for its trunk, as the workers do. None where a run's time is unknown.
    """
    left, ends = list(runs), {}
    names = {run.identity for run in runs}
    free = [(startup_s, worker) for worker in range(workers)]
    heapq.heapify(free)
    while left:
        now_s, worker = heapq.heappop(free)
        ready = [r for r in left if r.trunk not in names or ends.get(r.trunk, math.inf) <= now_s]
        if not ready:  # until a trunk ends
            waits = min(end for end in ends.values() if end > now_s)
            heapq.heappush(free, (waits, worker))
            continue
        run = ready[0]
        if run.seconds is None:
            return None
        left.remove(run)
        ends[run.identity] = now_s + (run.seconds.high_s if high else run.seconds.low_s)
        heapq.heappush(free, (ends[run.identity], worker))
    return max(ends.values(), default=0.0)


def rungs_of(runs: Sequence[PlannedRun]) -> dict[str, list[PlannedRun]]:
    """The runs by rung, the cheapest first; a run without one is its own.

    A branch is in the rung of its trunk, without which it takes more than is counted here.
    """
    found: dict[str, list[PlannedRun]] = {}
    own = {run.identity: run.rung or run.name for run in runs}
    for run in runs:
        found.setdefault(own.get(run.trunk or "", own[run.identity]), []).append(run)
    costs = {name: sum(run.own_flops for run in rung) for name, rung in found.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: costs[name])}


def chosen(
    runs: Sequence[PlannedRun], budget: Budget, *, workers: int, startup_s: float
) -> list[PlannedRun]:
    """The largest part of a design that fits: whole rungs, the cheapest first.

    Raises LabError where not even one does, or where a time is asked for and not known.
    """
    kept: set[str] = set()
    for name, rung in rungs_of(runs).items():
        more = kept | {run.name for run in rung}
        part = [run for run in runs if run.name in more]
        takes = _takes(part, budget, workers=workers, startup_s=startup_s)
        if takes > budget.amount:
            if not kept:
                least = dataclasses.replace(budget, amount=takes)
                raise LabError(
                    f"--budget: the cheapest rung, {name} ({len(rung)} runs), takes {least}; "
                    f"{budget} is too little"
                )
            break
        kept = more
    return [run for run in runs if run.name in kept]


def _takes(part: Sequence[PlannedRun], budget: Budget, *, workers: int, startup_s: float) -> float:
    if budget.unit == "flops":
        return sum(run.own_flops for run in part)
    seconds = makespan_s(part, workers=workers, startup_s=startup_s)
    if seconds is None:
        unknown = [run.name for run in part if run.seconds is None]
        raise LabError(
            f"--budget {budget}: the time of {', '.join(unknown[:3])} is not known; measure this "
            "machine with python -m lab.launch.plan SWEEP --calibrate (a pod: its --report)"
        )
    return seconds


def duration_text(seconds: float) -> str:
    """45 s, 12 min, 3.4 h, 2.1 d."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 172800)):
        if seconds < most:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} d"
