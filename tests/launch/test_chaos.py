"""Machines that come and go: what a round is judged by, its memory, and a small round."""

import json
import os
import random
import shutil
import subprocess
import sys

import psutil
import pytest

from lab.launch.goodput import read_sessions
from tests.launch.commands import command
from tests.launch.test_claim import wait_until
from tests.launch.test_goodput import line
from tools import chaos, chaos_round
from tools.chaos_machines import DISTURBANCES, Machine, Site, each_of, wakes
from tools.chaos_round import judge, overlaps

ROW = {"kind": "train", "step": 4, "loss": 1.25}
END = {"kind": "end", "status": "finished", "step": 4, "params_sha256": "abc"}


def made_up_run(folder, *, rows=(ROW, END), times=(("a", 0.0), ("a", 5.0))):
    run = folder / "chaos" / "run"
    (run / "checkpoints" / "4").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "validation.npz").write_bytes(b"12")
    clocked = [{**row, "clock": {"at": folder.name}} for row in ({"kind": "header"}, *rows)]
    (run / "record.jsonl").write_text("".join(json.dumps(row) + "\n" for row in clocked))
    told = [line(session, at, 4) for session, at in times]
    (run / "time.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    return run


TWICE = [("a", 0.0), ("a", 5.0), ("b", 4.5), ("b", 9.0)]


@pytest.mark.parametrize(
    ("more", "change", "said"),
    [
        ({}, lambda run: None, []),
        ({"times": [("a", 0.0), ("a", 5.0), ("b", 5.0)]}, lambda run: None, []),
        ({"times": TWICE}, lambda run: None, ["run: trained by two at the same time"]),
        ({"rows": [ROW]}, lambda run: None, ["run: 0 end rows", "run: 2 rows", "run: other"]),
        ({"rows": [ROW, END, END]}, lambda run: None, ["run: 2 end rows", "run: 4 rows, not 3"]),
        ({"rows": [{**ROW, "loss": 1.5}, END]}, lambda run: None, ["run: another row of train 4"]),
        (
            {"rows": [ROW, {**END, "params_sha256": "abd"}]},
            lambda run: None,
            ["run: another row of end 4", "run: other parameters"],
        ),
        ({}, lambda run: (run / "validation.npz").unlink(), ["run: another validation.npz"]),
        ({}, lambda run: (run / "claim.lease").touch(), []),
        ({}, lambda run: (run / "record.tmp").touch(), ["run: left behind: record.tmp"]),
        (
            {},
            lambda run: (run / "checkpoints" / ".saving-8").mkdir(),
            ["run: left behind: .saving-8"],
        ),
        (
            {},
            lambda run: [(run / "checkpoints" / f"{step}").mkdir() for step in (1, 2)],
            ["run: left behind: checkpoints/1"],
        ),
        ({}, lambda run: (run.parent / "other").mkdir(), ["left behind: other"]),
        ({}, lambda run: shutil.rmtree(run), ["run: 0 end rows", "run: 0 rows", "run: other"]),
    ],
)
def test_every_defect_of_a_round_is_seen(tmp_path, more, change, said):
    made_up_run(tmp_path / "straight")
    change(made_up_run(tmp_path / "runs", **more))
    found = judge(tmp_path / "runs", tmp_path / "straight")
    assert len(found) >= len(said) and bool(found) == bool(said)
    for want, line_ in zip(said, found, strict=False):
        assert line_.startswith(want), found


def test_sessions_that_only_touch_do_not_overlap(tmp_path):
    run = made_up_run(tmp_path, times=[("a", 0.0), ("a", 5.0), ("b", 5.0), ("c", 6.0), ("b", 6.5)])
    (said,) = overlaps(read_sessions(run / "time.jsonl"))
    assert "session c began 0.50 s before the last of b" in said


def test_a_round_without_a_disturbance_or_with_a_run_missing_is_bad():
    row = {"asked": {"runs": 2}, "ended_once": 2, "same": 2, "bad": [], "disturbed": {"stall": 1}}
    assert chaos.good(row)
    assert not chaos.good(row | {"disturbed": {}})
    assert not chaos.good(row | {"bad": ["x"]})
    assert not chaos.good(row | {"ended_once": 1}) and not chaos.good(row | {"same": 1})


def worker_lives(kind, disturb, machine):
    """Whether the worker of a machine is there after a disturbance; the command is not."""
    wait_until(machine.workers)
    both = machine.tree()
    try:
        lasts_s = disturb(machine, random.Random(0))
        if kind == "stall":
            assert lasts_s > 3.0
            wait_until(lambda: {process.status() for process in both} == {"stopped"})
            wakes(machine)
            wait_until(lambda: "stopped" not in {process.status() for process in both})
            machine.process.kill()
        machine.process.wait(timeout=30)
        assert not machine.is_alive
        _, alive = psutil.wait_procs(both[1:], timeout=1.0)
        return any(process.status() != "zombie" for process in alive)
    finally:
        each_of(both, lambda process: process.kill())


def test_a_disturbed_machine_is_dead_stopped_or_told():
    """Of a stand-in for a sweep that has a worker and ignores nothing."""
    stand_in = "import subprocess, sys, time\nsubprocess.run(['sleep', '600'])"
    states = {}
    for kind, disturb in DISTURBANCES.items():
        with subprocess.Popen([sys.executable, "-c", stand_in], start_new_session=True) as process:
            states[kind] = worker_lives(kind, disturb, Machine("m", process))
    assert states == {
        "kill-machine": False,
        "kill-worker": False,
        "kill-launcher": True,
        "sigterm": True,
        "stall": True,
    }


def test_what_a_machine_started_and_left_is_found_and_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.chaos_machines.GONE_S", 0.2)
    site = Site(tmp_path, [])
    assert site.orphans() == []
    environment = {**os.environ, "CHAOS_ROUND": site.token}
    with subprocess.Popen(["sleep", "600"], env=environment) as process:
        (said,) = site.orphans()
        assert said == f"process {process.pid}: 600"
        assert process.wait(timeout=10) == -9


def test_bad_flags_are_refused_and_rounds_are_remembered(tmp_path, monkeypatch, capsys):
    for flags, said in (
        (["--runs", "0"], "--runs 0: at least 1"),
        (["--only", "stal"], "--only stal: no such disturbance; there are kill-machine"),
        (["--every-s", "0"], "--every-s 0.0: more than 0"),
    ):
        result = command("tools/chaos.py", *flags)
        assert result.returncode == 2 and said in result.stderr.splitlines()[-1]
    played = []

    def play(plan, chance, folder):
        played.append((folder.name, chance.random()))
        bad = ("r0: other parameters",) if len(played) == 2 else ()
        return chaos_round.Found({"stall": 1}, 3, 1, 1, 0.5, bad, 1.0)

    monkeypatch.setattr(chaos_round, "play", play)
    flags = ["chaos.py", "--runs", "1", "--rounds", "2", "--workdir", str(tmp_path), "--json"]
    monkeypatch.setattr(sys, "argv", flags)
    assert [chaos.main(), chaos.main()] == [1, 1]
    assert [name for name, _ in played] == ["round-0-0", "round-0-1"], "played once"
    assert played[0][1] != played[1][1]
    assert json.loads(capsys.readouterr().out.split("\n}\n")[0] + "}")["good"] == 1


@pytest.mark.slow
def test_a_small_round_ends_as_it_should(tmp_path):
    result = command(
        *("tools/chaos.py", "--rounds", "1", "--runs", "2", "--machines", "3", "--steps", "300"),
        *("--disturbances", "8", "--seed", "3", "--workdir", tmp_path, "--json"),
        timeout_s=900,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = json.loads(result.stdout)["rounds"]
    assert row["ended_once"] == row["same"] == 2 and row["bad"] == []
    assert sum(row["disturbed"].values()) >= 3 and row["sessions"] >= 4
