"""ELM (arXiv 2410.16257): autoregression over the sub-codes of binary-autoencoder or pixel tokens.

    python -m lab.launch.train --config configs/elm.py:s3

A size from lab/models/families.py follows the colon. The named sizes (B to XXXL) have the recipe
of ELM's public code (`train.sh`, `train_ddp.py`): every matrix from N(0, 0.02), AdamW (0.9, 0.95)
at a constant 1e-4, decay 0.05, batch 256, 400 epochs, dropout 0.1, EMA 0.9999. They want a
tokenizer of sub-codes and ImageNet. The small sizes (s1 to s12) train on pixels under "mup" at the
rate of experiments/00_learning_rate.

s3, 2,000,000 tokens of dead leaves in batches of 8: 1.370 ± 0.009 nats/token (standard error over
1,024 images), 6 s of training on one core of an AMD EPYC (Zen 4), 2026-11-24
(experiments/01_first_ladder, run s3-2M).
"""

from ml_collections import ConfigDict

from configs import base, recipes


def get_config(size: str = "s1") -> ConfigDict:
    """The family at one size."""
    c = base.get_config()
    c.name = f"elm-{size}"
    c.model.family = "elm"
    c.model.size = size
    if size.startswith("s"):
        recipes.small(c)
        return c
    recipes.published(c)
    recipes.dropouts(c, 0.1, embedding=0.1)
    c.model.subcodes = 2
    c.optimizer.weight_decay = 0.05
    c.train.duration = "400 epochs"
    return c
