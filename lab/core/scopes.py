"""The parts of a training step by name, and how to read them off a compiled operation.

A scope (`jax.named_scope`) is a name that compiling keeps as metadata of an operation and nothing
else: it changes no number. jax puts around it what it did to the operation:
"jit(train)/transpose(jvp(attention))/dot_general" is of the backward pass of attention.
"""

import enum
import re

EMBEDDING = "embedding"  # of tokens, class and time
ATTENTION = "attention"
FEED_FORWARD = "feed-forward"
CONVOLUTION = "convolution"
NORM = "norm"  # with the shifts, scales and gates of an adaptive one
LAYERS = "layer stack"  # what it does beside its parts: residuals, dropout, what it keeps
HEAD = "head"
ENCODER = "encoder"  # of an image autoencoder; so are the next three
BOTTLENECK = "bottleneck"  # its quantiser, or what it has in the place of one
DECODER = "decoder"
DISCRIMINATOR = "discriminator"
DENOISER = "denoiser"  # the network of a diffusion head
DRAWS = "random draws"  # of dropout, masks, times and noise
LOSS = "loss"
OPTIMIZER = "optimizer"  # sums of gradients, clipping, Adam, the new parameters
EMA = "EMA"
GUARD = "guard"

# Of nested scopes the innermost names the part. These name one only where no other does, the first
# of them first: the norm of a head is the head's, attention in a layer is attention, the
# convolutions of a decoder are convolutions.
_GENERAL = (NORM, LAYERS, DISCRIMINATOR, ENCODER, DECODER)
_SPECIFIC = (
    EMBEDDING,
    ATTENTION,
    FEED_FORWARD,
    CONVOLUTION,
    HEAD,
    BOTTLENECK,
    DENOISER,
    DRAWS,
    LOSS,
    OPTIMIZER,
    EMA,
    GUARD,
)


class Direction(enum.StrEnum):
    """Of which pass of a step an operation is."""

    FORWARD = "forward"
    RECOMPUTED = "recomputed"  # forward again, for the backward pass (remat)
    BACKWARD = "backward"
    UPDATE = "update"  # of parameters, average and the like: nothing is differentiated


def part_of(op_name: str) -> str | None:
    """The part that an operation's name lies in; None where no scope says."""
    found = re.findall(r"[^/()]+", op_name)
    for name in reversed(found):
        if name in _SPECIFIC:
            return name
    return next((name for name in _GENERAL if name in found), None)


def direction_of(op_name: str) -> Direction:
    """The pass that an operation's name lies in.

    What of a part is not differentiated (a mask, a frozen network) is of the forward pass.
    """
    if "rematted_computation" in op_name:
        return Direction.RECOMPUTED
    if "transpose(" in op_name:
        return Direction.BACKWARD
    of_update = part_of(op_name) in (None, OPTIMIZER, EMA, GUARD)
    return Direction.UPDATE if of_update and "jvp(" not in op_name else Direction.FORWARD
