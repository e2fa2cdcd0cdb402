"""Small runs to be harmed: started with a patch, killed, gone on with, compared bit for bit."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS, EVERY = 24, 4  # updates of a run; between its checkpoints
END_S = 300.0
CODED = "256"  # images in codes: more than a run sees, so that some are not read yet at any time
TRAIN = "from lab.launch.door import leave\nfrom lab.launch.train import main\nleave(main)\n"
RUN = (
    "--config.optimizer.warmup=1 steps",
    "--config.train.batch_size=8",
    "--config.train.evaluation_batch_size=16",
    "--config.train.log_every_steps=1",
    "--config.train.evaluate_every_steps=10",
    f"--config.train.duration={STEPS} steps",
    "--config.data.train_examples=64",
    "--config.data.validation_examples=16",
    f"--config.execution.checkpoint_every_steps={EVERY}",
    "--config.execution.keep_last=9",
)
GUARD = (
    "--config.train.guard.window=8",
    "--config.train.guard.rollback_steps=4",
)
AUTOENCODER = (
    "--config.autoencoder.width=8",
    "--config.autoencoder.multipliers=1-1",
    "--config.autoencoder.residual_blocks=1",
    "--config.autoencoder.decoder_blocks=1",
    "--config.autoencoder.latent_channels=8",
    "--config.autoencoder.groups=4",
    "--config.images.resolution=8",
    "--config.train.duration=2 steps",
    "--config.data.name=dead_leaves",
)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """What it said last of what went wrong."""
        said = [line for line in self.err.splitlines() if line.strip()]
        return said[-1] if said else ""

    @property
    def is_clear(self) -> bool:
        """One line says why, and no traceback."""
        return self.line.startswith("error: ") and "Traceback" not in self.err


class Stage:
    """A folder with the runs that nothing happens to, and room for those that are harmed."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def flags(self, place: pathlib.Path, *more: str) -> list[str]:
        """Of a run of a generator on pixels; a run of its own wants other flags as well."""
        where = (f"--config.execution.workdir={place}", f"--config.data.data_dir={self.data}")
        usual = () if "--config" in more else ("--config", "configs/elm.py:s1")
        pixels = () if "--config" in more else ("--config.tokenizer.resolution=2",)
        return [*usual, *RUN, *pixels, *where, *more]

    @property
    def data(self) -> pathlib.Path:
        """Where images are prepared, once."""
        return self.folder / "data"

    def fresh(self, name: str) -> pathlib.Path:
        """An empty folder for a try."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place

    def straight(self, name: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
        """The run of that name that nothing happens to, made once."""
        place, done = self.folder / name, self.folder / f"{name}.done"
        if not done.exists():
            make(self.fresh(name))
            done.touch()
        return place

    def plain(self) -> pathlib.Path:
        """One process, no guard, nothing happens."""
        return self.straight("plain", lambda place: self.must_end(place))

    def must_end(self, place: pathlib.Path, *more: str, patch: str = "") -> None:
        """Train to the end; anything else is a defect of this tool or of the laboratory."""
        ended = end_of(self.start(place, *more, patch=patch))
        if ended.code:
            raise SystemExit(f"error: a run to compare with left with {ended.code}: {ended.line}")

    def start(self, place: pathlib.Path, *more: str, patch: str = "") -> subprocess.Popen[str]:
        """A process that trains, after a patch of the program."""
        return begin([sys.executable, "-c", patch + TRAIN, *self.flags(place, *more)])

    def start_two(
        self, place: pathlib.Path, *more: str, patch: str = ""
    ) -> list[subprocess.Popen[str]]:
        """Two processes that train one run."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        named = ("--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process")
        flags = ("--config.execution.devices=2", *more, *named)
        return [self.start(place, *flags, str(index), patch=patch) for index in range(2)]

    def codes(self) -> tuple[str, ...]:
        """Flags of a run on codes in several shards, which are made once."""
        tokenizer, codes = self.straight("tokenizer", self._train_tokenizer), self.folder / "codes"
        if not codes.exists():
            run = str(run_of(tokenizer))
            flags = ("--tokenizer", run, "--data", "dead_leaves", "--examples", CODED)
            more = ("--shards", "64", "--out", str(codes), "--data-dir", str(self.data))
            ended = end_of(begin([sys.executable, "-m", "lab.launch.encode", *flags, *more]))
            if ended.code:
                shutil.rmtree(codes, ignore_errors=True)
                raise SystemExit(f"error: codes could not be made: {ended.line}")
        return (
            "--config", "configs/elm.py:s1", "--config.tokenizer.name=trained",
            f"--config.tokenizer.run={run_of(tokenizer)}", "--config.model.subcodes=2",
            f"--config.data.train_examples={CODED}",
        )  # fmt: skip

    def _train_tokenizer(self, place: pathlib.Path) -> None:
        flags = ("--config", "configs/tokenizers/binary.py:small-16", *AUTOENCODER)
        self.must_end(place, *flags)


def begin(command: Sequence[str]) -> subprocess.Popen[str]:
    """A process on one CPU device."""
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "TFDS_DATA_DIR")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**kept, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_of(process: subprocess.Popen[str]) -> Ended:
    """Wait for a process; one that does not end is killed."""
    try:
        out, err = process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += "\nerror: it did not end"
    return Ended(process.returncode, out, err)


def run_of(place: pathlib.Path) -> pathlib.Path:
    """The one run directory below a folder."""
    (found,) = place.glob("*/*/config.json")
    return found.parent


def rows(place: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of the record without the clock; a half-written last line is left out."""
    found = list(place.glob("*/*/record.jsonl"))
    lines = found[0].read_text(encoding="utf-8").split("\n")[:-1] if found else []
    parsed = [json.loads(line) for line in lines]
    return [{key: value for key, value in row.items() if key != "clock"} for row in parsed]


def reached(place: pathlib.Path) -> int:
    """Updates whose rows are written."""
    return max((row["step"] for row in rows(place) if row["kind"] == "train"), default=0)


def saved(place: pathlib.Path) -> list[int]:
    """Committed checkpoints."""
    return sorted(int(path.name) for path in place.glob("*/*/checkpoints/[0-9]*"))


def wait_for_step(
    process: subprocess.Popen[str], place: pathlib.Path, step: int, *, more_s: float
) -> bool:
    """Wait until so many updates are in the record, and a little; False where it ended before."""
    end_s = time.monotonic() + END_S
    while process.poll() is None and time.monotonic() < end_s:
        if reached(place) >= step:
            time.sleep(more_s)
            return process.poll() is None
        time.sleep(0.01)
    return False


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and the end of it."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def difference(place: pathlib.Path, straight: pathlib.Path) -> str:
    """What differs from the run that nothing happened to; "" where nothing does."""
    ours, theirs = rows(place), rows(straight)
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, not {len(theirs)}"
    for one, other in zip(ours, theirs, strict=True):
        if one != other:
            return f"row of {one['kind']} {one.get('step', '')}"
    images = [run_of(each) / "validation.npz" for each in (place, straight)]
    if images[0].read_bytes() != images[1].read_bytes():
        return "validation.npz"
    strays = [p.name for p in (run_of(place) / "checkpoints").iterdir() if not p.name.isdecimal()]
    if strays:
        return f"left behind: {', '.join(strays)}"
    return "" if ours[-1].get("status") == "finished" else "not finished"
