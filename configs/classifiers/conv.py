"""A residual convolutional network (He et al. 2016), small enough for a CPU.

    python -m lab.launch.train --config configs/classifiers/conv.py:small

Another data set brings its own size: Fashion-MNIST wants --config.data.name fashion_mnist
--config.images.resolution 28 --config.images.channels grey --config.classifier.patch 2
--config.classifier.multipliers 1-2.

Its 128 features before the last matrix are what Frechet distances of a data set are taken in.
"""

from ml_collections import ConfigDict

from configs.classifiers import base


def get_config(size: str = "small") -> ConfigDict:
    """The config of one size."""
    base.check_size(size)
    c = base.get_config()
    c.name = f"conv-{size}"
    c.classifier.kind = "conv"
    c.classifier.size = size
    c.classifier.width = 32
    c.classifier.depth = 1
    c.classifier.patch = 4
    c.classifier.multipliers = "1-2-4"
    c.classifier.groups = 8
    c.optimizer.learning_rate = 2e-3
    c.optimizer.beta2 = 0.99
    c.optimizer.weight_decay = 0.05
    c.optimizer.warmup = "200 steps"
    c.optimizer.cooldown_fraction = 0.5
    c.train.batch_size = 32
    c.train.duration = "12 epochs"
    c.train.log_every_steps = 100
    c.train.evaluation_batch_size = 128
    return c
