"""MAR (arXiv 2406.11838): masked generation of continuous latents with a Gaussian-diffusion head.

    python -m lab.launch.train --config configs/mar.py:s3 --config.tokenizer.name trained \\
        --config.tokenizer.run runs/tokenizers/IDENTITY --config.data.name eurosat

The tokenizer is a KL autoencoder. A size from lab/models/sizes.py follows the colon. The named
sizes have the recipe of the public code: AdamW (0.9, 0.95), 8e-4 for batches of 2,048 after 100
epochs of warm-up, decay 0.02, clip 3, 400 epochs. Small ones have a buffer of 8 instead of 64.
"""

from ml_collections import ConfigDict

from configs import base, recipes


def get_config(size: str = "s1") -> ConfigDict:
    """The family at one size."""
    c = base.get_config()
    c.name = f"mar-{size}"
    c.model.family = "mar"
    c.model.size = size
    c.model.mask_schedule = "truncated_normal"
    c.model.diffusion_steps = 1000
    c.model.diffusion_schedule = "cosine"
    c.model.diffusion_repeats = 4
    c.model.norm_epsilon = 1e-6
    c.train.bound_draws = 16
    if size.startswith("s"):
        recipes.small(c)
        c.model.buffer = 8
        return c
    recipes.published(c)
    recipes.dropouts(c, 0.1, embedding=0.0)
    c.model.buffer = 64
    c.optimizer.learning_rate = 8e-4
    c.optimizer.warmup = "100 epochs"
    c.optimizer.weight_decay = 0.02
    c.optimizer.clip_norm = 3.0
    c.train.batch_size = 2048
    c.train.duration = "400 epochs"
    return c
