"""One round: a sweep whose machines are disturbed at random until all runs have ended; judged."""

import collections
import dataclasses
import itertools
import pathlib
import random
import shutil
import time

from lab.launch.goodput import Session, goodput, read_sessions
from lab.launch.timesheet import TIMES
from tools.chaos_machines import DISTURBANCES, Machine, Site, wakes
from tools.kill_ladder import read, same_bytes

END_S = 900.0  # of a round
LOOK_S = 0.05
ANY = 0.2  # of the disturbances: not of a machine that trains
KEPT = 2  # checkpoints of a run
SWEEP = """
def sweep():
    return [
        {{"config": "configs/elm.py:s1", "name": f"r{{seed}}", "seed": seed, "study": "chaos"}}
        for seed in range({runs})
    ]
"""
TINY = (
    "--config.optimizer.warmup=1 steps",
    "--config.train.batch_size=8",
    "--config.train.evaluation_batch_size=16",
    "--config.train.log_every_steps=1",
    "--config.train.evaluate_every_steps=100",
    "--config.tokenizer.resolution=2",
    "--config.data.train_examples=64",
    "--config.data.validation_examples=16",
    "--config.execution.checkpoint_every_steps=25",
    f"--config.execution.keep_last={KEPT}",
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done to which sweep."""

    workdir: pathlib.Path
    runs: int
    steps: int
    machines: int
    disturbances: int  # at most: a round is over when all runs have ended
    every_s: float  # between disturbances, on the mean
    kinds: tuple[str, ...]  # of disturbances

    def arguments(self, folder: pathlib.Path) -> list[str]:
        """Of the sweep command, for runs below a folder."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        sweep = self.workdir / f"sweep-{self.runs}.py"
        sweep.write_text(SWEEP.format(runs=self.runs), encoding="utf-8")
        where = (
            f"--config.execution.workdir={folder}",
            f"--config.data.data_dir={self.workdir / 'data'}",
        )
        return [str(sweep), *TINY, f"--config.train.duration={self.steps} steps", *where]

    def straight(self) -> pathlib.Path:
        """The runs that nothing happens to, trained once."""
        place = self.workdir / f"straight-{self.runs}-{self.steps}"
        done = place.with_suffix(".done")
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)
            site = Site(place, self.arguments(place / "runs"))
            try:
                code = site.start().process.wait()
            finally:
                site.end()
            if code:
                raise SystemExit(f"error: the undisturbed sweep left with {code}; see {place}/said")
            done.touch()
        return place / "runs"


@dataclasses.dataclass(frozen=True)
class Found:
    """How a round ended."""

    disturbed: dict[str, int]
    sessions: int
    ended_once: int  # runs
    same: int
    productive_share: float
    bad: tuple[str, ...]  # lines, a defect each
    seconds: float


def play(plan: Plan, chance: random.Random, folder: pathlib.Path) -> Found:
    """One round in an empty folder."""
    straight = plan.straight()
    runs, began_s = folder / "runs", time.monotonic()
    site = Site(folder, plan.arguments(runs))
    try:
        disturbed, failures = disturb(plan, chance, site, runs)
        orphans = site.orphans()
    finally:
        site.end()
    found = sessions_of(runs)
    spent = [goodput(sessions) for sessions in found.values()]
    total_s = sum(each.total_s for each in spent)
    names = [path.parent.relative_to(straight) for path in straight.glob("*/*/record.jsonl")]
    return Found(
        disturbed=dict(disturbed),
        sessions=sum(len(sessions) for sessions in found.values()),
        ended_once=sum(ends(runs / name) == 1 for name in names),
        same=sum(not differences(runs / name, straight / name) for name in names),
        productive_share=sum(s.productive_s for s in spent) / total_s if total_s else 0.0,
        bad=(*sorted(failures), *orphans, *judge(runs, straight)),
        seconds=round(time.monotonic() - began_s, 1),
    )


def disturb(
    plan: Plan, chance: random.Random, site: Site, runs: pathlib.Path
) -> tuple[collections.Counter[str], set[str]]:
    """Serve the sweep with machines that come and go, until all runs have ended or time is up.

    What was done how often, and the runs that failed.
    """
    machines: list[Machine] = []
    disturbed: collections.Counter[str] = collections.Counter()
    failures: set[str] = set()
    due_s = began_s = time.monotonic()
    while not all_ended(runs, plan.runs) and time.monotonic() - began_s < END_S:
        now_s = time.monotonic()
        for machine in machines:
            if machine.wakes_s is not None and now_s >= machine.wakes_s:
                wakes(machine)
        machines = [machine for machine in machines if machine.is_alive]
        while len(machines) < plan.machines:
            machines.append(site.start())
        failures |= failures_in(runs)
        is_due = now_s >= due_s and disturbed.total() < plan.disturbances
        victims = victims_of(machines, runs, chance) if is_due else []
        if victims:
            machine, kind = chance.choice(victims), chance.choice(plan.kinds)
            lasts_s = DISTURBANCES[kind](machine, chance)
            machine.wakes_s = now_s + lasts_s if lasts_s else None
            disturbed[kind] += 1
            due_s = now_s + chance.uniform(0.0, 2 * plan.every_s)
        time.sleep(LOOK_S)
    for machine in machines:
        wakes(machine)
    return disturbed, failures


