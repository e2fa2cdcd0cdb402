"""Which remat and accumulation a search tries, and the commands that a plan suggests."""

import functools
import shlex

import jax
import numpy as np
import pytest

from configs.layouts import LAYOUTS
from lab.core.errors import LabError
from lab.core.layout import make_layout
from lab.launch import compile_search, compile_table
from lab.launch.compile import parser
from lab.launch.compile_job import abstract_job
from lab.launch.compile_plan import Planned, command_of, make_plan
from lab.launch.compile_report import Memory, Seconds, StepReport, state_bytes
from lab.launch.door import parse
from tests.launch.planning import choices_of, plan_of


def test_a_state_that_is_too_large_is_not_compiled(monkeypatch):
    plan = plan_of("configs/llamagen.py:7B", "v5e:2x4")
    monkeypatch.setattr("lab.launch.compile_plan.devices_of", lambda slices: jax.devices())
    rows = compile_search.search(plan, choices_of(plan, layouts="ddp"), lambda line: None)
    (row,) = rows
    assert not row.fits
    held = state_bytes(_job_of(plan, "ddp")) / 2**30
    assert row.reason == f"the state alone takes {held:,.1f} GiB of 15.8"
    assert held == pytest.approx(3 * 4 * 6.6e9 / 2**30, rel=0.02)


def _job_of(plan, layout):
    return abstract_job(plan.run, make_layout(layout, LAYOUTS, jax.devices()), plan.world)


def _searched(monkeypatch, fits, *, refused=(), exhaustive=False, over=2.1):
    """Rows of a search where `fits(remat, accumulation)`: words in place of a program.

    What does not fit needs `over`, of 2 that there are and 1 that the state takes.
    """

    def report_of(job, slices, step, program):
        remat, accumulation = program
        needed = 2.0 if fits(remat, accumulation) else over
        memory = Memory(by_use={"parameters": 1.0}, needed=needed, capacity=2.0)
        flops = {"none": 3.0, "projections": 3.2, "attention_out": 3.5, "full": 4.0}[remat]
        seconds = Seconds(compute=flops, memory=0.0, ici=0.0, dcn=0.0, latency=0.01 * accumulation)
        times = {"lower_s": 0.0, "compile_s": 0.0, "model_flops": 1.0, "mfu": (0.1, 0.2)}
        return StepReport(step=step, images=8, memory=memory, seconds=seconds, **times)

    def compiled_of(job, step):
        execution = job.run.execution
        choice = execution.remat, execution.accumulation
        if choice in refused:
            raise LabError(f"the TPU compiler refuses the step: {choice} f32[8,128] [/a]")
        return choice

    monkeypatch.setattr(compile_search, "make_job", lambda plan: plan)
    monkeypatch.setattr(compile_search, "state_bytes", lambda job: 0.0)
    monkeypatch.setattr(compile_search, "compiled", compiled_of)
    monkeypatch.setattr(compile_search, "report", report_of)
    more = {"train.batch_size": "64", "data.name": "it's"}
    sizes = {"classes": 10, "examples": 2000, "slices": 1}
    plan = plan_of("configs/elm.py:s3", "v5e:2x2", overrides=more, **sizes)
    told = []
    tried = choices_of(plan, layouts="ddp", exhaustive=exhaustive)
    rows = compile_search.search(plan, tried, told.append)
    assert len(rows) == len(told)
    return plan, [((row.choice.remat, row.choice.accumulation), row.fits) for row in rows], rows


def _level(remat):
    return compile_search.REMATS.index(remat)


def test_a_search_goes_back_to_less_remat_with_more_accumulation(monkeypatch):
    """Full remat fits whole; in 2 parts projections fits, in 4 no remat is needed."""

    def fits(remat, accumulation):
        return _level(remat) >= {1: 3, 2: 1, 4: 0, 8: 0}[accumulation]

    _, found, _ = _searched(monkeypatch, fits)
    assert found == [
        (("none", 4), True),  # fewest FLOPs first
        (("projections", 2), True),
        (("full", 1), True),
        (("none", 1), False),
        (("projections", 1), False),
        (("attention_out", 1), False),
        (("none", 2), False),
    ]


