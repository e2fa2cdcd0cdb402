"""The stages of a convolutional encoder and decoder, and their arithmetic; no device is needed.

One list of stages says what network.py builds, what the counts are, and how names.py calls the
weights. A FLOP is one multiplication or one addition; element-wise work, normalisations and
biases are not counted, nor are the zeros around an image left out.
"""

import dataclasses
import enum
from collections.abc import Sequence

from lab.core.errors import LabError

ATTENTION = ("none", "middle", "lowest")
LAST_ACTIVATION = ("swish", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """The shape of encoder and decoder.

    `attention` "lowest" is "middle" and one after each block of the lowest level;
    `decoder_attention` None is the encoder's. `last_activation` stands between the last norm and
    the last convolution of both; the published code of binary autoencoders has none there.
    """

    width: int
    multipliers: tuple[int, ...]
    latent_channels: int
    attention: str
    decoder_attention: str | None = None
    residual_blocks: int = 2
    decoder_blocks: int = 3
    decoder_norm_first: bool = False
    last_activation: str = "swish"
    groups: int = 32
    image_channels: int = 3

    def __post_init__(self) -> None:
        self._check_counts()
        _check_choice("attention", self.attention, ATTENTION)
        _check_choice("decoder_attention", self.decoder_attention, (None, *ATTENTION))
        _check_choice("last_activation", self.last_activation, LAST_ACTIVATION)
        normed = [self.width, *self.widths]
        normed += [self.latent_channels] if self.decoder_norm_first else []
        for channels in normed:
            if channels % min(self.groups, channels):
                raise LabError(
                    f"groups = {self.groups}: must divide the channels of every normalisation, "
                    f"{channels} among them"
                )

    def _check_counts(self) -> None:
        names = ("width", "latent_channels", "residual_blocks", "decoder_blocks", "groups")
        for name in (*names, "image_channels"):
            if getattr(self, name) < 1:
                raise LabError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not self.multipliers or min(self.multipliers) < 1:
            raise LabError(f"multipliers = {self.multipliers}: one or more, each at least 1")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, the finest first."""
        return tuple(self.width * m for m in self.multipliers)

    @property
    def downscale(self) -> int:
        """The side of an image over the side of its latent grid."""
        return 2 ** (len(self.multipliers) - 1)


def _check_choice(name: str, value: str | None, allowed: Sequence[str | None]) -> None:
    if value not in allowed:
        listed = ", ".join(f'"{a}"' for a in allowed if a is not None)
        raise LabError(f'{name} = "{value}": allowed are {listed}')


class Kind(enum.StrEnum):
    """What a stage is."""

    CONV = "conv"  # 3 x 3
    RESIDUAL = "residual"
    ATTENTION = "attention"
    DOWN = "down"
    UP = "up"
    NORM = "norm"
    NORM_SWISH = "norm_swish"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage; `shrink` is the side of an image over the side of the stage's output."""

    kind: Kind
    inputs: int
    outputs: int
    shrink: int

    @property
    def convolutions(self) -> list[tuple[int, int, int]]:
        """(kernel's side, inputs, outputs) of each."""
        i, o = self.inputs, self.outputs
        if self.kind is Kind.RESIDUAL:
            return [(3, i, o), (3, o, o)] + ([(1, i, o)] if i != o else [])
        if self.kind is Kind.ATTENTION:
            return [(1, i, i)] * 4
        return [] if self.kind in (Kind.NORM, Kind.NORM_SWISH) else [(3, i, o)]

    @property
    def normed(self) -> int:
        """Channels that are normalised."""
        if self.kind is Kind.RESIDUAL:
            return self.inputs + self.outputs
        normalises = self.kind in (Kind.ATTENTION, Kind.NORM, Kind.NORM_SWISH)
        return self.inputs if normalises else 0

    @property
    def parameters(self) -> int:
        """Weights and biases of convolutions, scales and shifts of norms."""
        return sum(k * k * i * o + o for k, i, o in self.convolutions) + 2 * self.normed

    def forward_flops(self, resolution: int) -> int:
        """FLOPs of one image of this side: its convolutions, and attention's two products."""
        positions = (resolution // self.shrink) ** 2
        products = sum(k * k * i * o for k, i, o in self.convolutions)
        pairs = 2 * positions * self.inputs if self.kind is Kind.ATTENTION else 0
        return 2 * positions * (products + pairs)


def encoder_plan(spec: NetworkSpec, *, outputs: int) -> list[Stage]:
    """From an image to `outputs` channels of the latent grid."""
    stages = [Stage(Kind.CONV, spec.image_channels, spec.width, 1)]
    channels, shrink = spec.width, 1
    for level, width in enumerate(spec.widths):
        lowest = level == len(spec.widths) - 1
        attends = lowest and spec.attention == "lowest"
        stages += _level(channels, width, spec.residual_blocks, attends, shrink)
        channels = width
        if not lowest:
            shrink *= 2
            stages.append(Stage(Kind.DOWN, width, width, shrink))
    stages += _middle(channels, spec.attention, shrink)
    return stages + _ending(spec, channels, outputs, shrink)


def decoder_plan(spec: NetworkSpec) -> list[Stage]:
    """From the latent grid to an image."""
    attention = spec.decoder_attention or spec.attention
    latent, channels, shrink = spec.latent_channels, spec.widths[-1], spec.downscale
    stages = [Stage(Kind.NORM, latent, latent, shrink)] if spec.decoder_norm_first else []
    stages.append(Stage(Kind.CONV, latent, channels, shrink))
    stages += _middle(channels, attention, shrink)
    for level, width in reversed(list(enumerate(spec.widths))):
        attends = level == len(spec.widths) - 1 and attention == "lowest"
        stages += _level(channels, width, spec.decoder_blocks, attends, shrink)
        channels = width
        if level:
            shrink //= 2
            stages.append(Stage(Kind.UP, width, width, shrink))
    return stages + _ending(spec, channels, spec.image_channels, shrink)


def _level(inputs: int, outputs: int, blocks: int, attends: bool, shrink: int) -> list[Stage]:
    stages = []
    for block in range(blocks):
        stages.append(Stage(Kind.RESIDUAL, outputs if block else inputs, outputs, shrink))
        if attends:
            stages.append(Stage(Kind.ATTENTION, outputs, outputs, shrink))
    return stages


def _middle(channels: int, attention: str, shrink: int) -> list[Stage]:
    residual = Stage(Kind.RESIDUAL, channels, channels, shrink)
    if attention == "none":
        return [residual, residual]
    return [residual, Stage(Kind.ATTENTION, channels, channels, shrink), residual]


def _ending(spec: NetworkSpec, channels: int, outputs: int, shrink: int) -> list[Stage]:
    kind = Kind.NORM_SWISH if spec.last_activation == "swish" else Kind.NORM
    return [
        Stage(kind, channels, channels, shrink),
        Stage(Kind.CONV, channels, outputs, shrink),
    ]


@dataclasses.dataclass(frozen=True)
class ByPart:
    """A count of the encoder and of the decoder."""

    encoder: int
    decoder: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.encoder + self.decoder


def parameters_of(spec: NetworkSpec, *, encoder_outputs: int) -> ByPart:
    """Parameters of encoder and decoder, without what lies between them."""
    encoder = encoder_plan(spec, outputs=encoder_outputs)
    return ByPart(
        sum(stage.parameters for stage in encoder),
        sum(stage.parameters for stage in decoder_plan(spec)),
    )


def forward_flops_per_image(spec: NetworkSpec, *, encoder_outputs: int, resolution: int) -> ByPart:
    """Forward FLOPs of one image of this side, without what lies between encoder and decoder."""
    if resolution < 1 or resolution % spec.downscale:
        raise LabError(
            f"resolution = {resolution}: must be a multiple of {spec.downscale}, which "
            f"{len(spec.multipliers)} levels shrink by"
        )
    encoder = encoder_plan(spec, outputs=encoder_outputs)
    return ByPart(
        sum(stage.forward_flops(resolution) for stage in encoder),
        sum(stage.forward_flops(resolution) for stage in decoder_plan(spec)),
    )
