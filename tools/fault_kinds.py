"""Faults, each as one try: what is harmed, how the run answers, whether it ends as it should."""

import dataclasses
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

from tools.fault_room import FilledDisk, ReadOnly
from tools.fault_stage import (
    EVERY,
    GUARD,
    ROOT,
    STEPS,
    Ended,
    Stage,
    difference,
    end_of,
    kill,
    reached,
    run_of,
    saved,
    wait_for_step,
)

DIVERGED, NOT_SAVED, HANG, LOST, ABORTED = 3, 4, 5, 6, -6  # exit codes: docs/reliability.md
SAME = "went on bit for bit"
BAD_BATCH = 13  # whose numbers are not finite


@dataclasses.dataclass(frozen=True)
class Try:
    """How one try ended. `lost_steps` are updates that had to be made again."""

    good: bool
    outcome: str
    lost_steps: int | None = None
    detail: str = ""


Fault = Callable[[Stage, str, random.Random], Try]


def gone_on(
    stage: Stage,
    place: pathlib.Path,
    straight: pathlib.Path,
    *more: str,
    before: str = "",
    patch: str = "",
) -> Try:
    """Start the same command again and compare its end; `before` says how it came to that."""
    done, newest = reached(place), max(saved(place), default=0)
    ended = end_of(stage.start(place, *more, patch=patch))
    return judged(ended, place, straight, lost_steps=max(0, done - newest), before=before)


def judged(
    ended: Ended, place: pathlib.Path, straight: pathlib.Path, *, lost_steps: int, before: str
) -> Try:
    """Whether a run that went on is the straight one."""
    how = f"{before}, then {SAME}" if before else SAME
    if ended.code:
        return Try(False, "FAILED", lost_steps, f"exit code {ended.code}: {ended.line}")
    differs = difference(place, straight)
    if differs:
        return Try(False, "DIFFERS", lost_steps, differs)
    return Try(True, how, lost_steps)


def killed(
    stage: Stage, place: pathlib.Path, chance: random.Random, *more: str, patch: str = ""
) -> bool:
    """Train and be killed at a random moment; one in four before the first update."""
    process = stage.start(place, *more, patch=patch)
    if chance.random() < 0.25:
        time.sleep(chance.uniform(0.0, 4.0))
        hit = process.poll() is None
    else:
        step = chance.randrange(1, STEPS)
        hit = wait_for_step(process, place, step, more_s=chance.uniform(0.0, 0.1))
    kill(process)
    return hit


def kill_anywhere(stage: Stage, name: str, chance: random.Random) -> Try:
    """SIGKILL at a random moment."""
    straight, place = stage.plain(), stage.fresh(name)
    hit = killed(stage, place, chance)
    found = gone_on(stage, place, straight)
    return found if hit else dataclasses.replace(found, detail="ended before the kill")