def test_a_search_ends_where_what_keeps_most_fits(monkeypatch):
    _, found, _ = _searched(monkeypatch, lambda remat, accumulation: True)
    assert found == [(("none", 1), True)]
    _, found, _ = _searched(monkeypatch, lambda remat, accumulation: True, exhaustive=True)
    assert len(found) == 16


def test_a_search_finds_the_least_remat_that_fits(monkeypatch):
    """Whatever fits: what keeps more need not need more memory, for the compiler schedules anew."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        table = rng.random((4, 4)) < rng.random()
        fits = functools.partial(lambda t, remat, n: t[_level(remat), n.bit_length() - 1], table)
        _, found, _ = _searched(monkeypatch, fits)
        fitting = [_level(remat) for (remat, _), fit in found if fit]
        assert min(fitting, default=4) == min(np.flatnonzero(table.any(axis=1)), default=4)
        assert len(set(found)) == len(found)


def test_a_search_leaves_out_what_more_parts_can_not_make_fit(monkeypatch):
    """The state takes 1 of 2: of the other 4.5 a quarter is still too much, an eighth is not."""
    _, found, _ = _searched(monkeypatch, lambda remat, parts: parts == 8, over=5.5)
    assert [choice for choice, _ in found[:1]] == [("none", 8)]
    assert {parts for (_, parts), _ in found} == {1, 8} and len(found) == 5
    _, found, _ = _searched(monkeypatch, lambda remat, parts: False, over=100.0)
    assert len(found) == 4


def test_a_program_that_the_compiler_refuses_does_not_end_a_search(monkeypatch, capsys):
    refused = [("none", 1), ("none", 2)]
    plan, found, rows = _searched(monkeypatch, lambda remat, parts: True, refused=refused)
    choices = {("none", 1): False, ("projections", 1): True, ("none", 2): False, ("none", 4): True}
    assert dict(found) == choices
    compile_search.show_ranking(plan, rows)
    shown = capsys.readouterr().out
    assert "the TPU compiler refuses" in " ".join(shown.split()) and "[/a]" in shown
    assert shown.splitlines()[-1] == (
        "next: python -m lab.launch.compile --config configs/elm.py:s3 --topology v5e:2x2 "
        "--classes 10 --examples 2000 --config.train.batch_size 64 "
        """--config.data.name 'it'"'"'s' --layout ddp --config.execution.remat none """
        "--config.execution.accumulation 4"
    )


def test_a_command_that_is_suggested_plans_the_same(monkeypatch):
    """Read by the command's own parser, it gives the plan that it came from."""
    argv = ["--config", "configs/bigr.py:s9", "--topology", "v6e:4x4", "--slices", "2"]
    argv += ["--grid", "8x8", "--vocabulary", "2", "--subcodes", "16", "--classes", "10"]
    argv += ["--examples", "21459", "--layout", "hsdp", "--config.train.batch_size=256"]
    plan = make_plan(*parse(parser(), argv))
    again = shlex.split(command_of(plan, {}))
    assert again[:3] == ["python", "-m", "lab.launch.compile"]
    assert make_plan(*parse(parser(), again[3:])) == plan
    wider = {"memory": Memory(by_use={}, needed=2.0, capacity=1.0), "model_flops": None}
    step = StepReport(step="train", images=256, lower_s=0.0, compile_s=0.0, **wider)
    planned = Planned(plan=plan, params={}, steps=(step,), whole=None)
    flags, overrides = parse(parser(), shlex.split(compile_table._next(planned))[3:])
    assert flags.search and not flags.layout and flags.slices == 2
    flags.layout = "hsdp"
    assert make_plan(flags, overrides) == plan
