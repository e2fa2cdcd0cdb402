"""A tokenizer's run, set up: images, autoencoder, discriminator, steps and record."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from lab.core.config import TokenizerRunConfig
from lab.core.errors import LabError
from lab.core.fields import plain
from lab.core.keys import Stream
from lab.core.layout import Layout
from lab.core.units import StepSize, to_steps
from lab.tokenizers.build import autoencoder_builder, autoencoder_counts
from lab.tokenizers.discriminator import Discriminator
from lab.tokenizers.perceptual import Perceptual
from lab.tokenizers.pixels import CHANNELS
from lab.train.evaluate import per_image
from lab.train.job import Images, Job, Loss
from lab.train.optimizer import direction
from lab.train.programs import Steps
from lab.train.reconstruction import PICTURED, Reconstructions
from lab.train.state import State, initial_state
from lab.train.tokenizer_step import Learner, Objective, make_tokenizer_steps


class TokenizerJob(Job[TokenizerRunConfig]):
    """Training of an autoencoder on images: the loss is that of its reconstructions."""

    def __init__(
        self,
        run: TokenizerRunConfig,
        *,
        layout: Layout,
        images: Images,
        perceptual: Perceptual | None,
    ) -> None:
        super().__init__(run, layout=layout, images=images)
        pixel = run.losses.reconstruction
        self.loss = Loss(f"loss_{pixel}_per_dim", f"{pixel.upper()}/dim of images in [-1, 1]")
        self.perceptual = perceptual
        side = run.images.resolution
        self.shape = (side, side, CHANNELS[run.images.channels])

    @functools.cached_property
    def counts(self):
        """Parameters by role, and forward FLOPs of an image by role."""
        return autoencoder_counts(self.run, self._bare_state["params"].bottleneck)

    @functools.cached_property
    def step_size(self) -> StepSize:
        """One step in every unit of duration; a token is a dimension of an image."""
        dims = int(np.prod(self.shape))
        return StepSize(
            batch_examples=self.run.train.batch_size,
            epoch_examples=len(self.images.train.rows),
            tokens_per_example=dims,
            flops_per_token=self._training_flops_per_image / dims,
            parameters=sum(self._params.values()),
        )

    @property
    def _training_flops_per_image(self) -> float:
        return 3.0 * sum(self.counts.forward_flops.values())

    @property
    def loss_limit(self) -> float:
        """`explode_factor` times what grey loses on black and white images, which is 1."""
        return self.run.train.explode_factor

    @functools.cached_property
    def _make_state(self) -> Callable[[jax.Array], State]:
        run, transform = self.run, direction(self.run.optimizer)
        make_model = autoencoder_builder(run, compute_dtype=self.compute_dtype)
        losses, channels = run.losses, self.shape[-1]

        def make(key: jax.Array) -> State:
            model_key, critic_key = jax.random.split(key)
            state = initial_state(make_model, transform, model_key, ema=run.optimizer.ema_decay > 0)
            critic, usage = None, None
            if losses.adversarial:
                params: Any = Discriminator(
                    critic_key,
                    width=losses.discriminator_width,
                    layers=losses.discriminator_layers,
                    image_channels=channels,
                )
                critic = {"params": params, "opt": transform.init(params)}
            if losses.restart_below:
                usage = state["params"].bottleneck.even_usage()
            return {**state, "critic": critic, "usage": usage}

        return make

    @functools.cached_property
    def total_steps(self) -> int:
        """Updates of the whole run; raises LabError where its discriminator would never begin."""
        losses, steps = self.run.losses, super().total_steps
        if losses.adversarial and self._adversarial_start >= steps:
            raise LabError(
                f'config.losses.adversarial_start = "{plain(losses.adversarial_start)}": step '
                f"{self._adversarial_start} of a run of {steps}: the discriminator would never "
                "begin"
            )
        return steps

    @property
    def _adversarial_start(self) -> int:
        return to_steps(self.run.losses.adversarial_start, self.step_size)

    @functools.cached_property
    def objective(self) -> Objective:
        """What the autoencoder minimises."""
        losses = self.run.losses
        return Objective(
            loss_key=self.loss.key,
            pixel=losses.reconstruction,
            perceptual_weight=losses.perceptual,
            adversarial_weight=losses.adversarial,
            adversarial_start=self._adversarial_start,
            adaptive=losses.adversarial_adaptive,
            adaptive_most=losses.adversarial_most,
            restart_below=losses.restart_below,
        )

    def _make_steps(self) -> Steps:
        return make_tokenizer_steps(
            self.layout,
            self._shardings,
            objective=self.objective,
            learner=Learner(self.run.optimizer, direction(self.run.optimizer)),
            perceptual=self.perceptual,
            guard=self.guard,
            most=self.run.execution.steps_per_dispatch,
        )

    def place(
        self, batch: Mapping[str, np.ndarray], stream: Stream, step: int
    ) -> dict[str, jax.Array]:
        """Images (B, R, R, C) uint8 on the devices; nothing is random."""
        return self._placed(self.host_batch(batch))

    def host_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Images (B, R, R, C) uint8."""
        return {"images": batch["tokens"].reshape(-1, *self.shape)}

    def evaluate(
        self, steps: Steps, params: Any, *, between: Callable[[], None]
    ) -> Reconstructions:
        """Reconstruction of every validation image, without noise in the code."""
        rows, pictured = self.images.validation.rows, []

        def of(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
            found = steps.evaluate(params, batch)
            seen = found.pop("reconstructions")
            if sum(map(len, pictured)) < PICTURED:  # all would be as large as the images
                pictured.append(seen)
            return found

        columns = per_image(of, self.validation_batches(), between=between)
        first = np.arange(min(PICTURED, len(rows)))
        return Reconstructions(
            loss_key=self.loss.key,
            alphabet=self._bare_state["params"].bottleneck.alphabet,
            columns=columns,
            originals=rows.rows(first).tokens.reshape(-1, *self.shape),
            reconstructions=np.concatenate(pictured)[: len(first)],
        )

    def amounts(self, step: int) -> dict[str, Any]:
        """Images seen, and training FLOPs of the autoencoder."""
        examples = step * self.run.train.batch_size
        return {"examples_seen": examples, "flops": examples * self._training_flops_per_image}

    def counted(self) -> dict[str, Any]:
        """Parameters, and forward FLOPs of an image, by role."""
        roles = {"params": self._params, "forward_flops_per_image": self.counts.forward_flops}
        return {f"{kind}_{role}": n for kind, found in roles.items() for role, n in found.items()}

    @property
    def _params(self) -> dict[str, int]:
        critic = self._bare_state["critic"]
        leaves = jax.tree.leaves(critic["params"]) if critic else []
        return {**self.counts.parameters, "discriminator": sum(leaf.size for leaf in leaves)}

    def speed(self, step_s: float) -> dict[str, float | None]:
        """Images a second."""
        return {"images_per_s": round(self.run.train.batch_size / step_s, 1)}

    def header(self) -> dict[str, Any]:
        """The first row of the record."""
        run = self.run
        alphabet = self._bare_state["params"].bottleneck.alphabet
        return {
            "identity": self.identity,
            "study": run.study,
            "name": run.name,
            "seed": run.seed,
            "family": "tokenizer",
            "size": run.autoencoder.size,
            "compute_dtype": self.compute_dtype,
            "units": {
                "loss": self.loss.unit,
                "params": "count",
                "flops": "count",
                "examples": "count",
            },
            "data": self._data_header(),
            "images": dataclasses.asdict(run.images),
            "code": {"kind": run.code.kind, "alphabet": str(alphabet), "size": alphabet.size},
            "perceptual": self.perceptual.identity if self.perceptual else None,
            "params": self._params,
            "forward_flops_per_image": self.counts.forward_flops,
            "examples_per_step": run.train.batch_size,
            "steps": self.total_steps,
        }