def victims_of(machines: list[Machine], runs: pathlib.Path, chance: random.Random) -> list[Machine]:
    """Mostly machines that train, else any that has a worker; none while nothing is trained."""
    awake = [machine for machine in machines if machine.wakes_s is None and machine.workers()]
    pids = {sessions[-1].pid for sessions in sessions_of(runs).values() if is_training(sessions)}
    training = [machine for machine in awake if machine.works_as(pids)]
    return awake if training and chance.random() < ANY else training


def is_training(sessions: list[Session]) -> bool:
    """Whether the newest session has a state and goes on."""
    return bool(sessions) and not sessions[-1].ended and sessions[-1].lines[-1].step is not None


def all_ended(runs: pathlib.Path, count: int) -> bool:
    """Whether every run has its last row."""
    paths = list(runs.glob("*/*/record.jsonl"))
    return len(paths) == count and all(ends(path.parent) for path in paths)


def ends(run: pathlib.Path) -> int:
    """End rows of a record."""
    path = run / "record.jsonl"
    return path.read_text(encoding="utf-8").count('"kind": "end"') if path.exists() else 0


def failures_in(runs: pathlib.Path) -> set[str]:
    """First lines of what failed with an error of its own."""
    found = set()
    for path in runs.glob("*/*/failure.txt"):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            continue  # it is tried again
        found.add(f"{path.parent.name} failed: {lines[0] if lines else ''}")
    return found


def judge(runs: pathlib.Path, straight: pathlib.Path) -> list[str]:
    """All that is not as it should be, a line each."""
    lines = []
    for path in sorted(straight.glob("*/*/record.jsonl")):
        run = runs / path.parent.relative_to(straight)
        lines += [f"{run.name}: {line}" for line in differences(run, path.parent)]
        lines += [f"{run.name}: {line}" for line in overlaps(read_sessions(run / TIMES))]
        lines += [f"{run.name}: left behind: {name}" for name in strays(run)]
    more = {p.name for p in runs.glob("*/*")} - {p.name for p in straight.glob("*/*")}
    return [*lines, *(f"left behind: {name}" for name in sorted(more))]


def differences(run: pathlib.Path, straight: pathlib.Path) -> list[str]:
    """Between a run and the one that nothing happened to."""
    record, other = run / "record.jsonl", straight / "record.jsonl"
    ours, theirs = read(record), read(other)
    lines = []
    if ends(run) != 1:
        lines.append(f"{ends(run)} end rows")
    if len(ours) != len(theirs):
        lines.append(f"{len(ours)} rows, not {len(theirs)}")
    unlike = [b for a, b in zip(ours, theirs, strict=False) if a != b]
    if unlike:
        lines.append(f"another row of {unlike[0]['kind']} {unlike[0].get('step', '')}")
    if not ours or ours[-1].get("params_sha256") != theirs[-1]["params_sha256"]:
        lines.append("other parameters")
    if not same_bytes(other, record, "validation.npz"):
        lines.append("another validation.npz")
    return lines


def overlaps(sessions: list[Session]) -> list[str]:
    """Sessions that told of the run while another one did."""
    spans = sorted((session.at_unix_s, session.name) for session in sessions)
    return [
        f"trained by two at the same time: session {other} began {span[1] - later[0]:.2f} s before "
        f"the last of {name}"
        for (span, name), (later, other) in itertools.pairwise(spans)
        if later[0] < span[1]
    ]


def strays(run: pathlib.Path) -> list[str]:
    """What a run that has ended should not have; the lease of one that was killed then may stay."""
    found = [p.name for p in run.glob("checkpoints/*")]
    steps = sorted(int(name) for name in found if name.isdecimal())
    usual = {"record.jsonl", "config.json", "validation.npz", "checkpoints", TIMES}
    more = {p.name for p in run.glob("*")} - usual - {"claim.lock", "claim.lease"}
    extra = [f"checkpoints/{step}" for step in steps[:-KEPT]]
    return sorted(more) + extra + [name for name in found if not name.isdecimal()]


def sessions_of(runs: pathlib.Path) -> dict[str, list[Session]]:
    """By the run's folder."""
    return {path.parent.name: read_sessions(path) for path in runs.glob(f"*/*/{TIMES}")}
