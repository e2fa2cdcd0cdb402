"""From flags to a plan: the admitted run, its slice, what stands for its data; then its reports."""

import argparse
import dataclasses
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lab.core.chips import Slices, parse_slices
from lab.core.config import RunConfig
from lab.core.errors import LabError
from lab.launch.compile_job import World, abstract_job, compiled, devices_of, planned_spec
from lab.launch.compile_report import StepReport, Whole, report, whole
from lab.launch.door import load_config
from lab.models.published import PUBLISHED, Published
from lab.tokenizers.spec import TokenSpec

COUNTS = ("vocabulary", "subcodes", "channels", "classes", "examples")  # flags
IMAGENET = {"classes": 1000, "examples": 1_281_167}  # of the published sizes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One run on one slice."""

    config: str
    run: RunConfig
    slices: Slices
    world: World
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)  # flags, but the two above


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """The reports of a plan."""

    plan: Plan
    params: Mapping[str, float]
    steps: tuple[StepReport, ...]
    whole: Whole | None

    @property
    def fits(self) -> bool:
        """Whether every step does."""
        return all(step.memory.fits for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """Plain values, units in the names."""
        run = self.plan.run
        return {
            "schema": "lab.compile/1",
            "config": self.plan.config,
            "topology": self.plan.slices.name,
            "chips": self.plan.slices.chips,
            "layout": run.execution.layout,
            "batch_images": run.train.batch_size,
            "execution": dataclasses.asdict(run.execution),
            "params": dict(self.params),
            "steps": [step.as_json() for step in self.steps],
            "whole": dataclasses.asdict(self.whole) if self.whole else None,
        }


def make_plan(flags: argparse.Namespace, overrides: Mapping[str, str]) -> Plan:
    """The plan of a command line. Raises LabError for what does not fit each other."""
    check_counts(flags)
    slices = parse_slices(flags.topology, count=flags.slices)
    found = published(flags.config, subcodes=flags.subcodes, vocabulary=flags.vocabulary)
    given: dict[str, Any] = dict(overrides)
    if flags.layout:
        given["execution.layout"] = flags.layout
    subcodes = flags.subcodes or (found.subcodes if found else None)
    if subcodes and "model.subcodes" not in given:
        given["model.subcodes"] = subcodes
    run = load_config(flags.config, given)
    if not isinstance(run, RunConfig):
        raise LabError(f"--config {flags.config}: a generator is expected; this trains another")
    return Plan(
        config=flags.config,
        run=run,
        slices=slices,
        world=_world(flags, run, found),
        given=_given(flags, overrides),
    )


def _given(flags: argparse.Namespace, overrides: Mapping[str, str]) -> dict[str, str]:
    """Flags of the plan as they were given, --config and --topology apart."""
    named = {f"--{name}": getattr(flags, name) for name in ("layout", "grid", *COUNTS)}
    named["--slices"] = flags.slices if flags.slices > 1 else None
    found = {flag: str(value) for flag, value in named.items() if value is not None}
    return found | {f"--config.{path}": value for path, value in overrides.items()}


def command_of(plan: Plan, more: Mapping[str, Any], *, without: Sequence[str] = ()) -> str:
    """The command that plans it anew, `more` over the flags that were given."""
    flags = {name: value for name, value in plan.given.items() if name not in without}
    if "--layout" in more:
        flags.pop("--config.execution.layout", None)  # a flag of the same field
    flags = {"--config": plan.config, "--topology": plan.slices.topology, **flags, **more}
    words = ["python", "-m", "lab.launch.compile"]
    for name, value in flags.items():
        words += [name] if value is True else [name, str(value)]
    return shlex.join(words)


def check_counts(flags: argparse.Namespace) -> None:
    """Numbers of things are 1 or more. Raises LabError naming the flag."""
    for name in COUNTS:
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise LabError(f"--{name} {value}: at least 1")


def published(
    config: str, *, subcodes: int | None = None, vocabulary: int | None = None
) -> Published | None:
    """The first published size of this name, and of these sub-codes and codes where given."""
    for each in PUBLISHED:
        fits = subcodes in (None, each.subcodes) and vocabulary in (None, each.vocabulary)
        if fits and config.endswith(each.config):
            return each
    return None


def _world(flags: argparse.Namespace, run: RunConfig, found: Published | None) -> World:
    classes = flags.classes or (IMAGENET["classes"] if found else None)
    examples = flags.examples or run.data.train_examples
    examples = examples or (IMAGENET["examples"] if found else None)
    for name, value in (("classes", classes), ("examples", examples)):
        if not value:
            raise LabError(
                f"--{name}: needed, since {flags.config} is no published size: how many the data "
                "have"
            )
    assert classes and examples  # checked by name above
    return World(spec=_spec(flags, run, found), classes=classes, examples=examples)


def _spec(flags: argparse.Namespace, run: RunConfig, found: Published | None) -> TokenSpec:
    if not found and not flags.grid and run.tokenizer.name != "trained":
        from lab.tokenizers.pixel_bits import pixel_tokenizer

        return pixel_tokenizer(run.tokenizer, run.model.subcodes).spec
    if not found and not (flags.grid and (flags.vocabulary or flags.channels)):
        raise LabError(
            "--grid and --vocabulary (or --channels): needed, since the tokenizer is a trained one "
            "and this is no published size, like --grid 16x16 --vocabulary 16384"
        )
    grid = _grid(flags.grid) if flags.grid or not found else found.grid
    channels = flags.channels or (found.channels if found else 0)
    vocabulary = flags.vocabulary or (found.vocabulary if found else 0)
    subcodes = run.model.subcodes
    return planned_spec(grid, vocabulary=vocabulary, subcodes=subcodes, channels=channels)


def _grid(text: str) -> tuple[int, int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found or "0" in found.groups():
        raise LabError(f"--grid {text}: rows and columns are expected, like 16x16")
    return int(found[1]), int(found[2]), 1


def make_job(plan: Plan) -> Any:
    """The job of a plan under its layout."""
    from configs.layouts import LAYOUTS
    from lab.core.layout import layout_of

    layout = layout_of(plan.run.execution, LAYOUTS, devices_of(plan.slices))
    return abstract_job(plan.run, layout, plan.world)


def carry_out(plan: Plan, steps: Sequence[str], tell: Callable[[str], None]) -> Planned:
    """Compile the steps one after the other; `tell` hears which one is next."""
    job = make_job(plan)
    reports = []
    for step in steps:
        tell(f"{plan.config} on {plan.slices.name}: {step}")
        settings = sampler_settings(plan.run, job) if step == "sample" else None
        done = compiled(job, step, settings=settings)
        reports.append(report(job, plan.slices, step, done))
    n = job.model.parameters()
    train = next((each for each in reports if each.step == "train"), None)
    return Planned(
        plan=plan,
        params={**dataclasses.asdict(n), "total": n.total},
        steps=tuple(reports),
        whole=whole(job, plan.slices, train) if train else None,
    )


def sampler_settings(run: RunConfig, job: Any) -> Any:
    """The usual settings of the family's sampler, with guidance where it learned a null class."""
    from lab.launch.sample_settings import add_flags, settings_of

    parser = argparse.ArgumentParser()
    add_flags(parser.add_argument)
    guidance = ["--guidance", "1.5"] if run.model.class_dropout else []
    return settings_of(parser.parse_args(guidance), run.model, job.spec.tokens_per_image)
