"""A run, set up: data, tokenizer, model, layout, store and record of one admitted config."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lab.core import counts
from lab.core.config import RunConfig, check_schedule, identity, run_directory
from lab.core.errors import LabError
from lab.core.keys import Stream, key
from lab.core.layout import Layout
from lab.core.units import DurationUnit, StepSize, to_steps
from lab.data.batches import Batches, validation_batches
from lab.data.tokens import Stream as TokenStream
from lab.data.tokens import TokenTable
from lab.layers.attention import Mask
from lab.models import families
from lab.models.orders import RasterOrder
from lab.tokenizers.spec import Tokenizer
from lab.train.optimizer import direction
from lab.train.state import State, abstract_with_shardings, initial_state, state_shardings
from lab.train.step import Steps, make_steps


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, encoded: its rows of tokens and what identifies it."""

    rows: TokenTable | TokenStream
    name: str
    digest: str
    classes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """The encoded data of a run; runs on the same data and tokenizer may share it."""

    train: Split
    validation: Split


class Job:
    """All that a run needs, made from its config; nothing is computed before it is asked for."""

    def __init__(
        self, run: RunConfig, *, layout: Layout, tokenizer: Tokenizer, images: Images
    ) -> None:
        self.run = run
        self.identity = identity(run)
        self.layout = layout
        self.spec = tokenizer.spec
        self.images = images
        self.codes = families.Codes(
            vocabulary=self.spec.vocabulary,
            grid=self.spec.grid,
            classes=images.train.classes,
        )
        if run.model.subcodes != self.spec.subcodes:
            raise LabError(
                f"config.model.subcodes = {run.model.subcodes}: the tokenizer "
                f'"{self.spec.name}" gives {self.spec.subcodes} at a position'
            )
        for name in ("batch_size", "evaluation_batch_size"):
            size = getattr(run.train, name)
            if size % layout.batch_shards:
                raise LabError(
                    f"config.train.{name} = {size}: a multiple of {layout.batch_shards} is needed, "
                    f'the parts into which layout "{layout.name}" cuts a batch'
                )

    @property
    def directory(self) -> pathlib.Path:
        """The run directory."""
        return run_directory(self.run)

    @functools.cached_property
    def sizes(self) -> counts.Sizes:
        """What parameters and FLOPs are counted from."""
        return families.count_sizes(self.run.model, self.codes)

    @functools.cached_property
    def flops_per_token(self) -> counts.ByRole:
        """Training FLOPs of a token by role, attention as the order's mask leaves it."""
        causal = self._order.mask is Mask.CAUSAL
        return counts.training_flops_per_token(self.sizes, causal=causal)

    @property
    def tokens_per_step(self) -> int:
        """Positions in a global batch."""
        return self.run.train.batch_size * self.spec.tokens_per_image

    @functools.cached_property
    def step_size(self) -> StepSize:
        """One step in every unit of duration."""
        return StepSize(
            batch_examples=self.run.train.batch_size,
            epoch_examples=len(self.images.train.rows),
            tokens_per_example=self.spec.tokens_per_image,
            flops_per_token=self.flops_per_token.total,
        )

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
    def compute_dtype(self) -> str:
        """The dtype of activations: "auto" is bfloat16 where the device has fast products in it."""
        wanted = self.run.execution.compute_dtype
        on_cpu = self.layout.mesh.devices.flat[0].platform == "cpu"
        return wanted if wanted != "auto" else "float32" if on_cpu else "bfloat16"

    @functools.cached_property
    def _make_state(self):
        execution = self.run.execution
        make_model = families.builder(
            self.run.model,
            self.codes,
            families.Running(
                compute_dtype=self.compute_dtype,
                platform=self.layout.mesh.devices.flat[0].platform,
                remat=execution.remat,
                unroll=execution.unroll_layers,
            ),
        )
        return functools.partial(
            initial_state,
            make_model,
            direction(self.run.optimizer),
            ema=self.run.optimizer.ema_decay > 0,
        )

    @property
    def _order(self) -> RasterOrder:
        return self._bare_state["params"].order

    @functools.cached_property
    def _shardings(self) -> Any:
        return state_shardings(self.layout, self._bare_state)

    @functools.cached_property
    def _bare_state(self) -> State:
        return jax.eval_shape(self._make_state, key(self.run.seed, Stream.INIT, 0))

    @functools.cached_property
    def abstract_state(self) -> State:
        """Shapes, dtypes and shardings of the state; nothing is allocated."""
        return abstract_with_shardings(self._bare_state, self._shardings)

    def initial_state(self) -> State:
        """The state before the first update, made where it will live."""
        make = jax.jit(self._make_state, out_shardings=self._shardings)
        return make(key(self.run.seed, Stream.INIT, 0))

    def steps(self) -> Steps:
        """The compiled steps."""
        return make_steps(
            self.layout,
            self._shardings,
            optimizer=self.run.optimizer,
            transform=direction(self.run.optimizer),
            width=self.run.model.width,
        )

    def train_batches(self) -> Batches:
        """Training batches, a pure function of the step."""
        return Batches(
            self.images.train.rows,
            seed=self.run.seed,
            batch_size=self.run.train.batch_size,
            host=jax.process_index(),
            hosts=jax.process_count(),
        )

    def validation_batches(self) -> Iterator[tuple[dict[str, jax.Array], np.ndarray]]:
        """All validation images in order, the last batch padded with images of weight 0."""
        for batch in validation_batches(
            self.images.validation.rows, batch_size=self.run.train.evaluation_batch_size
        ):
            yield self.place(batch), batch["weight"]

    @property
    def uniform_nats_per_token(self) -> float:
        """The loss of a uniform distribution over the codes of a position."""
        return self.run.model.subcodes * math.log(self.spec.vocabulary)

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """A host's part of a batch on the devices; tokens (b, T) become codes (B, T, S)."""
        tokens_bT = batch["tokens"]
        local = {
            "codes": tokens_bT.reshape(*tokens_bT.shape[:2], self.run.model.subcodes),
            "label": batch["label"],
            "weight": batch["weight"],
        }
        sharding = self.layout.batch_sharding()
        return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in local.items()}

    def header(self) -> dict[str, Any]:
        """The first row of the record."""
        run, n = self.run, counts.parameters(self.sizes)
        flops = self.flops_per_token
        return {
            "identity": self.identity,
            "study": run.study,
            "name": run.name,
            "seed": run.seed,
            "family": run.model.family,
            "size": run.model.size,
            "likelihood": self._order.likelihood,
            "compute_dtype": self.compute_dtype,
            "units": {"loss": "nats/token", "params": "count", "flops": "count", "tokens": "count"},
            "data": {
                "name": self.images.train.name,
                "digest": f"{self.images.train.digest}-{self.images.validation.digest}",
                "train_examples": len(self.images.train.rows),
                "validation_examples": len(self.images.validation.rows),
            },
            "tokenizer": {
                "name": self.spec.name,
                "identity": self.spec.identity,
                "vocabulary": self.spec.vocabulary,
                "tokens_per_image": self.spec.tokens_per_image,
                "dims_per_image": self.spec.dims_per_image,
            },
            "params": {"embedding": n.embedding, "blocks": n.blocks, "head": n.head},
            "flops_per_token": dataclasses.asdict(flops),
            "tokens_per_step": self.tokens_per_step,
            "steps": self.total_steps,
        }