def kill_in_save(stage: Stage, name: str, chance: random.Random) -> Try:
    """SIGKILL of a process that does nothing but save: what is left is good, and nothing else."""
    from lab.core.store import Store
    from tests.core import checkpoint_writer

    place = stage.folder / name.rpartition("-")[0]  # one folder for all tries
    command = [sys.executable, "-m", "tests.core.checkpoint_writer", str(place)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    lines = [child.stdout.readline()]
    time.sleep(chance.uniform(0.0, 0.4))
    child.kill()
    lines += child.stdout.readlines()
    child.stdout.close()
    child.wait()
    returned = int([line for line in lines if line.endswith("\n")][-1])
    inside = any(path.name.startswith(".") for path in place.iterdir())
    with Store(place, keep_last=2, keep_every=50) as opened:
        restored = opened.restore(checkpoint_writer.tree(0))
        step = restored.step if restored else 0
        strays = {path.name for path in place.iterdir()} ^ {str(s) for s in opened.steps()}
    detail = "inside a save" if inside else "between two"
    if strays or (restored and restored.skipped):
        return Try(False, "LEFT BEHIND", returned - step, f"{strays or restored}")
    if restored and not _same_tree(restored.tree, checkpoint_writer.tree(step)):
        return Try(False, "DIFFERS", returned - step, f"step {step}")
    good = step >= returned - 1  # a save that returned commits the one before it
    return Try(good, "the newest checkpoint is good", max(0, returned - step), detail)


def _same_tree(tree: object, expected: object) -> bool:
    import jax
    import numpy as np

    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def kill_one_of_two(stage: Stage, name: str, chance: random.Random) -> Try:
    """SIGKILL of one of two processes that train together."""

    def train_both(place: pathlib.Path) -> None:
        codes = [end_of(process).code for process in stage.start_two(place)]
        if any(codes):
            raise SystemExit(f"error: two processes left with {codes}")

    straight, place = stage.straight("two", train_both), stage.fresh(name)
    both = stage.start_two(place)
    victim = int(name.rpartition("-")[2]) % 2
    step = chance.randrange(1, STEPS)
    hit = wait_for_step(both[victim], place, step, more_s=chance.uniform(0.0, 0.1))
    kill(both[victim])
    other = end_of(both[1 - victim])
    # Where process 0 died, jax's own abort may be first.
    clear = other.code == LOST and other.is_clear or (victim == 0 and other.code == ABORTED)
    if hit and not clear:
        return Try(False, "NO CLEAR STOP", None, f"exit code {other.code}: {other.line}")
    done, newest = reached(place), max(saved(place), default=0)
    codes = [end_of(process) for process in stage.start_two(place)]
    worst = max(codes, key=lambda ended: abs(ended.code))
    said = f"the other left with {other.code if other.code >= 0 else 128 - other.code}"
    found = judged(worst, place, straight, lost_steps=max(0, done - newest), before=said)
    return dataclasses.replace(found, detail=f"process {victim}" if hit else "ended before")


def damaged(change: Callable[[pathlib.Path, random.Random], None]) -> Fault:
    """One file of the newest checkpoint of a killed run is harmed."""

    def fault(stage: Stage, name: str, chance: random.Random) -> Try:
        straight, place = stage.plain(), stage.fresh(name)
        shutil.copytree(straight, place, dirs_exist_ok=True)
        newest = chance.choice([step for step in saved(straight) if 2 * EVERY <= step < STEPS])
        as_if_killed_at(place, newest)
        folder = run_of(place) / "checkpoints" / str(newest)
        files = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size]
        file = chance.choice(sorted(files))
        change(file, chance)
        ended = end_of(stage.start(place))
        found = judged(ended, place, straight, lost_steps=EVERY, before="fell back by a line")
        said = f"checkpoints/{newest}" in " ".join(ended.out.split()) + ended.err
        if found.good and not said:
            return Try(False, "NOT NAMED", EVERY, file.name)
        return found

    return fault


def as_if_killed_at(place: pathlib.Path, step: int) -> None:
    """Drop the end of the record and the checkpoints above a step."""
    record = run_of(place) / "record.jsonl"
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:-1]))
    for newer in (s for s in saved(place) if s > step):
        shutil.rmtree(run_of(place) / "checkpoints" / str(newer))


def truncate(file: pathlib.Path, chance: random.Random) -> None:
    """Cut a file short."""
    content = file.read_bytes()
    file.write_bytes(content[: chance.randrange(max(1, len(content)))])


def flip(file: pathlib.Path, chance: random.Random) -> None:
    """Flip a bit of a file."""
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def remove(file: pathlib.Path, chance: random.Random) -> None:
    """Delete a file."""
    file.unlink()


