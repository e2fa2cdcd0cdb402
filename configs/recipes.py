"""The recipes that families share: of the ladders of small models, and of the public code."""

from ml_collections import ConfigDict


def small(c: ConfigDict) -> None:
    """The recipe of the ladders: "mup" at the rate of experiments/00_learning_rate."""
    c.model.init_std = 0.3
    c.optimizer.learning_rate = 0.006
    c.train.batch_size = 8


def published(c: ConfigDict) -> None:
    """What the public code of ELM, LlamaGen, BiGR, MAR and DiT has in common.

    AdamW at a constant 1e-4, every matrix from N(0, 0.02) (MAR and DiT start theirs by Xavier's
    rule instead), batches of 256, an average of decay 0.9999.
    """
    c.model.init = "normal"
    c.optimizer.width_rule = "none"
    c.optimizer.schedule = "constant"
    c.optimizer.learning_rate = 1e-4
    c.optimizer.warmup = "0 steps"
    c.optimizer.ema_decay = 0.9999
    c.train.batch_size = 256


def dropouts(c: ConfigDict, rate: float, *, embedding: float) -> None:
    """Dropout of both branches of a block, and of what enters the backbone."""
    c.model.residual_dropout = rate
    c.model.mlp_dropout = rate
    c.model.embedding_dropout = embedding
