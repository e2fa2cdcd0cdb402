"""Autoregression over continuous latents with a Gaussian-diffusion head.

    python -m lab.launch.train --config configs/ar_diffusion.py:s3 \\
        --config.tokenizer.name trained --config.tokenizer.run runs/tokenizers/IDENTITY

The causal variant of MAR (arXiv 2406.11838, its AR rows): ELM's order and blocks with MAR's tokens
and head. A size from lab/models/sizes.py follows the colon; the recipe of L is MAR's, of which the
public code has no causal run.
"""

from ml_collections import ConfigDict

from configs import mar


def get_config(size: str = "s1") -> ConfigDict:
    """The family at one size."""
    c = mar.get_config(size)
    c.name = f"ar_diffusion-{size}"
    c.model.family = "ar_diffusion"
    c.model.mask_schedule = "none"
    c.model.buffer = 0
    return c
