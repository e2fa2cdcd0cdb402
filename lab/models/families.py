"""Families by name: a composition of parts and a table of sizes.

The tables are read before jax is imported; parts are imported when a model is built.
"""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

from lab.core.config import ModelConfig
from lab.core.errors import LabError
from lab.core.fields import nearest
from lab.models import sizes
from lab.models.compatible import check_each_other, check_fit
from lab.models.parts import (
    BACKBONES,
    EMBEDDINGS,
    HEADS,
    ORDERS,
    Codes,
    Running,
)

if typing.TYPE_CHECKING:
    import jax

    from lab.models.generator import Generator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A composition of parts by name, and its sizes."""

    embedding: str
    backbone: str
    order: str
    head: str
    sizes: dict[str, sizes.Size]

    @property
    def parts(self) -> dict[str, str]:
        """The part of each kind."""
        return {kind: getattr(self, kind) for kind in PARTS}


PARTS = ("embedding", "backbone", "order", "head")
FAMILIES = {
    "elm": Family(
        embedding="subcodes",
        backbone="llama",
        order="raster",
        head="categorical",
        sizes=sizes.ELM,
    ),
    "llamagen": Family(
        embedding="subcodes",
        backbone="llama",
        order="raster",
        head="categorical",
        sizes=sizes.LLAMAGEN,
    ),
    "mlm": Family(
        embedding="subcodes",
        backbone="llama",
        order="masked",
        head="tied_categorical",
        sizes=sizes.MLM,
    ),
    "bigr": Family(
        embedding="bits",
        backbone="llama",
        order="masked",
        head="bernoulli_diffusion",
        sizes=sizes.BIGR,
    ),
    "mar": Family(
        embedding="latents",
        backbone="encoder_decoder",
        order="masked",
        head="gaussian_diffusion",
        sizes=sizes.MAR,
    ),
    "ar_diffusion": Family(
        embedding="latents",
        backbone="llama",
        order="raster",
        head="gaussian_diffusion",
        sizes=sizes.AR_DIFFUSION,
    ),
    "dit": Family(
        embedding="patches",
        backbone="dit",
        order="joint",
        head="noise",
        sizes=sizes.DIT,
    ),
}


def fill_sizes(model: Any) -> None:
    """Set what a config's `model` section leaves to its family and named size: "" and 0.

    A part that is named, and a size that is given, stand.
    """
    if model.family not in FAMILIES:
        raise LabError(f'config.model.family = "{model.family}": {nearest(model.family, FAMILIES)}')
    family = FAMILIES[model.family]
    if model.size not in family.sizes:
        raise LabError(f'config.model.size = "{model.size}": allowed are {", ".join(family.sizes)}')
    for name, value in dataclasses.asdict(family.sizes[model.size]).items():
        if model[name] == 0:
            model[name] = value
    for kind, name in family.parts.items():
        if model[kind] == "":
            model[kind] = name


def check_parts(model: ModelConfig) -> None:
    """Refuse parts that do not exist or do not fit each other; before jax is imported."""
    tables = dict(zip(PARTS, (EMBEDDINGS, BACKBONES, ORDERS, HEADS), strict=True))
    for kind, table in tables.items():
        name = getattr(model, kind)
        if name not in table:
            allowed = ", ".join(sorted(table))
            raise LabError(f'config.model.{kind} = "{name}": allowed are {allowed}')
    check_each_other(model)


def builder(
    model: ModelConfig, codes: Codes, running: Running
) -> Callable[["jax.Array"], "Generator"]:
    """A function from a key to the initialised generator.

    Raises LabError where parts do not fit each other or the codes.
    """
    check_parts(model)
    check_fit(model, codes)
    from lab.models.generator import Generator

    order = ORDERS[model.order](model, codes)

    def make(key: "jax.Array") -> Generator:
        import jax

        from lab.models.parts import class_embedding, target_embedding, time_embedding

        class_key, embedding_key, backbone_key = jax.random.split(key, 3)
        head_key, time_key, target_key = (jax.random.fold_in(key, n) for n in (3, 4, 5))
        return Generator(
            classes=class_embedding(class_key, model, codes),
            embedding=EMBEDDINGS[model.embedding](embedding_key, model, codes),
            backbone=BACKBONES[model.backbone](backbone_key, model, codes, running, order),
            head=HEADS[model.head](head_key, model, codes, running),
            order=order,
            compute_dtype=running.compute_dtype,
            time=time_embedding(time_key, model),
            targets=target_embedding(target_key, model, codes),
        )

    return make
