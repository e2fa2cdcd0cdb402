"""A small ladder killed with SIGKILL ends as one that was not."""

import json
import signal
import sys

import pytest

from lab.core.errors import ExitCode
from tests.launch.commands import command, refused, start, wait_for_rows
from tools import kill_ladder
from tools.kill_ladder import START_UP_S, compare, gaps, is_same


def test_a_folder_with_an_earlier_ladder_is_refused(tmp_path):
    (tmp_path / "straight").mkdir()
    refused(command("tools/kill_ladder.py", "--workdir", tmp_path), "straight", "already there")
    refused(command("tools/kill_ladder.py", "--kils", "3"), "--kils", "no such flag")


@pytest.mark.slow
def test_sigterm_to_the_ladder_begins_no_other_stage_and_leaves_with_75(tmp_path):
    ladder = ("-u", "experiments/01_first_ladder/ladder.py", "--workdir", tmp_path / "runs")
    process = start(*ladder, "--scale", "0.05", "--config.train.log_every_steps=1")
    wait_for_rows(tmp_path, 20)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert "[1/6]" in out and "[2/6]" not in out
    assert out.rstrip().endswith("interrupted; the same command goes on from there")


def test_moments_are_spread_and_seeded():
    ten = gaps(10, 0, usual_s=200.0)
    assert ten == gaps(10, 0, usual_s=200.0) != gaps(10, 1, usual_s=200.0)
    assert len(set(ten)) == 10 and min(ten) >= START_UP_S
    assert 100 < sum(gap - START_UP_S for gap in ten) < 200


@pytest.mark.parametrize("what", ["loss", "row", "params", "images", "forecast", "stray"])
def test_every_difference_is_seen(tmp_path, what):
    for name in ("straight", "killed"):
        made_up_study(tmp_path / name)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert is_same(compare(straight, killed))
    run = killed / "study" / "run"
    record = (run / "record.jsonl").read_text()
    changed = {
        "loss": record.replace("1.25", "1.26"),
        "row": "".join(record.splitlines(keepends=True)[i] for i in (0, 1, 1, 2)),
        "params": record.replace('"abc"', '"abd"'),
    }
    (run / "record.jsonl").write_text(changed.get(what, record))
    if what == "images":
        (run / "validation.npz").write_bytes(b"23")
    if what == "forecast":
        (killed / "study" / "forecast.json").write_text('{"date": "b", "loss": 2}')
    if what == "stray":
        (run / "checkpoints" / ".saving-7.orbax-checkpoint-tmp").mkdir()
    assert not is_same(compare(straight, killed))


@pytest.mark.parametrize(("seconds", "delivered"), [(0.0, 0), (30.0, 3)])
def test_fewer_kills_than_asked_for_fail_and_are_said(
    tmp_path, monkeypatch, capsys, seconds, delivered
):
    """A stand-in for the ladder that lasts so long; both folders are the same."""
    made_up_study(tmp_path / "straight")
    made_up_study(tmp_path / "killed")
    made = compare(tmp_path / "straight", tmp_path / "killed")
    monkeypatch.setattr(kill_ladder, "compare", lambda straight, killed: made)
    monkeypatch.setattr(kill_ladder, "finish", lambda command: None)
    monkeypatch.setattr(kill_ladder, "START_UP_S", 2.0 if seconds < 1 else 0.1)
    stand_in = tmp_path / "ladder.py"
    stand_in.write_text(f"import time; time.sleep({seconds})")
    monkeypatch.setattr(kill_ladder, "LADDER", stand_in)
    flags = ["kill_ladder.py", "--kills", "3", "--workdir", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", flags)
    code = kill_ladder.main()
    last = capsys.readouterr().err.splitlines()[-1]
    if delivered == 3:
        assert code == 0 and last.startswith("killed 3 of 3")
    else:
        assert code == 1
        assert last.startswith(f"error: only {delivered} of 3 kills were delivered")


def made_up_study(folder):
    """The files that are compared; clocks and dates differ between two folders."""
    run = folder / "study" / "run"
    (run / "checkpoints" / "7").mkdir(parents=True)
    rows = [
        {"kind": "header", "name": "a"},
        {"kind": "train", "step": 7, "loss": 1.25, "clock": {"at": folder.name}},
        {"kind": "end", "params_sha256": "abc", "clock": {"at": folder.name}},
    ]
    (run / "record.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "validation.npz").write_bytes(b"12")
    frozen = {"date": folder.name, "loss": 1}
    (folder / "study" / "forecast.json").write_text(json.dumps(frozen))


@pytest.mark.slow
def test_a_ladder_killed_ten_times_ends_the_same(tmp_path):
    often = ["--config.train.log_every_steps=10", "--config.execution.checkpoint_every_steps=20"]
    result = command(
        *("tools/kill_ladder.py", "--kills", "10", "--seed", "0", "--json"),
        *("--workdir", tmp_path / "kill", "--scale", "0.05", *often),
        timeout_s=1500,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    found = json.loads(result.stdout)
    assert found["kills"] == found["kills_asked"] == 10 and found["kills_in_training"] >= 8
    assert found["same_forecast"] and not found["strays"]
    assert len(found["runs"]) == 15
    assert all(run["same_rows"] and run["same_params"] for run in found["runs"])
    assert sum(run["rows"] for run in found["runs"]) > 15 * 4
