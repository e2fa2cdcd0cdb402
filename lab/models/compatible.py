"""Which parts of a generator fit each other, and the tokens of a tokenizer.

Nothing of jax is imported: a config is refused before.
"""

from lab.core.config import ModelConfig
from lab.core.errors import LabError
from lab.models.parts import Codes

# Which order a backbone serves, and which tokens an embedding and a head take.
SERVES = {"llama": ("raster", "masked"), "encoder_decoder": ("masked",), "dit": ("joint",)}
JOINT = {"embedding": "patches", "backbone": "dit", "order": "joint", "head": "noise"}
EMBEDDING_OF = {"subcodes": "ids", "bits": "bits", "latents": "latents", "patches": "any"}
HEAD_OF = {
    "categorical": "ids",
    "tied_categorical": "ids",
    "bernoulli": "bits",
    "bernoulli_diffusion": "bits",
    "gaussian_diffusion": "latents",
    "noise": "any",
}


def check_fit(model: ModelConfig, codes: Codes) -> None:
    """Raise LabError where parts do not fit each other, or the tokens of the tokenizer."""
    check_each_other(model)
    tokens = "latents" if codes.channels else "bits" if codes.vocabulary == 2 else "ids"
    allowed = {"latents": ("latents",), "bits": ("bits", "ids"), "ids": ("ids",)}[tokens]
    for kind, table in (("embedding", EMBEDDING_OF), ("head", HEAD_OF)):
        name = getattr(model, kind)
        if table[name] not in (*allowed, "any"):
            raise LabError(
                f'config.model.{kind} = "{name}": takes {table[name]}, and the tokenizer gives '
                f"{tokens} (vocabulary {codes.vocabulary}, {model.subcodes} at a position)"
            )
    if model.order == "joint" and codes.grid[0] % model.patch + codes.grid[1] % model.patch:
        raise LabError(
            f"config.model.patch = {model.patch}: must divide the grid of "
            f"{codes.grid[0]} x {codes.grid[1]} cells"
        )


def check_each_other(model: ModelConfig) -> None:
    """Raise LabError where parts do not fit each other, whatever the tokens."""
    if model.order not in SERVES[model.backbone]:
        allowed = ", ".join(SERVES[model.backbone])
        raise LabError(
            f'config.model.order = "{model.order}": backbone "{model.backbone}" serves {allowed}'
        )
    named = {kind: getattr(model, kind) for kind in JOINT}
    if any(name == JOINT[kind] for kind, name in named.items()) and named != JOINT:
        raise LabError(
            f"config.model: embedding, backbone, order and head = {', '.join(named.values())}: "
            f"{', '.join(JOINT.values())} go together only"
        )
    needs = {
        "mask_schedule": model.order == "masked",
        "diffusion_schedule": model.head in ("gaussian_diffusion", "noise"),
        "diffusion_steps": model.head in ("bernoulli_diffusion", "gaussian_diffusion", "noise"),
        "denoiser_depth": model.head in ("bernoulli_diffusion", "gaussian_diffusion"),
        "denoiser_width": model.head in ("bernoulli_diffusion", "gaussian_diffusion"),
        "mask_rates": model.mask_schedule in ("cosine", "linear"),
        "decoder_depth": model.backbone == "encoder_decoder",
        "buffer": model.backbone == "encoder_decoder",
    }
    for name, needed in needs.items():
        if needed and getattr(model, name) in (0, "none"):
            raise LabError(
                f"config.model.{name} = {getattr(model, name)!r}: needed where backbone = "
                f'"{model.backbone}", order = "{model.order}" and head = "{model.head}"'
            )
    if model.head == "bernoulli_diffusion" and model.denoiser_target not in ("xor", "x0"):
        raise LabError(
            f'config.model.denoiser_target = "{model.denoiser_target}": allowed are xor, x0'
        )
    if model.head == "tied_categorical" and model.embedding != "subcodes":
        raise LabError(
            f'config.model.head = "tied_categorical": of the embedding subcodes only, not '
            f'"{model.embedding}"'
        )
    for name in ("modulation", "qk_norm"):
        if getattr(model, name) not in ("none", False) and model.backbone != "llama":
            raise LabError(
                f"config.model.{name} = {getattr(model, name)!r}: of the backbone llama only, not "
                f'"{model.backbone}"'
            )
    if model.scan == "any" and model.head in ("bernoulli_diffusion", "gaussian_diffusion"):
        raise LabError(
            f'config.model.scan = "any": of heads with an exact likelihood only, not "{model.head}"'
        )
    if model.scan != "rows" and model.order != "raster":
        raise LabError(
            f'config.model.scan = "{model.scan}": of the order raster only, not "{model.order}"'
        )
    if model.z_loss and model.head not in ("categorical", "tied_categorical"):
        raise LabError(
            f"config.model.z_loss = {model.z_loss}: of the heads categorical and tied_categorical, "
            f'not "{model.head}"'
        )
