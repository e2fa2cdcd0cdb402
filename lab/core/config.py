"""A run's configuration: frozen dataclasses inside, ConfigDicts outside, `admit` between them."""

import dataclasses
import difflib
import hashlib
import json
import math
import pathlib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from lab.core.errors import LabError
from lab.core.units import Duration, DurationUnit, parse_duration

SEMANTICS = 1  # raise it when the same config would train another model


@dataclasses.dataclass(frozen=True)
class Allowed:
    """What a field may hold beyond its type."""

    at_least: float | None = None
    below: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    execution: bool = False  # True: not part of the identity

    def __str__(self) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        bounds = [(">=", self.at_least), (">", self.above), ("<", self.below)]
        given = [f"{sign} {bound:g}" for sign, bound in bounds if bound is not None]
        return " and ".join(given) or "any finite number"

    def holds(self, value: Any) -> bool:
        """Whether `value` is inside."""
        if self.choices:
            return value in self.choices
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def _allow(**bounds: Any) -> Any:
    return dataclasses.field(metadata={"allowed": Allowed(**bounds)})


def _count(at_least: int = 1) -> Any:
    return _allow(at_least=at_least)


def _probability() -> Any:
    return _allow(at_least=0.0, below=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images."""

    name: str
    train_examples: int = _count(0)
    validation_examples: int = _count()
    train_split: str
    validation_split: str
    manual_dir: str = _allow(execution=True)
    data_dir: str = _allow(execution=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How an image becomes tokens."""

    name: str
    resolution: int = _count()
    channels: str = _allow(choices=("grey", "rgb"))
    levels: int = _allow(at_least=2, below=257)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A generator: embedding x backbone x order x head, and its size."""

    family: str
    size: str
    embedding: str
    order: str
    head: str
    depth: int = _count()
    width: int = _count()
    heads: int = _count()
    mlp_hidden: int = _count()
    subcodes: int = _count()
    rotary_base: float = _allow(above=1.0)
    norm_epsilon: float = _allow(above=0.0)
    class_dropout: float = _probability()
    embedding_dropout: float = _probability()
    residual_dropout: float = _probability()
    mlp_dropout: float = _probability()
    init: str = _allow(choices=("mup", "normal"))
    init_std: float = _allow(above=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, its schedule and its rule for widths."""

    learning_rate: float = _allow(above=0.0)
    width_rule: str = _allow(choices=("mup", "none"))
    base_width: int = _count()
    beta1: float = _probability()
    beta2: float = _probability()
    epsilon: float = _allow(above=0.0)
    weight_decay: float = _allow(at_least=0.0)
    clip_norm: float = _allow(at_least=0.0)
    schedule: str = _allow(choices=("wsd", "cosine", "constant"))
    warmup: Duration
    cooldown_fraction: float = _allow(at_least=0.0, below=1.0)
    final_fraction: float = _allow(at_least=0.0, below=1.0)
    ema_decay: float = _probability()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, on what batches, and what is written down."""

    batch_size: int = _count()
    duration: Duration
    log_every_steps: int = _count()
    evaluate_every_steps: int = _count(0)
    evaluation_batch_size: int = _count()
    explode_factor: float = _allow(above=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """Where and how; never part of the identity."""

    workdir: str
    layout: str
    devices: int = _count(0)
    remat: str = _allow(choices=("none", "full", "dots"))
    unroll_layers: bool
    compute_dtype: str = _allow(choices=("auto", "float32", "bfloat16"))
    checkpoint_every_steps: int = _count()
    keep_last: int = _count()
    keep_every_steps: int = _count(0)
    tensorboard: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All of a run."""

    name: str = _allow(execution=True)
    study: str = _allow(execution=True)
    seed: int = _allow(at_least=0, below=2**31)
    data: DataConfig
    tokenizer: TokenizerConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    execution: ExecutionConfig = _allow(execution=True)


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint at the most similar of `names`, or the list of them where none is similar."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1)
    return f'did you mean "{close[0]}"?' if close else "allowed: " + ", ".join(names)


def admit(config: Mapping[str, Any]) -> RunConfig:
    """The one door: a nested mapping (ConfigDict) to a checked RunConfig.

    Raises LabError naming the path, the value and what is allowed, for an unknown or missing
    field, a wrong type, a value out of range, or fields that do not fit each other.
    """
    run = _section(RunConfig, config, prefix="config")
    _check_fit(run)
    return run


def _section(cls: type, values: Mapping[str, Any], *, prefix: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if not isinstance(values, Mapping) and not hasattr(values, "items"):
        raise LabError(f"{prefix} = {values!r}: a section with {', '.join(fields)} is expected")
    given = dict(values.items())
    for name in given:
        if name not in fields:
            raise LabError(f"{prefix}.{name}: no such field; {nearest(name, fields)}")
    hints = typing.get_type_hints(cls)
    built = {}
    for name, field in fields.items():
        if name not in given:
            raise LabError(f"{prefix}.{name}: missing")
        allowed = field.metadata.get("allowed", Allowed())
        built[name] = _value(hints[name], given[name], path=f"{prefix}.{name}", allowed=allowed)
    return cls(**built)


def _value(kind: Any, value: Any, *, path: str, allowed: Allowed) -> Any:
    if dataclasses.is_dataclass(kind) and kind is not Duration:
        return _section(typing.cast(type, kind), value, prefix=path)
    if kind is Duration:
        if not isinstance(value, str):
            raise LabError(f'{path} = {value!r}: a duration is a text like "3 epochs"')
        return parse_duration(value, path=path)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise LabError(
            f"{path} = {value!r}: {kind.__name__} expected, {type(value).__name__} given"
        )
    if not allowed.holds(value):
        raise LabError(f"{path} = {value!r}: allowed is {allowed}")
    return value


def _check_fit(run: RunConfig) -> None:
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
    if "/" in run.study or run.study in ("", ".", ".."):
        raise LabError(f'config.study = "{run.study}": a plain folder name is expected')
    _check_durations(run)


def _check_durations(run: RunConfig) -> None:
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


def check_schedule(run: RunConfig, *, warmup: float, whole: float, unit: DurationUnit) -> None:
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


def plain(config: Any) -> Any:
    """A config dataclass as nested dicts of plain values, as they stand in JSON."""
    if isinstance(config, Duration):
        return f"{config.amount:.12g} {config.unit}"
    if dataclasses.is_dataclass(config):
        return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    return config


def identity(run: RunConfig) -> str:
    """Twelve hex digits that stand for all that defines the experiment.

    Fields marked `execution` (layout, folders, checkpoint intervals, labels) are left out: the
    same experiment at another place has the same identity.
    """
    canonical = json.dumps(
        {"semantics": SEMANTICS, **_defining(run)}, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def run_directory(run: RunConfig) -> pathlib.Path:
    """<workdir>/<study>/<identity>."""
    return pathlib.Path(run.execution.workdir) / run.study / identity(run)


def _defining(config: Any) -> dict[str, Any]:
    kept = {}
    for field in dataclasses.fields(config):
        if field.metadata.get("allowed", Allowed()).execution:
            continue
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value) and not isinstance(value, Duration)
        kept[field.name] = _defining(value) if nested else plain(value)
    return kept


def overlay(config: Any, overrides: Mapping[str, Any]) -> Any:
    """A copy of the ConfigDict with flat overrides ("optimizer.learning_rate": 0.01) laid over it.

    A text given for a number or a flag is read as one, so that flags and sweeps share this.
    """
    if not hasattr(config, "copy_and_resolve_references"):
        raise LabError(f"get_config() gave a {type(config).__name__}; a ConfigDict is expected")
    config = config.copy_and_resolve_references()
    for path, value in overrides.items():
        *parents, last = path.split(".")
        section = config
        for depth, name in enumerate(parents):
            section = _child(section, name, prefix=".".join(["config", *parents[:depth]]))
        prefix = ".".join(["config", *parents])
        old = _child(section, last, prefix=prefix)
        if hasattr(old, "items"):
            raise LabError(f"{prefix}.{last} is a section; name one of {', '.join(old.keys())}")
        with section.ignore_type():
            section[last] = _read_as(old, value, path=f"{prefix}.{last}")
    return config


def _child(section: Any, name: str, *, prefix: str) -> Any:
    if not hasattr(section, "keys"):
        raise LabError(f"{prefix} is a field, not a section")
    if name not in section.keys():
        raise LabError(f"{prefix}.{name}: no such field; {nearest(name, section.keys())}")
    return section[name]


_FLAGS = types.MappingProxyType({"true": True, "false": False})


def _read_as(old: Any, value: Any, *, path: str) -> Any:
    if not isinstance(value, str) or isinstance(old, str):
        return value
    if isinstance(old, bool):
        if value.lower() not in _FLAGS:
            raise LabError(f"{path} = {value!r}: true or false expected")
        return _FLAGS[value.lower()]
    try:
        return type(old)(value)
    except ValueError:
        raise LabError(f"{path} = {value!r}: {type(old).__name__} expected") from None
