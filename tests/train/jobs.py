"""Jobs on made-up tokens: no data set is prepared."""

import itertools
import json

import jax
import numpy as np

from configs.layouts import LAYOUTS
from lab.core.layout import make_layout
from lab.data.tokens import Rows, TokenTable
from lab.tokenizers.pixels import Pixels
from lab.train.generator_job import GeneratorJob
from lab.train.job import Images, Split
from lab.train.loop import Hooks, Loop
from tests.models.worlds import config

TOKENS = 12  # 2 x 2 pixels of 3 channels
SMALL = {
    "train.batch_size": 8,
    "train.evaluation_batch_size": 16,
    "train.duration": "10 steps",
    "train.log_every_steps": 1,
    "train.evaluate_every_steps": 5,
    "tokenizer.resolution": 2,
    "tokenizer.levels": 8,
    "optimizer.warmup": "2 steps",
}


def split(examples, *, seed):
    """Tokens with structure: runs of neighbours."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, examples).astype(np.int32)
    steps = rng.integers(0, 2, (examples, TOKENS)).cumsum(axis=1)
    tokens = ((steps + labels[:, None]) % 8).astype(np.uint8)
    rows = TokenTable(Rows(tokens, labels))
    return Split(rows=rows, name="made_up", digest=str(seed), classes=3)


def job(tmp_path, *, layout="ddp", devices=8, size="s4", validation=37, **overrides):
    """A job of a small ELM under a layout of so many devices."""
    place = {"execution.workdir": str(tmp_path), "execution.layout": layout}
    run = config(size, **{**SMALL, **place, **overrides})
    tokenizer = Pixels(resolution=2, channels="rgb", levels=8)
    images = Images(train=split(48, seed=0), validation=split(validation, seed=1))
    made = make_layout(layout, LAYOUTS, jax.devices()[:devices])
    result = GeneratorJob(run, layout=made, tokenizer=tokenizer, images=images)
    result.directory.mkdir(parents=True, exist_ok=True)
    return result


class _Watched(Loop):
    """Knows which step it evaluates, so that a test can ask to stop there or elsewhere."""

    evaluating = None

    def _evaluate(self, step):
        self.evaluating = step
        try:
            return super()._evaluate(step)
        finally:
            self.evaluating = None


def hooks(**more):
    """Of a loop that nobody stops, by a clock that ticks at every look."""
    ticks = itertools.count()
    usual = {
        "clock": lambda: float(next(ticks)),
        "should_stop": lambda: False,
        "progress": lambda progress: None,
        "warn": lambda line: None,
    }
    return Hooks(**{**usual, **more})


def train(made, *, stop_at=None, stop_in=None, looks=1, warn=None):
    """Run the loop; `stop_at` asks to stop before that update, as a signal would.

    `stop_in` asks during the evaluation of that step, at the look number `looks` between batches.
    """
    seen = {"step": made_start(made), "looks": 0, "time": 0.0}
    warnings = [] if warn is None else warn

    def clock():
        seen["time"] += 0.5
        return seen["time"]

    def should_stop():
        if loop.evaluating is not None:
            seen["looks"] += loop.evaluating == stop_in
            return loop.evaluating == stop_in and seen["looks"] >= looks
        seen["step"] += 1
        return stop_at is not None and seen["step"] > stop_at

    given = hooks(clock=clock, should_stop=should_stop, warn=warnings.append)
    loop = _Watched(made, given)
    return loop.run()


def made_start(made):
    """The newest checkpoint's step."""
    folder = made.directory / "checkpoints"
    steps = [int(p.name) for p in folder.glob("*") if p.name.isdecimal()] if folder.exists() else []
    return max(steps, default=0)


def record(made):
    """The rows of the record without the clock."""
    lines = (made.directory / "record.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "clock"} for line in lines]


def losses(made):
    """Training losses by step."""
    return np.array([r["loss_nats_per_token"] for r in record(made) if r["kind"] == "train"])
