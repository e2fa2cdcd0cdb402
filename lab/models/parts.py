"""The parts of a generator by the names that a config gives them.

What a constructor imports, jax with it, is imported when it is called.
"""

import dataclasses

from lab.core.config import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codes:
    """What a tokenizer tells a model: codes, the grid they lie in, and the classes of the data."""

    vocabulary: int  # codes of a sub-code; 0: latents
    grid: tuple[int, int, int]  # rows, columns, slots of a cell
    classes: int
    channels: int = 0  # of latents

    @property
    def positions(self) -> int:
        """Positions of an image."""
        rows, columns, slots = self.grid
        return rows * columns * slots


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """How a model runs; none of it changes what it computes beyond rounding."""

    compute_dtype: str
    platform: str = "cpu"  # where it runs: the kernels of another one are right there, but slow
    remat: str = "none"
    unroll: bool = False
    head_chunks: int = 0  # parts that a softmax over codes runs in; 0: as memory asks for


def _init(model: ModelConfig):
    from lab.layers.parameters import Init

    return Init(rule=model.init, std=model.init_std)


def class_embedding(key, model: ModelConfig, codes: Codes):
    """The class, with its null class."""
    from lab.models.embeddings import ClassEmbedding

    return ClassEmbedding(
        key,
        classes=codes.classes,
        width=model.width,
        init=_init(model),
        drop_rate=model.class_dropout,
    )


def time_embedding(key, model: ModelConfig):
    """The diffusion time of a whole image; None of an order that has none."""
    from lab.layers.modulation import TimeEmbedding

    if model.order != "joint":
        return None
    return TimeEmbedding(key, width=model.width)


def target_embedding(key, model: ModelConfig, codes: Codes):
    """Of each position, told to what it is predicted from; None where a scan says it."""
    from lab.layers.parameters import table

    if model.scan != "any":
        return None
    return table(key, (codes.positions, model.width), ("positions", "embed"), _init(model))


def _subcodes(key, model: ModelConfig, codes: Codes):
    from lab.models.embeddings import SubcodeEmbedding

    return SubcodeEmbedding(
        key,
        vocabulary=codes.vocabulary,
        subcodes=model.subcodes,
        slots=codes.grid[2],
        width=model.width,
        init=_init(model),
        masked=_holds_mask_vectors(model),
    )


def _holds_mask_vectors(model: ModelConfig) -> bool:
    """Whether an embedding marks what is hidden; an encoder and decoder do so themselves."""
    return model.order == "masked" and model.backbone == "llama"


def _numbers(inputs):
    def make(key, model: ModelConfig, codes: Codes):
        from lab.models.embeddings import VectorEmbedding

        return VectorEmbedding(
            key,
            inputs=inputs(model, codes),
            slots=codes.grid[2],
            width=model.width,
            init=_init(model),
            masked=_holds_mask_vectors(model),
        )

    return make


def _patches(key, model: ModelConfig, codes: Codes):
    from lab.models.joint import PatchEmbedding

    rows, columns, slots = codes.grid
    return PatchEmbedding(
        key,
        patch=model.patch,
        grid=(rows, columns),
        channels=codes.channels or slots * model.subcodes,
        width=model.width,
        init=_init(model),
    )


def _llama(key, model: ModelConfig, codes: Codes, running: Running, order):
    from lab.models.backbone import Backbone, BackboneSpec

    spec = BackboneSpec(
        depth=model.depth,
        width=model.width,
        heads=model.heads,
        mlp_hidden=model.mlp_hidden,
        norm_epsilon=model.norm_epsilon,
        residual_dropout=model.residual_dropout,
        mlp_dropout=model.mlp_dropout,
        init=_init(model),
        mask=order.mask,
        modulation=model.modulation,
        qk_norm=model.qk_norm,
        platform=running.platform,
        remat=running.remat,
        unroll=running.unroll,
    )
    return Backbone(key, spec)


def _encoder_decoder(key, model: ModelConfig, codes: Codes, running: Running, order):
    from lab.models.encoder_decoder import EncoderDecoder

    return EncoderDecoder(
        key,
        depth=model.depth,
        decoder_depth=model.decoder_depth,
        width=model.width,
        heads=model.heads,
        mlp_hidden=model.mlp_hidden,
        buffer=model.buffer,
        positions=codes.positions,
        dropout=model.residual_dropout,
        norm_epsilon=model.norm_epsilon,
        init=_init(model),
        platform=running.platform,
        remat=running.remat,
        unroll=running.unroll,
    )


