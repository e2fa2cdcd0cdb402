"""Families by name: a composition of parts and a table of sizes.

The tables are read before jax is imported; parts are imported when a model is built.
"""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

from lab.core.config import ModelConfig
from lab.core.counts import Sizes
from lab.core.errors import LabError
from lab.core.fields import nearest

if typing.TYPE_CHECKING:
    import jax

    from lab.models.generator import Generator


@dataclasses.dataclass(frozen=True)
class Size:
    """Depth, width, heads and the features inside SwiGLU."""

    depth: int
    width: int
    heads: int
    mlp_hidden: int


@dataclasses.dataclass(frozen=True)
class Family:
    """A composition of parts by name, and its sizes."""

    embedding: str
    order: str
    head: str
    sizes: dict[str, Size]


# ELM's published sizes (its code, `ar_model.py`): 64 features a head, SwiGLU's two thirds of four
# widths rounded up to 256. The small sizes keep a ratio of width to depth from 21 to 48 (published:
# 32 to 64): where there are one or two layers, wider ones were no better (LOG.md). They round to 8
# and have 16 features a head (12 in s1).
ELM_SIZES = {
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
    "B": Size(12, 768, 12, 2048),
    "L": Size(24, 1024, 16, 2816),
    "XL": Size(36, 1280, 20, 3584),
    "XXL": Size(48, 1536, 24, 4096),
    "2B": Size(48, 1792, 28, 4864),
    "XXXL": Size(48, 2560, 40, 6912),
}

FAMILIES = {
    "elm": Family(embedding="subcodes", order="raster", head="categorical", sizes=ELM_SIZES),
}


def fill_sizes(model: Any) -> None:
    """Set the fields of a config's `model` section that are 0 from its family's named size."""
    if model.family not in FAMILIES:
        raise LabError(f'config.model.family = "{model.family}": {nearest(model.family, FAMILIES)}')
    sizes = FAMILIES[model.family].sizes
    if model.size not in sizes:
        raise LabError(f'config.model.size = "{model.size}": allowed are {", ".join(sizes)}')
    for name, value in dataclasses.asdict(sizes[model.size]).items():
        if model[name] == 0:
            model[name] = value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codes:
    """What a tokenizer tells a model: codes, the grid they lie in, and the classes of the data."""

    vocabulary: int
    grid: tuple[int, int, int]  # rows, columns, slots of a cell
    classes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """How a model runs; none of it changes what it computes beyond rounding."""

    compute_dtype: str
    platform: str = "cpu"  # where it runs: the kernels of another one are right there, but slow
    remat: str = "none"
    unroll: bool = False


def check_parts(model: ModelConfig) -> None:
    """Refuse parts that do not exist; before jax is imported."""
    for part, table in (("embedding", EMBEDDINGS), ("order", ORDERS), ("head", HEADS)):
        name = getattr(model, part)
        if name not in table:
            raise LabError(
                f'config.model.{part} = "{name}": allowed are {", ".join(sorted(table))}'
            )


def count_sizes(model: ModelConfig, codes: Codes) -> Sizes:
    """What parameters and FLOPs are counted from."""
    rows, columns, slots = codes.grid
    return Sizes(
        depth=model.depth,
        width=model.width,
        mlp_hidden=model.mlp_hidden,
        vocabulary=codes.vocabulary,
        subcodes=model.subcodes,
        slots=slots,
        classes=codes.classes,
        positions=rows * columns * slots,
    )


def builder(
    model: ModelConfig, codes: Codes, running: Running
) -> Callable[["jax.Array"], "Generator"]:
    """A function from a key to the initialised generator."""
    from lab.models.generator import Generator

    order = ORDERS[model.order](model, codes)

    def make(key: "jax.Array") -> Generator:
        import jax

        class_key, embedding_key, backbone_key = jax.random.split(key, 3)
        return Generator(
            classes=_classes(class_key, model, codes),
            embedding=EMBEDDINGS[model.embedding](embedding_key, model, codes),
            backbone=_backbone(backbone_key, model, running, mask=order.mask),
            head=HEADS[model.head](model, codes),
            order=order,
            compute_dtype=running.compute_dtype,
        )

    return make


def _init(model: ModelConfig):
    from lab.layers.parameters import Init

    return Init(rule=model.init, std=model.init_std)


def _classes(key, model: ModelConfig, codes: Codes):
    from lab.models.embeddings import ClassEmbedding

    return ClassEmbedding(
        key,
        classes=codes.classes,
        width=model.width,
        init=_init(model),
        drop_rate=model.class_dropout,
    )


def _backbone(key, model: ModelConfig, running: Running, *, mask):
    from lab.models.backbone import Backbone, BackboneSpec

    spec = BackboneSpec(
        depth=model.depth,
        width=model.width,
        heads=model.heads,
        mlp_hidden=model.mlp_hidden,
        norm_epsilon=model.norm_epsilon,
        residual_dropout=model.residual_dropout,
        mlp_dropout=model.mlp_dropout,
        init=_init(model),
        mask=mask,
        platform=running.platform,
        remat=running.remat,
        unroll=running.unroll,
    )
    return Backbone(key, spec)


def _subcodes(key, model: ModelConfig, codes: Codes):
    from lab.models.embeddings import SubcodeEmbedding

    return SubcodeEmbedding(
        key,
        vocabulary=codes.vocabulary,
        subcodes=model.subcodes,
        slots=codes.grid[2],
        width=model.width,
        init=_init(model),
    )


def _raster(model: ModelConfig, codes: Codes):
    from lab.models.orders import Grid, RasterOrder

    return RasterOrder(
        grid=Grid(*codes.grid),
        rotary_base=model.rotary_base,
        embedding_dropout=model.embedding_dropout,
    )


def _categorical(model: ModelConfig, codes: Codes):
    from lab.models.heads import CategoricalHead

    return CategoricalHead(
        vocabulary=codes.vocabulary,
        subcodes=model.subcodes,
        width=model.width,
        norm_epsilon=model.norm_epsilon,
    )


# A part by the name that a config gives it: model.embedding, model.order, model.head.
EMBEDDINGS = {"subcodes": _subcodes}
ORDERS = {"raster": _raster}
HEADS = {"categorical": _categorical}
