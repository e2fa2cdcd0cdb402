"""Frozen dataclasses as configs: what a field may hold, mappings to dataclasses, overrides.

A config is a nest of frozen dataclasses. This file knows how to fill, check, print and digest any
of them; lab/core/config.py says which there are.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from lab.core.errors import LabError
from lab.core.units import Duration, parse_duration


@dataclasses.dataclass(frozen=True)
class Allowed:
    """What a field may hold beyond its type."""

    at_least: float | None = None
    below: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    execution: bool = False  # True: not part of the identity
    before: Any = None  # the value that means what was done before this field was there

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


def allow(**bounds: Any) -> Any:
    """A field with bounds, choices, or a place outside the identity: see `Allowed`."""
    return dataclasses.field(metadata={"allowed": Allowed(**bounds)})


def count(at_least: int = 1) -> Any:
    """A whole number from `at_least`."""
    return allow(at_least=at_least)


def probability() -> Any:
    """A number from 0, below 1."""
    return allow(at_least=0.0, below=1.0)


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint at the most similar of `names`, or the list of them where none is similar."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1)
    return f'did you mean "{close[0]}"?' if close else "allowed: " + ", ".join(names)


def section(cls: type, values: Mapping[str, Any], *, prefix: str) -> Any:
    """A config dataclass from a mapping; `prefix` is its path in errors.

    Raises LabError for an unknown or missing field, a wrong type and a value out of range.
    """
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
        allowed = field.metadata.get("allowed", Allowed())
        if name not in given and allowed.before is not None:
            built[name] = allowed.before  # a config.json from before the field was there
            continue
        if name not in given:
            raise LabError(f"{prefix}.{name}: missing")
        built[name] = _value(hints[name], given[name], path=f"{prefix}.{name}", allowed=allowed)
    return cls(**built)


def _value(kind: Any, value: Any, *, path: str, allowed: Allowed) -> Any:
    if dataclasses.is_dataclass(kind) and kind is not Duration:
        return section(typing.cast(type, kind), value, prefix=path)
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


def plain(config: Any) -> Any:
    """A config dataclass as nested dicts of plain values, as they stand in JSON."""
    if isinstance(config, Duration):
        return f"{config.amount:.12g} {config.unit}"
    if dataclasses.is_dataclass(config):
        return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    return config


def defining(config: Any) -> dict[str, Any]:
    """The fields that define an experiment, as nested dicts of plain values.

    A field that was added later is left out while it has the value that means what was done
    before it: finished runs keep their identity.
    """
    kept = {}
    for field in dataclasses.fields(config):
        value, allowed = getattr(config, field.name), field.metadata.get("allowed", Allowed())
        if allowed.execution or (allowed.before is not None and value == allowed.before):
            continue
        nested = dataclasses.is_dataclass(value) and not isinstance(value, Duration)
        kept[field.name] = defining(value) if nested else plain(value)
    return kept


def overlay(config: Any, overrides: Mapping[str, Any]) -> Any:
    """A copy of the ConfigDict with flat overrides ("optimizer.learning_rate": 0.01) laid over it.

    A text given for a number or a flag is read as one, so that flags and sweeps share this.
    """
    if not hasattr(config, "copy_and_resolve_references"):
        raise LabError(f"get_config() gave a {type(config).__name__}; a ConfigDict is expected")
    config = config.copy_and_resolve_references()
    with config.ignore_type():  # asks every section: once for all fields, not for each
        for path, value in overrides.items():
            _lay(config, path, value)
    return config


def _lay(config: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    section = config
    for depth, name in enumerate(parents):
        section = _child(section, name, prefix=".".join(["config", *parents[:depth]]))
    prefix = ".".join(["config", *parents])
    old = _child(section, last, prefix=prefix)
    if hasattr(old, "items"):
        raise LabError(f"{prefix}.{last} is a section; name one of {', '.join(old.keys())}")
    section[last] = _read_as(old, value, path=f"{prefix}.{last}")


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