def _dit(key, model: ModelConfig, codes: Codes, running: Running, order):
    from lab.models.dit import DiTBackbone

    rows, columns, _ = codes.grid
    return DiTBackbone(
        key,
        depth=model.depth,
        width=model.width,
        heads=model.heads,
        mlp_hidden=model.mlp_hidden,
        grid=(rows // model.patch, columns // model.patch),
        init=_init(model),
        platform=running.platform,
        remat=running.remat,
        unroll=running.unroll,
    )


def _raster(model: ModelConfig, codes: Codes):
    from lab.models.orders import Grid, RasterOrder

    return RasterOrder(
        grid=Grid(*codes.grid),
        rotary_base=model.rotary_base,
        embedding_dropout=model.embedding_dropout,
        scan=model.scan,
    )


def _masked(model: ModelConfig, codes: Codes):
    from lab.models.masked import MaskedOrder
    from lab.models.masks import MaskSchedule
    from lab.models.orders import Grid

    return MaskedOrder(
        grid=Grid(*codes.grid),
        rotary_base=model.rotary_base,
        embedding_dropout=model.embedding_dropout,
        schedule=MaskSchedule(name=model.mask_schedule, rates=model.mask_rates),
    )


def _joint(model: ModelConfig, codes: Codes):
    from lab.models.gaussian import GaussianProcess
    from lab.models.joint import JointOrder

    rows, columns, slots = codes.grid
    return JointOrder(
        process=GaussianProcess(steps=model.diffusion_steps, schedule=model.diffusion_schedule),
        grid=(rows, columns),
        patch=model.patch,
        levels=codes.vocabulary,
        channels=codes.channels or slots * model.subcodes,
    )


def _categorical(key, model: ModelConfig, codes: Codes, running: Running):
    from lab.models.heads import CategoricalHead

    return CategoricalHead(
        vocabulary=codes.vocabulary,
        subcodes=model.subcodes,
        width=model.width,
        norm_epsilon=model.norm_epsilon,
        smoothing=model.label_smoothing,
        z_loss=model.z_loss,
        chunks=running.head_chunks,
    )


def _tied_categorical(key, model: ModelConfig, codes: Codes, running: Running):
    from lab.models.heads import TiedHead

    return TiedHead(
        key,
        vocabulary=codes.vocabulary,
        subcodes=model.subcodes,
        width=model.width,
        norm_epsilon=model.norm_epsilon,
        init=_init(model),
        smoothing=model.label_smoothing,
        z_loss=model.z_loss,
        chunks=running.head_chunks,
    )


def _bernoulli(key, model: ModelConfig, codes: Codes, running: Running):
    from lab.models.binary_heads import DirectBernoulliHead

    return DirectBernoulliHead(
        bits=model.subcodes, width=model.width, norm_epsilon=model.norm_epsilon
    )


def _bernoulli_diffusion(key, model: ModelConfig, codes: Codes, running: Running):
    from lab.models.binary_heads import BernoulliDiffusionHead

    return BernoulliDiffusionHead(
        key,
        bits=model.subcodes,
        width=model.width,
        positions=codes.positions,
        depth=model.denoiser_depth,
        denoiser_width=model.denoiser_width,
        steps=model.diffusion_steps,
        target=model.denoiser_target,
        norm_epsilon=model.norm_epsilon,
        init=_init(model),
    )


def _gaussian_diffusion(key, model: ModelConfig, codes: Codes, running: Running):
    from lab.models.gaussian_head import GaussianDiffusionHead

    return GaussianDiffusionHead(
        key,
        channels=codes.channels,
        width=model.width,
        positions=codes.positions,
        depth=model.denoiser_depth,
        denoiser_width=model.denoiser_width,
        steps=model.diffusion_steps,
        schedule=model.diffusion_schedule,
        repeats=model.diffusion_repeats,
        norm="rms" if model.backbone == "llama" else "layer",
        norm_epsilon=model.norm_epsilon,
        init=_init(model),
    )


def _noise(key, model: ModelConfig, codes: Codes, running: Running):
    from lab.models.joint import FinalLayer

    channels = codes.channels or codes.grid[2] * model.subcodes
    return FinalLayer(key, width=model.width, outputs=2 * channels * model.patch**2)


# model.embedding, model.backbone, model.order, model.head
EMBEDDINGS = {
    "subcodes": _subcodes,
    "bits": _numbers(lambda model, codes: model.subcodes),
    "latents": _numbers(lambda model, codes: codes.channels),
    "patches": _patches,
}
BACKBONES = {"llama": _llama, "encoder_decoder": _encoder_decoder, "dit": _dit}
ORDERS = {"raster": _raster, "masked": _masked, "joint": _joint}
HEADS = {
    "categorical": _categorical,
    "tied_categorical": _tied_categorical,
    "bernoulli": _bernoulli,
    "bernoulli_diffusion": _bernoulli_diffusion,
    "gaussian_diffusion": _gaussian_diffusion,
    "noise": _noise,
}
