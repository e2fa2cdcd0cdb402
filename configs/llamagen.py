"""LlamaGen (arXiv 2406.06525): autoregression over the ids of a VQGAN.

    python -m lab.launch.train --config configs/llamagen.py:s3 --config.tokenizer.name trained \\
        --config.tokenizer.run runs/tokenizers/IDENTITY --config.data.name eurosat

A size from lab/models/sizes.py follows the colon. The named sizes (B to 7B) have the recipe of the
public code (`train_c2i.py`): AdamW (0.9, 0.95) at a constant 1e-4, decay 0.05, batch 256, 300
epochs, dropout 0.1, no average. They want the f16 tokenizer with 16,384 codes and ImageNet.
"""

from ml_collections import ConfigDict

from configs import base, recipes


def get_config(size: str = "s1") -> ConfigDict:
    """The family at one size."""
    c = base.get_config()
    c.name = f"llamagen-{size}"
    c.model.family = "llamagen"
    c.model.size = size
    if size.startswith("s"):
        recipes.small(c)
        return c
    recipes.published(c)
    recipes.dropouts(c, 0.1, embedding=0.1)
    c.optimizer.weight_decay = 0.05
    c.optimizer.ema_decay = 0.0
    c.train.duration = "300 epochs"
    return c
