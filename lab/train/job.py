"""What the loop needs of a run, whatever it trains."""

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.branches import durations_of_branches, first_step_of_cooldown
from lab.core.config import AnyRun, check_schedule, identity, run_directory
from lab.core.counts import PEAK_FLOPS_PER_S
from lab.core.errors import LabError
from lab.core.fields import plain
from lab.core.guard_config import STOP
from lab.core.keys import Stream, key
from lab.core.layout import Layout
from lab.core.units import DurationUnit, StepSize, to_steps
from lab.data.batches import Batches, validation_batches
from lab.data.tokens import ImageRows
from lab.train.evaluate import Evaluation
from lab.train.guard import Guard, initial_guard
from lab.train.programs import JobPrograms, Steps
from lab.train.spikes import Spikes
from lab.train.state import State, abstract_with_shardings, state_shardings

TOKEN_BATCHES_TOGETHER = 8  # alone one takes .02 ms, and .15 ms where a thread hands it over


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, encoded: its rows of tokens and what identifies it."""

    rows: ImageRows
    name: str
    digest: str
    classes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """The encoded data of a run; runs on the same data and tokenizer may share it."""

    train: Split
    validation: Split


@dataclasses.dataclass(frozen=True)
class Loss:
    """How a loss is called in rows, and its unit for people."""

    key: str  # starts with "loss_"; its standard error stands under "loss_se_..."
    unit: str


def _check_batches(run: AnyRun, layout: Layout) -> None:
    """Refuse batches that do not divide over the layout, and then into parts."""
    shards, train, parts = layout.batch_shards, run.train, run.execution.accumulation
    for name in ("batch_size", "evaluation_batch_size"):
        size = getattr(train, name)
        if size % shards:
            raise LabError(
                f"config.train.{name} = {size}: a multiple of {shards} is needed, "
                f'the parts into which layout "{layout.name}" cuts a batch'
            )
    share = train.batch_size // shards
    if share % parts:
        allowed = ", ".join(str(n) for n in range(1, share + 1) if share % n == 0)
        raise LabError(
            f"config.execution.accumulation = {parts}: must divide the {share} images that layout "
            f'"{layout.name}" gives each of {shards} parts of config.train.batch_size = '
            f"{train.batch_size}; allowed are {allowed}"
        )


Run = TypeVar("Run", bound=AnyRun)


class Job(abc.ABC, Generic[Run]):
    """All that a run needs, made from its config; nothing is computed before it is asked for."""

    loss: Loss

    @property
    def training_loss(self) -> Loss:
        """What training minimises: the loss of evaluations where nothing else is said."""
        return self.loss

    def __init__(self, run: Run, *, layout: Layout, images: Images) -> None:
        self.run = run
        self.identity = identity(run)
        self.layout = layout
        self.images = images
        _check_batches(run, layout)

    @property
    def directory(self) -> pathlib.Path:
        """The run directory."""
        return run_directory(self.run)

    @property
    @abc.abstractmethod
    def step_size(self) -> StepSize:
        """One step in every unit of duration."""

    @property
    @abc.abstractmethod
    def loss_limit(self) -> float:
        """The training loss above which a run has diverged."""

    def steps(self) -> Steps:
        """The compiled steps, the same ones whenever they are asked for."""
        return self._steps

    @functools.cached_property
    def _steps(self) -> Steps:
        return self._make_steps()

    @abc.abstractmethod
    def _make_steps(self) -> Steps:
        """Steps that compile when they are used first."""

    @abc.abstractmethod
    def place(
        self, batch: Mapping[str, np.ndarray], stream: Stream, step: int
    ) -> dict[str, jax.Array]:
        """A host's part of a batch on the devices.

        What is random in it comes from `stream` (TRAIN or EVALUATE) and `step`, which counts the
        batches of an evaluation.
        """

    @abc.abstractmethod
    def host_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """A training batch as the step takes it; None where the devices compute it in `place`."""

    def stacked(
        self, batches: Sequence[Mapping[str, np.ndarray]], step: int
    ) -> Mapping[str, np.ndarray | jax.Array]:
        """Training batches from `step` on, (K, B, ...): on the host where nothing is computed."""
        here = [self.host_batch(batch) for batch in batches]
        if here[0] is not None:
            rows = [batch for batch in here if batch is not None]
            return {name: np.stack([each[name] for each in rows]) for name in rows[0]}
        return self._stack(
            [self.place(batch, Stream.TRAIN, step + at) for at, batch in enumerate(batches)]
        )

    @functools.cached_property
    def _stack(self) -> Callable[[Any], dict[str, jax.Array]]:
        return jax.jit(
            lambda batches: jax.tree.map(lambda *rows: jnp.stack(rows), *batches),
            out_shardings=self.layout.batch_sharding(axis=1),
        )

    @abc.abstractmethod
    def evaluate(self, steps: Steps, params: Any, *, between: Callable[[], None]) -> Evaluation:
        """The held-out loss of these parameters; `between` is called between batches."""

    @abc.abstractmethod
    def header(self) -> dict[str, Any]:
        """The first row of the record."""

    @abc.abstractmethod
    def amounts(self, step: int) -> dict[str, Any]:
        """What the run has consumed after `step` updates: stands in every row."""

    @abc.abstractmethod
    def counted(self) -> dict[str, Any]:
        """Parameters and FLOPs by role, flat: stands beside every checkpoint."""

    @abc.abstractmethod
    def speed(self, step_s: float) -> dict[str, float | None]:
        """What a step of this length means: stands in a row's clock."""

    def mfu(self, flops_per_s: float) -> float | None:
        """The share of the devices' peak that these FLOPs are; None where that is not known."""
        devices = self.layout.mesh.devices.flat
        peak = PEAK_FLOPS_PER_S.get(devices[0].device_kind)
        return flops_per_s / (peak * len(devices)) if peak else None

    @property
    @abc.abstractmethod
    def _make_state(self) -> Callable[[jax.Array], State]:
        """A function from a key to the state before the first update."""

    @functools.cached_property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        steps = to_steps(self.run.train.duration, self.step_size)
        check_schedule(self.run, warmup=self.warmup_steps, whole=steps, unit=DurationUnit.STEPS)
        return steps

    @functools.cached_property
    def warmup_steps(self) -> int:
        """Updates of the warm-up."""
        return to_steps(self.run.optimizer.warmup, self.step_size)

    @functools.cached_property
    def branch_steps(self) -> frozenset[int]:
        """Steps whose checkpoints stay: the cooldowns of other runs begin there.

        Or where a spike after that beginning may set such a run back to.
        """
        steps = set()
        for duration in durations_of_branches(self.run):
            step = first_step_of_cooldown(self.run, duration, self.step_size)
            if step == self.total_steps + 1:
                step = self.total_steps  # of two durations that were rounded to steps
            if not self.warmup_steps <= step <= self.total_steps:
                raise LabError(
                    f'config.execution.branches = "{self.run.execution.branches}": the cooldown of '
                    f"{plain(duration)} begins at step {step}; allowed are {self.warmup_steps} to "
                    f"{self.total_steps}, between warm-up and end of the trunk"
                )
            steps |= {step, self.oldest_return(step)} - {0}
        return frozenset(steps)

    def oldest_return(self, step: int) -> int:
        """The oldest step to which a spike after this one may set the run back; else this one."""
        return min(Spikes(self.guard).held(step, newest=None), default=step)

    @property
    def platform(self) -> str:
        """Where it runs: "cpu", "gpu" or "tpu"."""
        return self.layout.mesh.devices.flat[0].platform

    @functools.cached_property
    def compute_dtype(self) -> str:
        """The dtype of activations: "auto" is bfloat16 where the device has fast products in it."""
        wanted = self.run.execution.compute_dtype
        return wanted if wanted != "auto" else "float32" if self.platform == "cpu" else "bfloat16"

    @functools.cached_property
    def _shardings(self) -> Any:
        return state_shardings(self.layout, self._bare_state)

    @functools.cached_property
    def _bare_state(self) -> State:
        return jax.eval_shape(self._make_guarded, key(self.run.seed, Stream.INIT, 0))

    def share_shapes(self, of: "Job[Any]") -> None:
        """Take the shapes of the state from a job of the same program: they take time to find."""
        self._bare_state = of._bare_state

    @property
    def programs(self) -> JobPrograms:
        """What is traced and compiled for this job."""
        return JobPrograms(self._bare_state, self.make_initial, self.steps())

    def use(self, programs: JobPrograms) -> None:
        """Take those of a job of the same program (lab/core/program.py) on the same devices."""
        self._bare_state = programs.bare_state
        self.make_initial = programs.make_initial
        self._steps = programs.steps

    @functools.cached_property
    def _make_guarded(self) -> Callable[[jax.Array], State]:
        """The state before the first update, with what a guard carries where there is one."""
        make_state, settings = self._make_state, self.run.train.guard

        def made(key: jax.Array) -> State:
            carried = initial_guard(settings)
            return {**make_state(key), **({"guard": carried} if carried else {})}

        return made

    @functools.cached_property
    def guard(self) -> Guard | None:
        """What makes an update suspicious; None where the loop stops by itself."""
        settings = self.run.train.guard
        if settings.policy == STOP:
            return None
        return Guard(settings, self.training_loss.key, self.loss_limit)

    @functools.cached_property
    def abstract_state(self) -> State:
        """Shapes, dtypes and shardings of the state; nothing is allocated."""
        return abstract_with_shardings(self._bare_state, self._shardings)

    def initial_state(self) -> State:
        """The state before the first update, made where it will live."""
        return self.make_initial(key(self.run.seed, Stream.INIT, 0))

    @functools.cached_property
    def make_initial(self) -> Callable[[jax.Array], State]:
        """That state of a key."""
        return jax.jit(self._make_guarded, out_shardings=self._shardings)

    def train_batches(self) -> Batches:
        """Training batches, a pure function of the step."""
        return Batches(
            self.images.train.rows,
            seed=self.run.seed,
            batch_size=self.run.train.batch_size,
            places=self.layout.places_here(self.run.train.batch_size),
            together=max(self.run.execution.steps_per_dispatch, self._made_together),
        )

    @property
    def _made_together(self) -> int:
        """Batches made at a time: of tokens the call takes longer than the batch."""
        return 1 if self.images.train.rows.are_images else TOKEN_BATCHES_TOGETHER

    def validation_batches(self) -> Iterator[tuple[dict[str, jax.Array], np.ndarray]]:
        """All validation images in order, the last batch padded with images of weight 0."""
        size = self.run.train.evaluation_batch_size
        batches = validation_batches(
            self.images.validation.rows, batch_size=size, places=self.layout.places_here(size)
        )
        for index, batch in enumerate(batches):
            yield self.place(batch, Stream.EVALUATE, index), batches.weights(index)

    def _placed(self, local: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Global arrays of the rows at this process's places: each row at its own place."""
        return {name: self.layout.batch_of(rows) for name, rows in local.items()}

    def _data_header(self) -> dict[str, Any]:
        return {
            "name": self.images.train.name,
            "digest": f"{self.images.train.digest}-{self.images.validation.digest}",
            "train_examples": len(self.images.train.rows),
            "validation_examples": len(self.images.validation.rows),
        }
