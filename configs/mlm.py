"""MLM: MaskGIT's masking (arXiv 2202.04200) on the Llama block, as ELM compares it with AR.

    python -m lab.launch.train --config configs/mlm.py:s3 --config.tokenizer.resolution 8

A size from lab/models/sizes.py follows the colon. Tokens are sub-codes of bits, ids of a VQGAN or
pixels. The named sizes have the recipe of ELM's public code: a head tied to the token embedding,
one of ten shares of a cosine hidden in each batch (`gen_iter` 10). The small ones have an untied
head (`--config.model.head tied_categorical` ties it), for under "mup" the embedding is too large to
begin near uniform with, and hide one of 64 shares.

The validation number is the any-order bound, estimated with `train.bound_draws` masks an image.
"""

from ml_collections import ConfigDict

from configs import base, recipes


def get_config(size: str = "s1") -> ConfigDict:
    """The family at one size."""
    c = base.get_config()
    c.name = f"mlm-{size}"
    c.model.family = "mlm"
    c.model.size = size
    c.model.mask_schedule = "cosine"
    c.train.bound_draws = 16
    if size.startswith("s"):
        recipes.small(c)
        c.model.head = "categorical"
        c.model.mask_rates = 64
        return c
    recipes.published(c)
    recipes.dropouts(c, 0.1, embedding=0.1)
    c.model.mask_rates = 10
    c.optimizer.weight_decay = 0.05
    c.train.duration = "400 epochs"
    return c
