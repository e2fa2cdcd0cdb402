"""A generator's run, set up: codes, model, steps and record of one admitted config."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from lab.core import counts
from lab.core.config import RunConfig
from lab.core.errors import LabError
from lab.core.keys import Stream, key
from lab.core.layout import Layout
from lab.core.units import StepSize
from lab.models import families, spectra
from lab.models.generator import Generator
from lab.models.objective import NATS
from lab.tokenizers.latents import LatentTokenizer
from lab.tokenizers.spec import Specified
from lab.tokenizers.trained import SplitTokenizer
from lab.train.evaluate import Likelihood, per_image
from lab.train.job import Images, Job, Loss
from lab.train.optimizer import direction
from lab.train.programs import Steps
from lab.train.state import State, initial_state
from lab.train.step import make_steps


class GeneratorJob(Job[RunConfig]):
    """Training of a generator on tokens.

    The loss of evaluations is nats per token, exact or a bound; what training minimises may be
    another number, by its own name.
    """

    loss = Loss(NATS, "nats/token")

    def __init__(
        self, run: RunConfig, *, layout: Layout, tokenizer: Specified, images: Images
    ) -> None:
        super().__init__(run, layout=layout, images=images)
        self.tokenizer = tokenizer
        self.spec = tokenizer.spec
        self.codes = families.Codes(
            vocabulary=self.spec.vocabulary,
            grid=self.spec.grid,
            classes=images.train.classes,
            channels=self.spec.channels,
        )
        if run.model.subcodes != self.spec.subcodes:
            raise LabError(
                f"config.model.subcodes = {run.model.subcodes}: the tokenizer "
                f'"{self.spec.name}" gives {self.spec.subcodes} at a position'
            )
        if run.execution.tensor and run.model.heads % run.execution.tensor:
            raise LabError(
                f"config.execution.tensor = {run.execution.tensor}: must divide config.model.heads "
                f"= {run.model.heads}, or every device of that axis has the attention of all heads"
            )

    @functools.cached_property
    def flops_per_token(self) -> counts.ByRole:
        """Training FLOPs of a token by role, attention as the order's mask leaves it."""
        per_image = self.model.forward_flops_per_image().scaled(counts.TRAINING)
        return per_image.shared(self.spec.tokens_per_image)

    @property
    def model(self) -> Generator:
        """The generator, abstract: shapes without values."""
        return self._bare_state["params"]

    @property
    def training_loss(self) -> Loss:
        """That of the family, by its own name."""
        return Loss(self.model.objective.key, self.model.objective.unit)

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
            parameters=self.model.parameters().blocks,
        )

    @functools.cached_property
    def _make_state(self) -> Callable[[jax.Array], State]:
        execution = self.run.execution
        make_model = families.builder(
            self.run.model,
            self.codes,
            families.Running(
                compute_dtype=self.compute_dtype,
                platform=self.platform,
                remat=execution.remat,
                unroll=execution.unroll_layers,
                head_chunks=execution.head_chunks,
            ),
        )
        return functools.partial(
            initial_state,
            make_model,
            direction(self.run.optimizer),
            ema=self.run.optimizer.ema_decay > 0,
        )

    def _make_steps(self) -> Steps:
        return make_steps(
            self.layout,
            self._shardings,
            optimizer=self.run.optimizer,
            transform=direction(self.run.optimizer),
            width=self.run.model.width,
            loss_key=self.training_loss.key,
            bound_draws=self.run.train.bound_draws,
            parts=self.run.execution.accumulation,
            guard=self.guard,
            most=self.run.execution.steps_per_dispatch,
        )

    @property
    def loss_limit(self) -> float:
        """`explode_factor` times the training loss of a model that knows nothing."""
        return self.run.train.explode_factor * self.model.objective.uninformed

    def place(
        self, batch: Mapping[str, np.ndarray], stream: Stream, step: int
    ) -> dict[str, jax.Array]:
        """Tokens (b, T * S) become codes (B, T, S) on the devices; latents are drawn.

        Where the rows are images (a tokenizer on the fly), the devices encode them, and draw bits
        where the config says so. What is drawn is drawn anew each step in training; in an
        evaluation it is the same each time and for every run, so that differences between runs
        stay paired.
        """
        here, evaluates = self.host_batch(batch), stream is Stream.EVALUATE
        placed = self._placed(here or {k: batch[k] for k in ("tokens", "label", "weight")})
        size = len(placed["label"])
        first = step * size if evaluates else 0
        number = {}
        if evaluates or self._draw is not None:
            places = self.layout.places_here(size)
            number = self._placed({"number": (first + places).astype(np.int32)})
        if evaluates:
            placed |= number
        if here is not None:
            return placed
        tokens = placed.pop("tokens")
        drawn = key(0, stream, 0) if evaluates else key(self.run.seed, Stream.CODES, step)
        if self._draw is not None:
            codes, nats = self._draw(tokens, drawn, number["number"])
            return {"codes": codes, "posterior_nats": nats, **placed}
        assert self._encode is not None  # one of the two is there
        if not self.run.tokenizer.sampled:
            return {"codes": self._encode(tokens, None, 0), **placed}
        return {"codes": self._encode(tokens, drawn, first), **placed}

    def host_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """Codes (B, T, S), labels and weights; None where the devices encode or draw them."""
        if self._encode is not None or self._draw is not None:
            return None
        tokens = batch["tokens"]
        codes = tokens.reshape(len(tokens), -1, self.run.model.subcodes)
        return {"codes": codes, "label": batch["label"], "weight": batch["weight"]}

    @functools.cached_property
    def _encode(self) -> Callable[..., jax.Array] | None:
        if not self.images.train.rows.are_images:
            return None
        assert isinstance(self.tokenizer, SplitTokenizer)  # no other has rows that are images
        return self.tokenizer.encoder_on(self.layout)

    @functools.cached_property
    def _draw(self) -> Callable[..., tuple[jax.Array, jax.Array]] | None:
        if not isinstance(self.tokenizer, LatentTokenizer):
            return None
        return self.tokenizer.drawer_on(self.layout)

    def evaluate(self, steps: Steps, params: Any, *, between: Callable[[], None]) -> Likelihood:
        """Nats of every validation image."""
        columns = per_image(
            lambda batch: steps.evaluate(params, batch), self.validation_batches(), between=between
        )
        return Likelihood(
            nats_per_image=columns.pop("nats"),
            training_losses=columns,
            tokens_per_image=self.spec.tokens_per_image,
            dims_per_image=self.spec.dims_per_image,
            others=spectra.row(spectra.energies(self._grams(params)))
            if self.run.execution.attention_spectra
            else {},
        )

    @functools.cached_property
    def _grams(self) -> Callable[[Any], spectra.Grams]:
        return jax.jit(spectra.grams, out_shardings=self.layout.replicated())

    def amounts(self, step: int) -> dict[str, Any]:
        """Tokens and training FLOPs."""
        tokens = step * self.tokens_per_step
        return {"tokens": tokens, "flops": tokens * self.flops_per_token.total}

    def counted(self) -> dict[str, Any]:
        """Parameters, and training FLOPs of a token, by role."""
        roles = {
            "params": self.model.parameters(),
            "training_flops_per_token": self.flops_per_token,
        }
        return {
            f"{kind}_{role}": count
            for kind, found in roles.items()
            for role, count in dataclasses.asdict(found).items()
        }

    def speed(self, step_s: float) -> dict[str, float | None]:
        """Tokens a second, and the share of the devices' peak that the counted FLOPs are."""
        mfu = self.mfu(self.tokens_per_step * self.flops_per_token.total / step_s)
        return {
            "tokens_per_s": round(self.tokens_per_step / step_s, 1),
            "mfu": None if mfu is None else round(mfu, 4),
        }

    def header(self) -> dict[str, Any]:
        """The first row of the record."""
        run, n = self.run, self.model.parameters()
        flops, objective = self.flops_per_token, self.model.objective
        named = {} if objective.key == NATS else {"key": objective.key, "unit": objective.unit}
        return {
            "identity": self.identity,
            "study": run.study,
            "name": run.name,
            "seed": run.seed,
            "family": run.model.family,
            "size": run.model.size,
            "likelihood": str(self.model.likelihood),
            **({"training_loss": named} if named else {}),
            "compute_dtype": self.compute_dtype,
            "units": {"loss": "nats/token", "params": "count", "flops": "count", "tokens": "count"},
            "data": self._data_header(),
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
