"""The fault matrix: its judgement, its memory, and each of its faults once."""

import json
import random
import shutil

import pytest

from tests.launch.commands import command
from tools import fault_kinds, faults
from tools.fault_stage import GUARD, Ended, Stage, difference, end_of, rows, saved


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("faults"))


def made_up_run(place, *, loss=2.0, status="finished"):
    """A run directory as `difference` reads it."""
    run = place / "default" / "run"
    (run / "checkpoints" / "4").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "validation.npz").write_bytes(b"12")
    row = {"kind": "train", "step": 4, "loss": loss, "clock": {"elapsed_s": 1.0}}
    lines = [{"kind": "header"}, row, {"kind": "end", "status": status, "step": 4}]
    (run / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: None, ""),
        (lambda run: (run / "validation.npz").write_bytes(b"13"), "validation.npz"),
        (lambda run: (run / "checkpoints" / ".saving-8").mkdir(), "left behind: .saving-8"),
        (lambda run: (run / "record.jsonl").write_text('{"kind": "header"}\n'), "1 rows, not 3"),
    ],
)
def test_every_difference_is_seen(tmp_path, change, said):
    for name in ("straight", "harmed"):
        made_up_run(tmp_path / name)
    change(tmp_path / "harmed" / "default" / "run")
    assert difference(tmp_path / "harmed", tmp_path / "straight") == said


def test_other_losses_and_another_end_are_differences(tmp_path):
    made_up_run(tmp_path / "a")
    made_up_run(tmp_path / "b", loss=2.5)
    made_up_run(tmp_path / "c", status="diverged")
    assert difference(tmp_path / "b", tmp_path / "a") == "row of train 4"
    assert difference(tmp_path / "c", tmp_path / "c") == "not finished"


def test_a_clear_stop_is_a_line_without_a_traceback():
    assert Ended(4, "", "error: x: not saved\n").is_clear
    assert not Ended(4, "", "Traceback (most recent call last)\nerror: x\n").is_clear
    assert not Ended(4, "", "").is_clear


def test_tries_are_kept_and_not_made_again(tmp_path, monkeypatch, capsys):
    made = []

    def fault(stage, name, chance):
        made.append((name, chance.random()))
        bad = name == "odd-1"
        return fault_kinds.Try(not bad, "DIFFERS" if bad else "same", 2 * len(made))

    monkeypatch.setattr(fault_kinds, "FAULTS", {"odd": ("an odd fault", fault)})

    def run(tries):
        flags = ["faults.py", "--workdir", str(tmp_path), "--tries", str(tries), "--json"]
        monkeypatch.setattr("sys.argv", flags)
        return faults.main(), json.loads(capsys.readouterr().out)["rows"][0]

    assert run(1)[0] == 0
    code, row = run(3)
    assert code == 1 and row["tries"] == 3 and row["good"] == 2 and row["lost_most"] == 6
    assert row["bad"] == ["try 1: DIFFERS: "]
    assert [name for name, _ in made] == ["odd-0", "odd-1", "odd-2"]
    assert len({moment for _, moment in made}) == 3
    assert run(3)[1] == row and len(made) == 3


def test_flags_that_are_wrong_are_refused():
    result = command("tools/faults.py", "--only", "flood")
    assert result.returncode == 2 and "--only flood: no such fault; there are kill" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(fault_kinds.FAULTS))
def test_a_run_survives_it_or_stops_clearly(stage, fault):
    _, harm = fault_kinds.FAULTS[fault]
    found = harm(stage, f"{fault}-0", random.Random(f"test/{fault}"))
    assert found.good, found


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_two_processes_answer_a_spike_as_one_does(stage, policy):
    flags = (f"--config.train.guard.policy={policy}", *GUARD[: 1 + (policy == "rollback")])
    patch = fault_kinds.NOT_FINITE
    alone, both = (stage.fresh(f"{policy}-{name}") for name in ("alone", "both"))
    stage.must_end(alone, *flags, "--config.execution.devices=2", patch=patch)
    ended = [end_of(process) for process in stage.start_two(both, *flags, patch=patch)]
    assert [each.code for each in ended] == [0, 0], ended
    assert rows(both)[0]["identity"] == rows(alone)[0]["identity"]
    assert [(r["kind"], r.get("step"), r.get("action")) for r in rows(both)] == [
        (r["kind"], r.get("step"), r.get("action")) for r in rows(alone)
    ]
    for one, other in zip(rows(both), rows(alone), strict=True):
        if one["kind"] == "train":  # sums over two processes are in another order
            loss = other["loss_nats_per_token"]
            assert one["loss_nats_per_token"] == pytest.approx(loss, rel=2e-6)
    assert saved(both) == saved(alone)
    shutil.rmtree(both)
