"""ELM (arXiv 2410.16257): autoregression over the sub-codes of binary-autoencoder or pixel tokens.

    python -m lab.launch.train --config configs/elm.py:s3

A size from lab/models/families.py follows the colon. Published training (section 1.4 of the
paper's appendix, its `train.sh`): AdamW (0.9, 0.95), decay 0.05, rate 1e-4, batch 256, 400 epochs
of ImageNet, dropout 0.1, EMA 0.9999. The small sizes train on pixels at a higher rate by "mup".
"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "s1") -> ConfigDict:
    """The family at one size."""
    c = base.get_config()
    c.name = f"elm-{size}"
    c.model.family = "elm"
    c.model.size = size
    return c
