"""A run's configuration: frozen dataclasses inside, ConfigDicts outside, `admit` between them."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from lab.core.canonical import json_sha256
from lab.core.classifier_checks import check_classifier
from lab.core.errors import LabError
from lab.core.execution_config import ExecutionConfig, check_execution
from lab.core.fields import allow, count, defining, plain, probability, section
from lab.core.guard_config import OFF, GuardConfig, check_guard
from lab.core.tokenizer_checks import check_tokenizer
from lab.core.units import Duration, DurationUnit, parse_duration

SEMANTICS = 1  # raise it when the same config would train another model
MASK_SCHEDULES = ("none", "cosine", "linear", "truncated_normal")
SCANS = ("rows", "columns", "rows_zigzag", "columns_zigzag", "diagonal", "spiral", "z_curve")
SCANS += ("hilbert", "subsample", "shuffled", "any")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images."""

    name: str
    train_examples: int = count(0)
    validation_examples: int = count()
    train_split: str
    validation_split: str
    augmentation: str = allow(choices=("none", "flip", "ten_crop"), before="none")
    manual_dir: str = allow(execution=True)
    data_dir: str = allow(execution=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How an image becomes tokens."""

    name: str = allow(choices=("pixels", "pixel_bits", "trained"))
    resolution: int = count()
    channels: str = allow(choices=("grey", "rgb"))
    levels: int = allow(at_least=2, below=257)
    trained: str = allow(before="")  # the identity of a trained tokenizer; "": none
    sampled: bool = allow(before=False)
    run: str = allow(execution=True)
    codes: str = allow(execution=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The images that a network sees: the largest centred square, area-averaged."""

    resolution: int = count()
    channels: str = allow(choices=("grey", "rgb"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """A convolutional encoder and decoder, and its size."""

    size: str
    width: int = count()
    multipliers: str
    residual_blocks: int = count()
    decoder_blocks: int = count()
    decoder_norm_first: bool
    latent_channels: int = count()
    attention: str = allow(choices=("none", "middle", "lowest"))
    decoder_attention: str = allow(choices=("none", "middle", "lowest"))
    last_activation: str = allow(choices=("swish", "none"))
    groups: int = count()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeConfig:
    """What lies between encoder and decoder; a field that a kind does not use is 0 or False."""

    kind: str = allow(choices=("vq", "binary", "kl"))
    vocabulary: int = count(0)
    features: int = count(0)
    bits: int = allow(at_least=0, below=64)
    channels: int = count(0)
    normalised: bool
    sampled: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What a tokenizer minimises: the terms and their weights."""

    reconstruction: str = allow(choices=("l1", "l2"))
    codebook: float = allow(at_least=0.0)
    commitment: float = allow(at_least=0.0)
    entropy: float = allow(at_least=0.0)
    entropy_temperature: float = allow(above=0.0)
    kl: float = allow(at_least=0.0)
    restart_below: float = allow(at_least=0.0)
    perceptual: float = allow(at_least=0.0)
    perceptual_file: str = allow(execution=True)
    adversarial: float = allow(at_least=0.0)
    adversarial_start: Duration
    adversarial_adaptive: bool
    adversarial_most: float = allow(above=0.0)
    discriminator_width: int = count()
    discriminator_layers: int = count()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """A classifier and its size; a field that a kind does not use is 0 or ""."""

    kind: str = allow(choices=("conv", "patch"))
    size: str
    width: int = count()
    depth: int = count()
    patch: int = count()
    multipliers: str
    groups: int = count(0)
    heads: int = count(0)
    mlp_hidden: int = count(0)
    label_smoothing: float = probability()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A generator: embedding x backbone x order x head, and its size."""

    family: str
    size: str
    embedding: str
    order: str
    head: str
    depth: int = count()
    width: int = count()
    heads: int = count()
    mlp_hidden: int = count()
    subcodes: int = count()
    rotary_base: float = allow(above=1.0)
    norm_epsilon: float = allow(above=0.0)
    class_dropout: float = probability()
    embedding_dropout: float = probability()
    residual_dropout: float = probability()
    mlp_dropout: float = probability()
    init: str = allow(choices=("mup", "completep", "normal"))
    init_std: float = allow(above=0.0)
    backbone: str = allow(before="llama")
    modulation: str = allow(choices=("none", "shared", "blocks"), before="none")
    decoder_depth: int = allow(at_least=0, before=0)
    buffer: int = allow(at_least=0, before=0)
    patch: int = allow(at_least=1, before=1)
    scan: str = allow(choices=SCANS, before="rows")
    mask_schedule: str = allow(choices=MASK_SCHEDULES, before="none")
    mask_rates: int = allow(at_least=0, before=0)
    label_smoothing: float = allow(at_least=0.0, below=1.0, before=0.0)
    qk_norm: bool = allow(before=False)
    z_loss: float = allow(at_least=0.0, before=0.0)
    denoiser_depth: int = allow(at_least=0, before=0)
    denoiser_width: int = allow(at_least=0, before=0)
    denoiser_target: str = allow(choices=("none", "xor", "x0"), before="none")
    diffusion_steps: int = allow(at_least=0, before=0)
    diffusion_schedule: str = allow(choices=("none", "linear", "cosine"), before="none")
    diffusion_repeats: int = allow(at_least=1, before=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, its schedule and its rule for widths."""

    learning_rate: float = allow(above=0.0)
    width_rule: str = allow(choices=("mup", "none"))
    base_width: int = count()
    depth_rule: str = allow(choices=("none", "completep"), before="none")
    base_depth: int = allow(at_least=1, before=2)
    beta1: float = probability()
    beta2: float = probability()
    epsilon: float = allow(above=0.0)
    weight_decay: float = allow(at_least=0.0)
    clip_norm: float = allow(at_least=0.0)
    schedule: str = allow(choices=("wsd", "cosine", "constant"))
    warmup: Duration
    cooldown_fraction: float = allow(at_least=0.0, below=1.0)
    final_fraction: float = allow(at_least=0.0, below=1.0)
    ema_decay: float = probability()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, on what batches, and what is written down."""

    batch_size: int = count()
    duration: Duration
    log_every_steps: int = count()
    evaluate_every_steps: int = count(0)
    evaluation_batch_size: int = count()
    explode_factor: float = allow(above=1.0)
    bound_draws: int = allow(at_least=1, before=1)
    guard: GuardConfig = allow(before=OFF)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All of a run."""

    name: str = allow(execution=True)
    study: str = allow(execution=True)
    seed: int = allow(at_least=0, below=2**31)
    data: DataConfig
    tokenizer: TokenizerConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    execution: ExecutionConfig = allow(execution=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerRunConfig:
    """All of a run that trains a tokenizer."""

    name: str = allow(execution=True)
    study: str = allow(execution=True)
    seed: int = allow(at_least=0, below=2**31)
    data: DataConfig
    images: ImageConfig
    autoencoder: AutoencoderConfig
    code: CodeConfig
    losses: LossConfig
    weights: str = allow(before="")  # SHA-256 of the file that they came from; "": trained here
    optimizer: OptimizerConfig
    train: TrainConfig
    execution: ExecutionConfig = allow(execution=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierRunConfig:
    """All of a run that trains a classifier of images."""

    name: str = allow(execution=True)
    study: str = allow(execution=True)
    seed: int = allow(at_least=0, below=2**31)
    data: DataConfig
    images: ImageConfig
    classifier: ClassifierConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    execution: ExecutionConfig = allow(execution=True)


AnyRun = RunConfig | TokenizerRunConfig | ClassifierRunConfig
# What a run trains, by the section that only its config has.
_BY_SECTION: dict[str, type[AnyRun]] = {
    "autoencoder": TokenizerRunConfig,
    "classifier": ClassifierRunConfig,
}


def admit(config: Mapping[str, Any]) -> AnyRun:
    """The one door: a nested mapping (ConfigDict) to a checked run; one with a section
    `autoencoder` trains a tokenizer, one with `classifier` a classifier.

    Raises LabError naming the path, the value and what is allowed, for an unknown or missing
    field, a wrong type, a value out of range, or fields that do not fit each other.
    """
    found = [kind for name, kind in _BY_SECTION.items() if name in config]
    run = section(found[0] if found else RunConfig, config, prefix="config")
    if isinstance(run, RunConfig):
        _check_model(run)
        _check_tokens(run)
    elif isinstance(run, TokenizerRunConfig):
        check_tokenizer(run)
    else:
        check_classifier(run)
    if not isinstance(run, RunConfig):
        _check_step(run)
    check_execution(run.execution)
    llama = isinstance(run, RunConfig) and run.model.backbone == "llama"
    if run.execution.attention_spectra and not llama:
        raise LabError("config.execution.attention_spectra = True: of the backbone llama only")
    if "/" in run.study or run.study in ("", ".", ".."):
        raise LabError(f'config.study = "{run.study}": a plain folder name is expected')
    check_guard(run.train.guard)
    _check_branches(run)
    _check_durations(run)
    return run


def _check_step(run: TokenizerRunConfig | ClassifierRunConfig) -> None:
    """Refuse what only the step of a generator does."""
    for name, only in (("accumulation", 1), ("head_chunks", 0)):
        if (value := getattr(run.execution, name)) != only:
            raise LabError(f"config.execution.{name} = {value}: of a generator only; {only} here")


def _check_model(run: RunConfig) -> None:
    model = run.model
    if model.width % model.heads:
        raise LabError(
            f"config.model.heads = {model.heads}: must divide config.model.width = {model.width}"
        )
    if (model.width // model.heads) % 4:
        raise LabError(
            f"config.model.heads = {model.heads}: width / heads = {model.width // model.heads} "
            "must be a multiple of 4 for rotary positions in two dimensions"
        )
    of_depth = {model.init == "completep", run.optimizer.depth_rule == "completep"}
    if len(of_depth) > 1 or (of_depth == {True} and run.optimizer.width_rule != "mup"):
        raise LabError(
            f'config.optimizer.depth_rule = "{run.optimizer.depth_rule}" with config.model.init = '
            f'"{model.init}" and config.optimizer.width_rule = "{run.optimizer.width_rule}": '
            '"completep" is of both the rule and the start, with the width rule "mup"'
        )


def _check_tokens(run: RunConfig) -> None:
    """A trained tokenizer names its run; codes are of a trained one, and of fixed bits."""
    tokenizer = run.tokenizer
    trained = tokenizer.name == "trained"
    if trained != bool(tokenizer.trained):
        raise LabError(
            f'config.tokenizer.run = "{tokenizer.run}": the run directory of a tokenizer is '
            f"{'needed' if trained else 'of no use'} where config.tokenizer.name = "
            f'"{tokenizer.name}"'
        )
    if tokenizer.codes and not trained:
        raise LabError(f'config.tokenizer.codes = "{tokenizer.codes}": only of name = "trained"')
    if tokenizer.sampled and (tokenizer.codes or not trained):
        raise LabError(
            "config.tokenizer.sampled = True: only of a trained tokenizer on the fly, without "
            "config.tokenizer.codes"
        )
    if run.data.augmentation == "ten_crop" and not tokenizer.codes:
        raise LabError(
            'config.data.augmentation = "ten_crop": only of encoded images, where '
            "config.tokenizer.codes names their folder"
        )


def _check_branches(run: AnyRun) -> None:
    """A constant rate has branches, and a cooldown begins in a trunk: see lab/core/branches.py."""
    execution, schedule = run.execution, run.optimizer.schedule
    for name, wanted in (("branches", "constant"), ("trunk", "wsd")):
        text, path = getattr(execution, name), f"config.execution.{name}"
        if text and schedule != wanted:
            raise LabError(
                f'{path} = "{text}": only where config.optimizer.schedule = "{wanted}"; it is '
                f'"{schedule}"'
            )
        for part in text.split(",") if text else ():
            parse_duration(part.strip(), path=path)


def _check_durations(run: AnyRun) -> None:
    """What is known before the data are: two durations of one unit, or of steps and examples."""
    warmup, whole = run.optimizer.warmup, run.train.duration
    in_steps = {DurationUnit.STEPS: 1.0, DurationUnit.EXAMPLES: 1 / run.train.batch_size}
    if warmup.unit == whole.unit:
        check_schedule(run, warmup=warmup.amount, whole=whole.amount, unit=whole.unit)
    elif {warmup.unit, whole.unit} <= set(in_steps):
        steps = [round(each.amount * in_steps[each.unit]) for each in (warmup, whole)]
        check_schedule(run, warmup=steps[0], whole=steps[1], unit=DurationUnit.STEPS)


def cooldown_steps(optimizer: OptimizerConfig, total_steps: int) -> int:
    """Updates of the fall at the end of "wsd"; 0 under another schedule, which has none."""
    return round(optimizer.cooldown_fraction * total_steps) if optimizer.schedule == "wsd" else 0


def check_schedule(run: AnyRun, *, warmup: float, whole: float, unit: DurationUnit) -> None:
    """Raise LabError where the warm-up and the cooldown do not fit into the whole duration."""
    optimizer = run.optimizer
    cooldown = optimizer.cooldown_fraction * whole if optimizer.schedule == "wsd" else 0.0
    if unit is DurationUnit.STEPS:
        cooldown = cooldown_steps(optimizer, round(whole))
    if warmup < whole and warmup + cooldown <= whole * (1 + 1e-9):
        return
    wants = f'the {warmup:.12g} of config.optimizer.warmup = "{plain(optimizer.warmup)}"'
    if cooldown:
        falls = f"config.optimizer.cooldown_fraction = {optimizer.cooldown_fraction:g}"
        wants += f" and the {cooldown:.12g} of {falls} together"
    raise LabError(
        f'config.train.duration = "{plain(run.train.duration)}": {whole:.12g} {unit} are too few '
        f"for {wants}"
    )


def identity(run: AnyRun) -> str:
    """Twelve hex digits that stand for all that defines the experiment.

    Fields marked `execution` (layout, folders, checkpoint intervals, labels) are left out: the
    same experiment at another place has the same identity.
    """
    return json_sha256({"semantics": SEMANTICS, **defining(run)})[:12]


def run_directory(run: AnyRun) -> pathlib.Path:
    """<workdir>/<study>/<identity>."""
    return pathlib.Path(run.execution.workdir) / run.study / identity(run)