def full_disk(stage: Stage, name: str, chance: random.Random) -> Try:
    """The disk is full in the middle of the run; later there is room."""
    straight, place = stage.plain(), stage.fresh(name)
    used = sum(p.stat().st_size for p in straight.rglob("*") if p.is_file())
    with FilledDisk(place, int(used * chance.uniform(0.2, 0.8))) as disk:
        ended = end_of(stage.start(place, patch=disk.patch))
        if ended.code != NOT_SAVED or not ended.is_clear:
            return Try(False, "NO CLEAR STOP", None, f"exit code {ended.code}: {ended.line}")
        disk.make_room()
        found = gone_on(stage, place, straight, before="stopped with 4")
    return dataclasses.replace(found, detail=disk.how)


def read_only(stage: Stage, name: str, chance: random.Random) -> Try:
    """The folder of checkpoints refuses writes from some step on; later it does not."""
    straight, place = stage.plain(), stage.fresh(name)
    process = stage.start(place)
    hit = wait_for_step(process, place, chance.randrange(1, STEPS - EVERY), more_s=0.0)
    with ReadOnly(run_of(place) / "checkpoints") as folder:
        ended = end_of(process)
    if folder.refused:
        return Try(True, "not tried", None, folder.refused)
    if hit and (ended.code != NOT_SAVED or not ended.is_clear):
        return Try(False, "NO CLEAR STOP", None, f"exit code {ended.code}: {ended.line}")
    return gone_on(stage, place, straight, before=f"stopped with {ended.code}")


SLOW = """
import os, random, time
chance = random.Random({seed})
def slow(real):
    def call(*given, **more):
        time.sleep(chance.uniform(0.0, 0.3))
        return real(*given, **more)
    return call
for name in ("fsync", "rename", "replace"):
    setattr(os, name, slow(getattr(os, name)))
"""


def slow_storage(stage: Stage, name: str, chance: random.Random) -> Try:
    """Every fsync and rename takes up to 0.3 s, and the run is killed."""
    straight, place = stage.plain(), stage.fresh(name)
    patch = SLOW.format(seed=chance.randrange(1000))
    killed(stage, place, chance, patch=patch)
    return gone_on(stage, place, straight, patch=patch)


SMALL_MEMORY = """
import time
from lab.data.code_shards import CodeShards
from lab.tokenizers.code_rows import open_code_rows
for kept in (CodeShards.__init__, open_code_rows):
    kept.__kwdefaults__["limit_bytes"] = 0
real = CodeShards._records
def late(self, shard, positions):
    time.sleep(0.04)
    return real(self, shard, positions)
CodeShards._records = late
"""


def lost_shard(stage: Stage, name: str, chance: random.Random) -> Try:
    """A shard of the training codes goes in the middle of the run, and comes back later.

    Codes are read as they are needed, and slowly. Every second time the file stays and is empty.
    """
    flags = stage.codes()

    def on(codes: pathlib.Path) -> tuple[str, ...]:
        return (*flags, f"--config.tokenizer.codes={codes}")

    straight = stage.straight(
        "coded", lambda at: stage.must_end(at, *on(stage.folder / "codes"), patch=SMALL_MEMORY)
    )
    place = stage.fresh(name)
    codes = place / "codes"
    shutil.copytree(stage.folder / "codes", codes)
    shard = chance.choice(sorted((codes / "train").glob("*.array_record")))
    process = stage.start(place, *on(codes), patch=SMALL_MEMORY)
    wait_for_step(process, place, 1, more_s=chance.uniform(0.0, 0.5))
    shutil.copyfile(shard, place / "away")
    empty = int(name.rpartition("-")[2]) % 2
    os.truncate(shard, 0) if empty else shard.unlink()
    ended = end_of(process)
    shutil.copyfile(place / "away", shard)
    if ended.code == 0:
        same = difference(place, straight)
        return Try(not same, "had it open" if not same else "DIFFERS", 0, same)
    if ended.code != 2 or not ended.is_clear or shard.name not in ended.line:
        return Try(False, "NO CLEAR STOP", None, f"exit code {ended.code}: {ended.line}")
    return gone_on(stage, place, straight, *on(codes), before="stopped with 2, naming it")


