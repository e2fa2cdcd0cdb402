"""A trained generator, from its run directory."""

import dataclasses
import pathlib

import jax

from lab.core.config import RunConfig
from lab.core.errors import LabError
from lab.core.finished import read_finished
from lab.core.manifest import leaf_size
from lab.core.store import Store
from lab.models import families
from lab.models.generator import Generator
from lab.tokenizers.spec import TokenSpec

CHECKPOINTS = "checkpoints"
CLASSES = "params/classes/table/value"  # a leaf with a row a class and one for the null class


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that has ended well, its parameters not yet read."""

    directory: pathlib.Path
    run: RunConfig
    step: int  # of its last checkpoint, unless another was asked for
    weights: str  # "raw", or "ema" where the run kept an average
    classes: int

    def codes(self, spec: TokenSpec) -> families.Codes:
        """What its tokenizer tells the model."""
        return families.Codes(
            vocabulary=spec.vocabulary,
            grid=spec.grid,
            classes=self.classes,
            channels=spec.channels,
        )

    def open(self, spec: TokenSpec, *, platform: str) -> Generator:
        """The generator for this platform, its parameters on the host."""
        dtype = self.run.execution.compute_dtype
        if dtype == "auto":
            dtype = "float32" if platform == "cpu" else "bfloat16"
        running = families.Running(
            compute_dtype=dtype,
            platform=platform,
            unroll=self.run.execution.unroll_layers,
        )
        make = families.builder(self.run.model, self.codes(spec), running)
        part = "params" if self.weights == "raw" else self.weights
        like = {part: jax.eval_shape(make, jax.random.key(0))}
        with Store(self.directory / CHECKPOINTS, writable=False) as store:
            restored = store.restore(like, step=self.step, part=True)
        assert restored is not None  # a named step is restored or raises
        return restored.tree[part]


def find_trained(directory: pathlib.Path, *, weights: str = "", step: int | None = None) -> Trained:
    """The finished run of a generator at its last checkpoint, or at the one of `step`; its average
    where it kept one, unless told otherwise.

    Raises LabError for a directory of anything else, for a run that has not ended well, for a step
    of which no checkpoint is kept, and where an average is asked for and none was kept.
    """
    finished = read_finished(directory, RunConfig)
    if step is None:
        step = finished.step
    elif step not in (kept := kept_steps(directory)):
        listed = ", ".join(map(str, kept)) or "none"
        raise LabError(f"{directory}: no checkpoint of step {step}; there are {listed}")
    run = finished.run
    averaged = bool(run.optimizer.ema_decay)
    if weights == "ema" and not averaged:
        raise LabError(f"{directory}: kept no average (config.optimizer.ema_decay = 0); take raw")
    weights = weights or ("ema" if averaged else "raw")
    folder = directory / CHECKPOINTS / str(step)
    classes = leaf_size(folder, CLASSES, 0, of="generator") - 1
    return Trained(directory=directory, run=run, step=step, weights=weights, classes=classes)


def kept_steps(directory: pathlib.Path) -> tuple[int, ...]:
    """The steps of a run of which a checkpoint is kept, ascending."""
    with Store(directory / CHECKPOINTS, writable=False) as store:
        return store.steps()
