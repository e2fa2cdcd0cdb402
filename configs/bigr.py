"""BiGR (arXiv 2410.14672): masked generation of bits with a Bernoulli-diffusion head.

    python -m lab.launch.train --config configs/bigr.py:s3 --config.tokenizer.name trained \\
        --config.tokenizer.run runs/tokenizers/IDENTITY --config.model.subcodes 16

`model.subcodes` is the number of bits: a position is that many sub-codes of one bit. A size from
lab/models/sizes.py follows the colon, and before it may stand a variant: S0 to S3 of the paper's
table 1 (AR or masked x categorical or binary; S3 is BiGR), or one of its transcoder ablations:

    S0-L  AR, categorical        S1-L  masked, categorical
    S2-L  AR, binary             S3-L  masked, binary: the same as L
    bce-L  direct BCE            x0-L  the network predicts the bits and not which flipped

In the categorical ones `model.subcodes` is the number of groups (1, 2, ...). The named sizes have
the recipe of the public code: AdamW (0.9, 0.95) at a constant 1e-4, decay 0.02, 400 epochs.
"""

from ml_collections import ConfigDict

from configs import base, recipes

CATEGORICAL = {"embedding": "subcodes", "head": "categorical"}
VARIANTS = {
    "S0": {**CATEGORICAL, "order": "raster"},
    "S1": {**CATEGORICAL, "order": "masked"},
    "S2": {"order": "raster"},
    "S3": {},
    "bce": {"head": "bernoulli"},
    "x0": {"denoiser_target": "x0"},
}


def get_config(size: str = "s1") -> ConfigDict:
    """The family, or a variant of it, at one size."""
    variant, dash, after = size.partition("-")
    if variant in VARIANTS and dash:
        size = after
    else:
        variant = "S3"
    c = base.get_config()
    c.name = f"bigr-{size}" if variant == "S3" else f"bigr-{variant}-{size}"
    c.model.family = "bigr"
    c.model.size = size
    c.model.modulation = "shared"
    c.model.mask_schedule = "cosine"
    c.model.mask_rates = 256
    c.model.denoiser_target = "xor"
    c.model.diffusion_steps = 256
    c.train.bound_draws = 16
    c.model.subcodes = 1 if VARIANTS[variant].get("head") == "categorical" else 24
    if size.startswith("s"):
        recipes.small(c)
    else:
        recipes.published(c)
        recipes.dropouts(c, 0.1, embedding=0.0)
        c.optimizer.weight_decay = 0.02
        c.train.batch_size = 512
        c.train.duration = "400 epochs"
    if size in ("L", "L-512"):
        c.train.batch_size = 1024
    if size == "L-512":
        c.model.subcodes = 32
    for name, value in VARIANTS[variant].items():
        c.model[name] = value
    return c