NOT_FINITE = f"""
import numpy
from lab.core.keys import Stream
from lab.train.generator_job import GeneratorJob
real = GeneratorJob.place
def place(self, batch, stream, step):
    if stream is Stream.TRAIN and step == {BAD_BATCH}:
        batch = {{**batch, "weight": batch["weight"] * numpy.nan}}
    return real(self, batch, stream, step)
GeneratorJob.place = place
"""


def nan_stops(stage: Stage, name: str, chance: random.Random) -> Try:
    """A batch is not finite, and the policy is to stop: the run ends, its last checkpoint good."""
    place = stage.fresh(name)
    ended = end_of(stage.start(place, patch=NOT_FINITE))
    good = f"the last good checkpoint is step {BAD_BATCH // EVERY * EVERY}"
    if ended.code != DIVERGED or good not in ended.line or not ended.is_clear:
        return Try(False, "NO CLEAR STOP", None, f"exit code {ended.code}: {ended.line}")
    return Try(True, "stopped with 3, naming the checkpoint", BAD_BATCH % EVERY)


def nan_under(policy: str) -> Fault:
    """A batch is not finite, and the run, which is killed too, leaves it out or goes back."""
    flags = (f"--config.train.guard.policy={policy}", *GUARD[: 1 + (policy == "rollback")])

    def fault(stage: Stage, name: str, chance: random.Random) -> Try:
        straight = stage.straight(
            policy, lambda place: stage.must_end(place, *flags, patch=NOT_FINITE)
        )
        place = stage.fresh(name)
        killed(stage, place, chance, *flags, patch=NOT_FINITE)
        return gone_on(stage, place, straight, *flags, patch=NOT_FINITE)

    return fault


CLOCK = """
import random, time
chance, real = random.Random({seed}), time.time
ahead_s, next_s = [0.0], [time.monotonic()]
def jumped():
    if time.monotonic() >= next_s[0]:
        ahead_s[0] += chance.choice((-1, 1)) * 86400.0
        next_s[0] = time.monotonic() + chance.uniform(0.5, 2.0)
    return real() + ahead_s[0]
time.time = jumped
"""


def clock_jump(stage: Stage, name: str, chance: random.Random) -> Try:
    """The clock of the day jumps by a day every second, and the run saves by minutes too."""
    straight, place = stage.plain(), stage.fresh(name)
    patch = CLOCK.format(seed=chance.randrange(1000))
    timed = "--config.execution.checkpoint_every_minutes=30"
    ended = end_of(stage.start(place, timed, patch=patch))
    found = judged(ended, place, straight, lost_steps=0, before="")
    return dataclasses.replace(found, outcome="nothing happened") if found.good else found


FAULTS: dict[str, tuple[str, Fault]] = {
    "kill": ("SIGKILL at a random moment", kill_anywhere),
    "kill-in-save": ("SIGKILL inside a save", kill_in_save),
    "kill-one-of-two": ("SIGKILL of one of two processes", kill_one_of_two),
    "truncated": ("a file of the newest checkpoint cut short", damaged(truncate)),
    "flipped": ("a bit of the newest checkpoint flipped", damaged(flip)),
    "missing": ("a file of the newest checkpoint missing", damaged(remove)),
    "full-disk": ("the disk is full", full_disk),
    "read-only": ("checkpoints cannot be written", read_only),
    "slow-storage": ("fsync and rename up to 0.3 s late, and SIGKILL", slow_storage),
    "lost-shard": ("a shard of the codes goes in mid-run", lost_shard),
    "nan-stop": ('a batch that is not finite, policy "stop"', nan_stops),
    "nan-skip": ('a batch that is not finite, policy "skip", and SIGKILL', nan_under("skip")),
    "nan-rollback": (
        'a batch that is not finite, policy "rollback", and SIGKILL',
        nan_under("rollback"),
    ),
    "clock-jump": ("the clock jumps by a day, back and forth, every second", clock_jump),
}
