"""Sizes of the families by name.

Published sizes are those of the public code. The small ones keep a ratio of width to depth from 21
to 48 (published: 32 to 64): where there are one or two layers, wider ones were no better (LOG.md);
they have 16 features a head (12 in s1), and SwiGLU's two thirds of four widths round to 8.
"""

import dataclasses

from lab.core.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Size:
    """Depth, width, heads, features inside the feed-forward layer; then what a family adds."""

    depth: int
    width: int
    heads: int
    mlp_hidden: int
    decoder_depth: int = 0  # of an encoder and decoder (MAR)
    denoiser_depth: int = 0  # of a diffusion head
    denoiser_width: int = 0


def llama_blocks(model: ModelConfig) -> int | None:
    """Parameters of the blocks before a model is built; None of blocks of another kind."""
    if model.backbone != "llama" or model.modulation != "none":
        return None
    block = 4 * model.width**2 + 3 * model.width * model.mlp_hidden + 2 * model.width
    return model.depth * block


SMALL = {
    "s1": Size(1, 24, 2, 64),
    "s2": Size(1, 32, 2, 88),
    "s3": Size(1, 48, 3, 128),
    "s4": Size(2, 48, 3, 128),
    "s5": Size(2, 64, 4, 176),
    "s6": Size(3, 64, 4, 176),
    "s7": Size(3, 80, 5, 216),
    "s8": Size(3, 96, 6, 256),
    "s9": Size(4, 128, 8, 344),
    "s10": Size(5, 160, 10, 432),
    "s11": Size(6, 192, 12, 512),
    "s12": Size(8, 256, 16, 688),
}

# The Llama blocks that LlamaGen, ELM and BiGR share: SwiGLU's hidden features are two thirds of
# four widths rounded up to 256.
LLAMA = {
    "B": Size(12, 768, 12, 2048),
    "L": Size(24, 1024, 16, 2816),
    "XL": Size(36, 1280, 20, 3584),
    "XXL": Size(48, 1536, 24, 4096),
}
ELM = {
    **SMALL,
    **LLAMA,
    "2B": Size(48, 1792, 28, 4864),
    "XXXL": Size(48, 2560, 40, 6912),
}
LLAMAGEN = {
    **SMALL,
    **LLAMA,
    "XXXL": Size(48, 2560, 40, 6912),
    "1B": Size(22, 2048, 32, 5632),
    "3B": Size(24, 3200, 32, 8704),
    "7B": Size(32, 4096, 32, 11008),
}
MLM = {**SMALL, **{name: LLAMA[name] for name in ("L", "XL", "XXL")}}


def _with_denoiser(size: Size, depth: int, width: int) -> Size:
    return dataclasses.replace(size, denoiser_depth=depth, denoiser_width=width)


BIGR = {
    **{name: _with_denoiser(size, 2, size.width) for name, size in SMALL.items()},
    "L": _with_denoiser(LLAMA["L"], 3, 1024),
    "XL": _with_denoiser(LLAMA["XL"], 6, 1280),
    "XXL": _with_denoiser(LLAMA["XXL"], 8, 1536),
    "L-512": _with_denoiser(LLAMA["L"], 6, 1280),
}
AR_DIFFUSION = {
    **{name: _with_denoiser(size, 2, size.width) for name, size in SMALL.items()},
    "L": _with_denoiser(LLAMA["L"], 8, 1280),
}


def _mar(depth: int, width: int, heads: int, *, denoiser: tuple[int, int]) -> Size:
    return Size(depth, width, heads, 4 * width, depth, *denoiser)


# The small ones split the blocks of the same name between encoder and decoder, one each at least.
MAR = {
    **{
        name: Size(
            max(1, size.depth // 2),
            size.width,
            size.heads,
            4 * size.width,
            max(1, size.depth - size.depth // 2),
            2,
            size.width,
        )
        for name, size in SMALL.items()
    },
    "B": _mar(12, 768, 12, denoiser=(6, 1024)),
    "L": _mar(16, 1024, 16, denoiser=(8, 1280)),
    "H": _mar(20, 1280, 16, denoiser=(12, 1536)),
}
DIT = {
    **{name: dataclasses.replace(size, mlp_hidden=4 * size.width) for name, size in SMALL.items()},
    "S": Size(12, 384, 6, 1536),
    "B": Size(12, 768, 12, 3072),
    "L": Size(24, 1024, 16, 4096),
    "XL": Size(28, 1152, 16, 4608),
}
