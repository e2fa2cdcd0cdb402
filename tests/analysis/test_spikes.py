"""Rows of spikes in records: read, marked on curves, and no reason to refuse a table."""

import dataclasses
import json
import typing

import numpy as np

from analysis import figures
from analysis.recipe import LATER, recipe
from analysis.report_runs import learning_curves
from analysis.study import read_study
from lab.core.config import RunConfig
from lab.models.sizes import BIGR, SMALL
from tests.analysis.conftest import write_run


def with_spikes(run, *rows):
    """Rows of spikes behind the first evaluation of a record."""
    path = run / "record.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    text = [json.dumps({"kind": "spike", **row}) + "\n" for row in rows]
    path.write_text("".join([*lines[:2], *text, *lines[2:]]))


def spike(step, tokens, action, **more):
    """As lab/train writes it."""
    numbers = {"loss_nats_per_token": "nan", "grad_norm": "nan", "z_loss": None}
    return {"step": step, "tokens": tokens, "flops": 1.0, **numbers, "action": action, **more}


def test_spikes_are_marked_on_the_curve_of_their_run_and_change_nothing_else(tmp_path):
    for n in (1000, 4000):
        write_run(tmp_path / "study", n=n)
    before = read_study(tmp_path / "study").table()
    run = tmp_path / "study" / before.runs["identity"][1]
    back = {"to_step": 100, "batches_left_out": 180, "rollback": 1}
    with_spikes(run, spike(200, 2_500_000, "skip"), spike(280, 3_500_000, "rollback", **back))
    after = read_study(tmp_path / "study").table()
    assert after.digest == before.digest
    assert [(s.tokens, s.action) for s in after.spikes] == [
        (2_500_000, "skip"), (3_500_000, "rollback"),
    ]  # fmt: skip
    (axes,) = figures.learning_curves(after).axes
    marks = {line.get_marker(): line for line in axes.lines if line.get_marker() in "x<"}
    assert len(axes.lines) == len(after) + 2 and set(marks) == {"x", "<"}
    (curve,) = [line for line in axes.lines[:3] if line.get_marker() == "."][-1:]
    (x,), (y,) = marks["x"].get_data()
    assert x == 2_500_000
    assert y == np.interp(np.log(x), np.log(curve.get_xdata()), curve.get_ydata())
    assert "Crosses" in learning_curves(after) and "Crosses" not in learning_curves(before)


def later(kind, prefix=""):
    """Fields of a config that came later, with what they were before."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        allowed, path = field.metadata.get("allowed"), f"{prefix}{field.name}"
        if allowed is not None and allowed.execution:
            continue
        if allowed is None or allowed.before is None:
            nested = hints[field.name]
            yield from later(nested, f"{path}.") if dataclasses.is_dataclass(nested) else ()
        elif dataclasses.is_dataclass(allowed.before):
            values = dataclasses.asdict(allowed.before)
            yield from ((f"{path}.{name}", value) for name, value in values.items())
        else:
            yield path, allowed.before


def test_what_came_later_is_what_the_configs_of_runs_say():
    assert dict(later(RunConfig)) == LATER


def test_sizes_of_every_family_are_one_recipe():
    """What lab/models/sizes.py says of a size: a ladder varies all of it, and nothing more."""
    sizes = dataclasses.asdict(SMALL["s4"]), dataclasses.asdict(BIGR["s6"])
    small, large = (recipe({"model": {**size, "rotary_base": 1e4}}) for size in sizes)
    assert small == large
    assert small != recipe({"model": {**sizes[1], "rotary_base": 1e5}})


def test_a_run_from_before_a_field_has_the_recipe_of_one_from_after():
    old = {"train": {"batch_size": 8}, "optimizer": {"beta1": 0.9}}
    new = {**old, "train": {"batch_size": 8, "guard": {"policy": "stop"}, "bound_draws": 1}}
    assert recipe(old) == recipe(new)
    other = {**old, "train": {"batch_size": 8, "guard": {"policy": "skip"}}}
    assert recipe(other) != recipe(new)
    assert recipe({}) == {}
