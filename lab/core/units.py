"""Durations in any unit, to steps; nats to bits."""

import dataclasses
import enum
import math

from lab.core.errors import LabError


class DurationUnit(enum.StrEnum):
    """What a duration may be counted in."""

    STEPS = "steps"
    EXAMPLES = "examples"
    EPOCHS = "epochs"
    TOKENS = "tokens"
    FLOPS = "flops"
    TOKENS_PER_PARAMETER = "tokens_per_parameter"


@dataclasses.dataclass(frozen=True)
class Duration:
    """A length of training, as the user states it."""

    amount: float
    unit: DurationUnit


@dataclasses.dataclass(frozen=True)
class StepSize:
    """What one optimiser step consumes, in every unit a duration may be stated in.

    `parameters` are those of a generator's blocks, the N of a law; of another kind of run all.
    """

    batch_examples: int
    epoch_examples: int
    tokens_per_example: int
    flops_per_token: float
    parameters: float

    def of(self, unit: DurationUnit) -> float:
        """The amount of `unit` in one step."""
        tokens = self.batch_examples * self.tokens_per_example
        return {
            DurationUnit.STEPS: 1.0,
            DurationUnit.EXAMPLES: float(self.batch_examples),
            DurationUnit.EPOCHS: self.batch_examples / self.epoch_examples,
            DurationUnit.TOKENS: float(tokens),
            DurationUnit.FLOPS: tokens * self.flops_per_token,
            DurationUnit.TOKENS_PER_PARAMETER: tokens / self.parameters,
        }[unit]


def parse_duration(text: str, *, path: str) -> Duration:
    """Read "3 epochs", "2e6 tokens", "500 steps"; `path` names the field in the error."""
    allowed = "an amount and one of " + ", ".join(DurationUnit)
    parts = text.split()
    if len(parts) != 2 or parts[1] not in list(DurationUnit):
        raise LabError(f'{path} = "{text}": a duration is {allowed}, like "3 epochs"')
    try:
        amount = float(parts[0])
    except ValueError:
        raise LabError(
            f'{path} = "{text}": "{parts[0]}" is no number; allowed: {allowed}'
        ) from None
    if not math.isfinite(amount) or amount < 0:
        raise LabError(f'{path} = "{text}": a duration is finite and not negative')
    return Duration(amount=amount, unit=DurationUnit(parts[1]))


def to_steps(duration: Duration, step: StepSize) -> int:
    """The nearest whole number of steps; at least one for a duration that is not zero."""
    if duration.amount == 0:
        return 0
    return max(1, round(duration.amount / step.of(duration.unit)))


def bits_per_dim(nats_per_image: float, *, dims_per_image: int) -> float:
    """Bits per dimension of an image whose likelihood is `nats_per_image`."""
    return nats_per_image / (dims_per_image * math.log(2))
