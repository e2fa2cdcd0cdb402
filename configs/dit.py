"""DiT (arXiv 2212.09748): diffusion of whole images, the baseline that predicts no token.

    python -m lab.launch.train --config configs/dit.py:s3 --config.tokenizer.resolution 8

Of the latents of a KL autoencoder (`--config.tokenizer.name trained`) or of pixels, whose
likelihood is discretised. A size from lab/models/sizes.py follows the colon. The named sizes have
the recipe of the public code: AdamW at a constant 1e-4 without decay or clipping, 7,000,000 steps
of 256 images, patches of 2 x 2 latents, 1,000 steps of linear noise.
"""

from ml_collections import ConfigDict

from configs import base, recipes


def get_config(size: str = "s1") -> ConfigDict:
    """The family at one size."""
    c = base.get_config()
    c.name = f"dit-{size}"
    c.model.family = "dit"
    c.model.size = size
    c.model.diffusion_steps = 1000
    c.model.diffusion_schedule = "linear"
    c.model.norm_epsilon = 1e-6
    c.train.bound_draws = 32
    if size.startswith("s"):
        recipes.small(c)
        return c
    recipes.published(c)
    c.model.patch = 2
    c.optimizer.beta2 = 0.999
    c.optimizer.clip_norm = 0.0
    c.train.duration = "7000000 steps"
    return c
