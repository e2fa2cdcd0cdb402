"""Plans of sweeps as they are used: branches and trunks, next commands, processes that measure."""

import argparse
import dataclasses
import json
import subprocess
import sys

import pytest

from lab.core.errors import LabError
from lab.launch import calibration, measuring
from lab.launch.door import ROOT
from lab.launch.plan import Plan
from lab.launch.plan_runs import Budget, chosen, rungs_of
from lab.launch.plan_table import _next, warnings_of
from tests.launch.commands import TINY, command, environment, place, refused
from tests.launch.test_plan import BASE, SWEEP, planned


def test_a_branch_falls_with_its_trunk():
    """By itself it is cheap, but only where the trunk is trained."""
    runs = [planned("t", 50, flops=1e6), planned("x", 2, trunk="t", flops=1e5), planned("o", 3)]
    assert {name: [run.name for run in rung] for name, rung in rungs_of(runs).items()} == {
        "o": ["o"],
        "t": ["t", "x"],
    }
    assert chosen(runs, Budget(10, "s"), workers=1, startup_s=0) == [runs[2]]
    apart = [planned("t", 50, rung="a"), planned("x", 2, trunk="t", rung="b")]
    assert list(rungs_of(apart)) == ["a"]
    assert list(rungs_of(apart[1:])) == ["b"], "a trunk of another sweep"


def words(runs, overrides=(), **flags):
    usual = {"sweep": "sweep.py", "workers": 2, "budget": None, "report": []}
    given = argparse.Namespace(**{**usual, **flags})
    return _next(Plan(runs, startup_s=None), given, dict(overrides))


def test_the_next_command_trains_what_was_planned():
    timed, unknown = planned("a", 1), dataclasses.replace(BASE, name="b")
    own = {"study": "mine", "optimizer.warmup": "1 steps"}
    flags = "--workers 2 --config.study=mine '--config.optimizer.warmup=1 steps'"
    assert words([timed], own) == f"python -m lab.launch.sweep sweep.py {flags}"
    assert words([timed], budget="1h").endswith("lab.launch.sweep sweep.py --workers 2 --budget 1h")
    assert words([unknown], own, budget="1e9flops") == (
        f"python -m lab.launch.plan sweep.py {flags} --budget 1e9flops --calibrate"
    )
    by_report = words([timed, planned("c", 1)], budget="1h", report=["r.json"])
    assert by_report.endswith("--workers 2 --only a c"), "these times are not on this machine"


def test_memory_is_this_machines_unless_the_times_are_a_pods():
    huge = [dataclasses.replace(planned(name, 1), step_bytes=2**60) for name in "ab"]
    (warning,) = warnings_of(huge, workers=2, here=True)
    assert "2 of the largest runs at once need 2147483648.0 GiB; this machine has" in warning
    assert warnings_of(huge, workers=2, here=False) == []
    assert warnings_of([planned("c", 1)], workers=2, here=True) == []


def test_a_worker_that_says_much_before_it_fails(tmp_path, monkeypatch):
    """More than a pipe holds."""
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\nyes warning | head -c 300000 >&2\necho error: no room >&2\nexit 3\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(measuring.sys, "executable", str(script))
    with pytest.raises(LabError, match="^--calibrate: no room$"):
        measuring.measure_on_workers(["sweep.py"], ["a"], workers=2)


@pytest.fixture
def arguments(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(SWEEP)
    return (str(path), *TINY, *place(tmp_path))


def test_a_worker_ends_with_its_parent(arguments):
    """Its standard input ends then; alone it would measure to the end, and leave with 0."""
    measure = ("--measure", json.dumps(["s1-trunk"]))
    worker = subprocess.Popen(
        [sys.executable, "-m", "lab.launch.plan", *arguments, *measure],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    worker.communicate(timeout=60)
    assert worker.returncode == 75


def test_who_starts_workers_leaves_the_devices_to_them(arguments):
    """Jax is not even imported where a budget is counted or a machine is named."""
    spec, overrides = arguments[0], [word.removeprefix("--config.") for word in arguments[1:]]
    given = dict(word.split("=", 1) for word in overrides)
    script = f"""
import sys
from lab.launch.measuring import machine_of_workers
from lab.launch.plan import names_within
print(names_within({spec!r}, {given!r}, "1e13flops", workers=1))
print(machine_of_workers())
assert "jax" not in sys.modules
"""
    found = command("-c", script)
    assert found.returncode == 0, found.stderr
    names, machine = found.stdout.splitlines()
    assert "'s2-0.00096M'" in names and "cores" in machine and "jax" in machine


def test_a_machine_with_more_accelerators_is_another(monkeypatch):
    import jax

    def here(platform, count):
        device = argparse.Namespace(device_kind="K", platform=platform)
        monkeypatch.setattr(jax, "devices", lambda: [device] * count)
        return calibration.machine()

    assert here("gpu", 1) != here("gpu", 8)
    assert here("cpu", 1) == here("cpu", 8)


def test_an_empty_budget_is_refused(arguments):
    refused(command("-m", "lab.launch.plan", *arguments, "--budget="), "--budget", "2h")
