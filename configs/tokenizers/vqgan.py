"""VQGAN (Esser et al. 2021): codes are the nearest of a learned table.

    python -m lab.launch.train --config configs/tokenizers/vqgan.py:small

After the colon: `f16-1024` and `f16-16384` as published for ImageNet (taming), `llamagen-f16` and
`llamagen-f8` (LlamaGen: 16,384 codes of 8 normalised dimensions); for images of 64 x 64 on a CPU
`small`, `small-l2` (normalised) and `small-restart` (unused codes begin anew). The published ones
want ImageNet and a file of LPIPS weights (config.losses.perceptual_file).
"""

from ml_collections import ConfigDict

from configs.tokenizers import base

TAMING = {"f16-1024": 1024, "f16-16384": 16384}
LLAMAGEN = {"llamagen-f16": "1-1-2-2-4", "llamagen-f8": "1-2-2-4"}
SMALL = {"small": 64, "small-l2": 8, "small-restart": 64}  # dimensions of a code


def get_config(size: str = "small") -> ConfigDict:
    """The config of one size."""
    base.check_size(size, (*TAMING, *LLAMAGEN, *SMALL))
    c = base.get_config()
    c.name = f"vqgan-{size}"
    c.autoencoder.size = size
    c.code.kind = "vq"
    c.losses.codebook = 1.0
    c.losses.commitment = 0.25
    if size in TAMING:
        _taming(c, vocabulary=TAMING[size])
    elif size in LLAMAGEN:
        _llamagen(c, multipliers=LLAMAGEN[size])
    else:
        _small(c, size=size)
    return c


def _taming(c: ConfigDict, *, vocabulary: int) -> None:
    """The recipe of taming-transformers, at 8 devices x 12 images; the duration is our choice."""
    c.code.vocabulary = vocabulary
    c.code.features = 256
    base.eight_by_twelve(c)
    c.losses.adversarial = 0.8
    c.losses.adversarial_start = "250001 steps"


def _llamagen(c: ConfigDict, *, multipliers: str) -> None:
    """LlamaGen's recipe; its public code has a flag of weight decay and does not read it."""
    c.autoencoder.multipliers = multipliers
    c.code.vocabulary = 16384
    c.code.features = 8
    c.code.normalised = True
    c.losses.reconstruction = "l2"
    c.losses.perceptual = 1.0
    c.losses.adversarial = 0.5
    c.losses.adversarial_adaptive = False
    c.losses.adversarial_start = "20000 steps"
    c.optimizer.beta2 = 0.95
    c.optimizer.learning_rate = 1e-4
    c.optimizer.schedule = "constant"
    c.optimizer.warmup = "0 steps"
    c.train.batch_size = 128
    c.train.duration = "40 epochs"
    c.data.augmentation = "flip"


def _small(c: ConfigDict, *, size: str) -> None:
    base.small(c, size=size)
    c.code.vocabulary = 1024
    c.code.features = SMALL[size]
    c.code.normalised = size == "small-l2"
    c.losses.restart_below = 0.1 if size == "small-restart" else 0.0
