"""A vision transformer over patches (Dosovitskiy et al. 2021), small enough for a CPU.

    python -m lab.launch.train --config configs/classifiers/patch.py:small

A second view of the same images: a verdict that holds in its features and in those of conv.py is
not one of an architecture's taste.
"""

from ml_collections import ConfigDict

from configs.classifiers import base


def get_config(size: str = "small") -> ConfigDict:
    """The config of one size."""
    base.check_size(size)
    c = base.get_config()
    c.name = f"patch-{size}"
    c.classifier.kind = "patch"
    c.classifier.size = size
    c.classifier.width = 96
    c.classifier.depth = 3
    c.classifier.patch = 8
    c.classifier.heads = 4
    c.classifier.mlp_hidden = 384
    c.optimizer.learning_rate = 1e-3
    c.optimizer.beta2 = 0.99
    c.optimizer.weight_decay = 0.05
    c.optimizer.warmup = "200 steps"
    c.optimizer.cooldown_fraction = 0.5
    c.train.batch_size = 32
    c.train.duration = "6 epochs"
    c.train.log_every_steps = 100
    c.train.evaluation_batch_size = 128
    return c
