"""Every field of a classifier's run. A kind's config starts from here and changes what it must."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The resolved defaults; `lab.core.config` states the type and the range of each field."""
    c = ConfigDict()
    c.name = ""  # a label for tables; not part of the identity
    c.study = "classifiers"  # the folder that runs compared with each other share
    c.seed = 0  # initial parameters, data order
    c.data = base.data()
    c.images = _images()
    c.classifier = _classifier()
    c.optimizer = base.optimizer()
    c.train = base.train()
    c.execution = base.execution()
    c.data.name = "eurosat"
    c.data.augmentation = "flip"
    c.data.validation_examples = 2048
    c.optimizer.width_rule = "none"
    c.execution.unroll_layers = True
    return c


def _images() -> ConfigDict:
    """The images that the network sees."""
    c = ConfigDict()
    c.resolution = 64  # pixels along a side of the largest centred square, area-averaged
    c.channels = "rgb"  # grey | rgb
    return c


def _classifier() -> ConfigDict:
    """The network; what a kind does not use stays 0 or ""."""
    c = ConfigDict()
    c.kind = "conv"  # conv | patch
    c.size = ""  # a name for the record
    c.width = 32  # conv: channels of the finest level; patch: features of a position
    c.depth = 1  # conv: residual blocks a level; patch: blocks
    c.patch = 4  # pixels a side of a position; conv: the stride of its first layer
    c.multipliers = ""  # conv: of the width, level by level; each but the last halves the side
    c.groups = 0  # conv: of the group normalisation
    c.heads = 0  # patch: of attention
    c.mlp_hidden = 0  # patch: features inside the MLP
    c.label_smoothing = 0.1  # share of a uniform distribution in the target
    return c


def check_size(size: str) -> None:
    """Refuse a size that a config does not have."""
    if size != "small":
        raise ValueError(f'size "{size}": allowed is small')
