"""What a generator minimises in training, and what its validation number is."""

import dataclasses
import enum
from typing import NamedTuple

import jax

NATS = "loss_nats_per_token"  # the key of a loss that is a likelihood


class Likelihood(enum.StrEnum):
    """What the nats of an image are."""

    EXACT = "exact"  # its negative log likelihood
    BOUND = "bound"  # an unbiased estimate of a number that is not below it


@dataclasses.dataclass(frozen=True)
class Objective:
    """The training loss, by its own name.

    `key` is its name in rows of the record and starts with "loss_"; `unit` is for people;
    `uninformed` is the loss of a model that knows nothing, which tells divergence.
    """

    key: str
    unit: str
    uninformed: float


class Training(NamedTuple):
    """The training loss of a batch, not yet a mean: its sum over the predicted positions."""

    loss_B: jax.Array
    positions: jax.Array | int  # predicted in each image
