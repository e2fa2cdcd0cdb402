"""All that a draw of images may be told; a sampler takes no notice of what is not its own."""

import dataclasses
import enum
import math

from lab.core.errors import LabError
from lab.models.drawing import Drawing
from lab.sampling.guidance import Guidance


class Ranking(enum.StrEnum):
    """Which hidden positions a masked sampler fixes first."""

    CONFIDENCE = "confidence"  # MaskGIT: likeliest draws; BiGR: bits far from fair coins
    CERTAINTY = "certainty"  # the least entropy
    RANDOM = "random"  # MAR: an order drawn for each image
    RASTER = "raster"


class Change(enum.StrEnum):
    """How the scale of the Gumbel noise changes over the rounds."""

    CONSTANT = "constant"  # BiGR's default
    DOWN = "down"  # MaskGIT: times 1 - (round + 1) / rounds
    UP = "up"  # times (round + 1) / rounds


class Pace(enum.StrEnum):
    """What the guidance of a masked sampler grows with."""

    ROUNDS = "rounds"  # ELM's MLM
    UNMASKED = "unmasked"  # the share of positions that are known: MAR


class Method(enum.StrEnum):
    """How a whole image is denoised."""

    DDPM = "ddpm"  # the reverse chain of training, respaced
    DDIM = "ddim"  # without noise (Song et al. 2021)
    HEUN = "heun"  # second order (Karras et al. 2022)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unmasking:
    """Rounds of a masked sampler.

    `gumbel` scales noise that is added to what positions are ranked by. `remask` re-opens, in the
    first half of the rounds, positions fixed earlier whose code is drawn differently now (ELM's
    MLM). `rounds` 0: as many as positions, one at a time.
    """

    rounds: int = 0
    ranking: Ranking = Ranking.CONFIDENCE
    gumbel: float = 0.0
    gumbel_change: Change = Change.DOWN
    remask: bool = False
    pace: Pace = Pace.ROUNDS

    def __post_init__(self) -> None:
        if not 0 <= self.gumbel < math.inf:
            raise LabError(f"gumbel {self.gumbel}: allowed is >= 0")
        if self.rounds < 0:
            raise LabError(f"rounds {self.rounds}: allowed is >= 0, 0 being one position a round")
        if not self.ranked and (self.remask or self.gumbel):
            what = "remask" if self.remask else "gumbel"
            raise LabError(f"{what}: means nothing where the order is {self.ranking}")

    @property
    def ranked(self) -> bool:
        """Whether what is drawn decides what is fixed."""
        return self.ranking in (Ranking.CONFIDENCE, Ranking.CERTAINTY)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A draw of images, whatever the family."""

    guidance: Guidance = Guidance()
    drawing: Drawing = Drawing()
    unmasking: Unmasking = Unmasking()
    method: Method = Method.DDPM

    def __post_init__(self) -> None:
        drawing = self.drawing
        if not 0 < drawing.temperature < math.inf:
            raise LabError(f"temperature {drawing.temperature}: allowed is > 0")
        if drawing.top_k < 0:
            raise LabError(f"top-k {drawing.top_k}: allowed is >= 0, 0 being all")
        if not 0 < drawing.top_p <= 1:
            raise LabError(f"top-p {drawing.top_p}: allowed is > 0, at most 1")
        if drawing.steps < 0:
            raise LabError(f"steps {drawing.steps}: allowed is >= 0, 0 being all")
