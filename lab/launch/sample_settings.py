"""From flags to the settings of a draw: which mean something to a family, and what is usual."""

import argparse
from typing import TYPE_CHECKING

from lab.core.errors import LabError

if TYPE_CHECKING:
    from lab.core.config import ModelConfig
    from lab.sampling.settings import Settings

CODES = ("categorical", "tied_categorical")
BITS = ("bernoulli", "bernoulli_diffusion")
CHAINS = ("bernoulli_diffusion", "gaussian_diffusion", "noise")
SCHEDULES = ("constant", "linear", "cos", "log", "square", "square_root")
RANKINGS = ("confidence", "certainty", "random", "raster")
CHANGES = ("constant", "down", "up")
PACES = ("rounds", "unmasked")
METHODS = ("ddpm", "ddim", "heun")
# Usual values of the published samplers: MaskGIT, BiGR-L, MAR; DiT.
ROUNDS = {"codes": 12, "bits": 20, "latents": 64}
GUMBEL = {"codes": (4.5, "down"), "bits": (0.17, "constant")}
CHAIN_STEPS = {"bernoulli_diffusion": 100, "gaussian_diffusion": 100, "noise": 250}


def add_flags(add) -> None:
    """The flags that say how images are drawn."""
    add("--guidance", type=float, metavar="S", help="null + S (class - null); 1 is none (1)")
    add("--schedule", choices=SCHEDULES, help="how guidance grows to S (constant)")
    add("--temperature", type=float, metavar="T", help="of codes and bits; of noise (1)")
    add("--top-k", type=int, metavar="K", help="the K likeliest codes (all)")
    add("--top-p", type=float, metavar="P", help="the likeliest codes that reach P (1)")
    add("--rounds", type=int, metavar="N", help="of a masked model; 0: one position each")
    add("--order", choices=RANKINGS, help="of a masked model: what is fixed first")
    add("--gumbel", type=float, metavar="G", help="noise on confidence or certainty")
    add("--gumbel-change", choices=CHANGES, help="how that noise changes over the rounds")
    add("--remask", action="store_true", default=None, help="re-open what is drawn otherwise")
    add("--pace", choices=PACES, help="what a masked model's guidance grows with")
    add("--steps", type=int, metavar="N", help="of a diffusion, respaced; 0: all")
    add("--method", choices=METHODS, help="of a model that denoises whole images (ddpm)")


def tokens_of(model: "ModelConfig") -> str:
    """What a head draws: codes, bits or latents."""
    return "codes" if model.head in CODES else "bits" if model.head in BITS else "latents"


def check_meaning(flags: argparse.Namespace, model: "ModelConfig") -> None:
    """Raise LabError for a flag that means nothing to this model, or to the other flags."""
    masked, joint = model.order == "masked", model.order == "joint"
    named = f"order {model.order}, head {model.head}"
    order = flags.order or _usual_order(model)
    ranked = masked and order in ("confidence", "certainty")
    smooth = joint and flags.method in ("ddim", "heun")
    means = {
        "temperature": (not smooth, f"{flags.method} draws no noise"),
        "top_k": (model.head in CODES, f"{named}: there are no codes to leave out"),
        "top_p": (model.head in CODES, f"{named}: there are no codes to leave out"),
        "rounds": (masked, f"{named}: only of a masked order"),
        "order": (masked, f"{named}: only of a masked order"),
        "pace": (masked, f"{named}: only of a masked order"),
        "gumbel": (ranked, f"{named}: only where confidence or certainty ranks"),
        "gumbel_change": (ranked, f"{named}: only where confidence or certainty ranks"),
        "remask": (ranked, f"{named}: only where confidence or certainty ranks"),
        "steps": (model.head in CHAINS, f"{named}: there is no diffusion"),
        "method": (joint, f"{named}: only of a model that denoises whole images"),
        "schedule": (flags.guidance not in (None, 1), "give --guidance, other than 1"),
    }
    for name, (meant, why) in means.items():
        value = getattr(flags, name)
        if value is not None and not meant:
            raise LabError(f"--{name.replace('_', '-')} {value}: means nothing here: {why}")
    if flags.guidance not in (None, 1) and not model.class_dropout:
        raise LabError(
            f"--guidance {flags.guidance}: this run learned no null class "
            "(config.model.class_dropout = 0)"
        )
    if ranked and tokens_of(model) == "latents":
        raise LabError(f"--order {order}: latents have no confidence; allowed are random, raster")


def _usual_order(model: "ModelConfig") -> str:
    return "random" if tokens_of(model) == "latents" else "confidence"


def _given(value, usual):
    return usual if value is None else value


def settings_of(flags: argparse.Namespace, model: "ModelConfig", positions: int) -> "Settings":
    """The settings; what is not given is as usual for the family. Raises LabError."""
    from lab.models.drawing import Drawing
    from lab.sampling.guidance import Guidance, Schedule
    from lab.sampling.settings import Change, Method, Pace, Ranking, Settings, Unmasking

    check_meaning(flags, model)
    kind = tokens_of(model)
    order = Ranking(flags.order or _usual_order(model))
    ranked = order in (Ranking.CONFIDENCE, Ranking.CERTAINTY) and model.order == "masked"
    gumbel, change = GUMBEL.get(kind, (0.0, "down")) if ranked else (0.0, "down")
    steps = min(CHAIN_STEPS.get(model.head, 0), model.diffusion_steps)
    if flags.steps is not None and flags.steps > model.diffusion_steps:
        raise LabError(f"--steps {flags.steps}: allowed are 0 to {model.diffusion_steps}, 0 all")
    if flags.rounds is not None and flags.rounds > positions:
        raise LabError(f"--rounds {flags.rounds}: allowed are 0 to the {positions} positions")
    return Settings(
        guidance=Guidance(
            _given(flags.guidance, 1.0), Schedule(_given(flags.schedule, "constant"))
        ),
        drawing=Drawing(
            temperature=_given(flags.temperature, 1.0),
            top_k=_given(flags.top_k, 0),
            top_p=_given(flags.top_p, 1.0),
            steps=_given(flags.steps, steps),
        ),
        unmasking=Unmasking(
            rounds=_given(flags.rounds, min(ROUNDS[kind], positions)),
            ranking=order,
            gumbel=_given(flags.gumbel, gumbel),
            gumbel_change=Change(_given(flags.gumbel_change, change)),
            remask=bool(flags.remask),
            pace=Pace(_given(flags.pace, "unmasked" if kind == "latents" else "rounds")),
        ),
        method=Method(_given(flags.method, "ddpm")),
    )
