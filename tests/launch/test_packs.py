"""Packs under a sweep: the records of runs trained one by one."""

import json
import textwrap
import threading
import time

import pytest

from lab.core.errors import LabError
from lab.launch import runner
from lab.launch.door import load_config
from lab.launch.timesheet import Startup
from lab.launch.worker import packs_of
from tests.launch.commands import TINY, command, place, refused, rows_of
from tests.train.jobs import hooks

SWEEP = textwrap.dedent(
    """
    from lab.core.designs import learning_rates, seeds
    from lab.core.sweep import product

    def sweep():
        runs = product(learning_rates("configs/elm.py", ["s1"], [0.01, 1e9]), seeds(2))
        larger = product(learning_rates("configs/elm.py", ["s2"], [0.01]), seeds(1))
        common = {"study": "tiny", "execution.steps_per_dispatch": 4, "train.duration": "12 steps",
                  "train.explode_factor": 1.2, "optimizer.clip_norm": 0.0}
        return product([*runs, *larger], [common])
    """
)


def records(folder):
    found = [rows_of(path) for path in folder.glob("runs/*/*/record.jsonl")]
    return {
        rows[0]["name"]: [{k: v for k, v in row.items() if k != "clock"} for row in rows]
        for rows in found
    }


def test_a_pack_leaves_the_records_of_runs_one_by_one(tmp_path):
    """Two of five diverge; each keeps its own end, and nothing is trained again.

    As users compile: compiled faster, programs of one run and of several round otherwise.
    """
    path = tmp_path / "sweep.py"
    path.write_text(SWEEP)
    found = {}
    for name, flags in {"packed": ("--pack", "4"), "alone": ()}.items():
        arguments = ("-m", "lab.launch.sweep", path, *TINY, *place(tmp_path / name))
        result = command(*arguments, *flags, "--json", XLA_FLAGS="")
        assert result.returncode == 1, result.stderr
        states = {run["name"]: run["state"] for run in json.loads(result.stdout)["runs"]}
        assert sorted(states.values()) == ["diverged"] * 2 + ["finished"] * 3
        found[name] = records(tmp_path / name)
        assert command(*arguments, *flags, XLA_FLAGS="").returncode == 1
        assert records(tmp_path / name) == found[name]
    assert found["packed"] == found["alone"]
    refused(command("-m", "lab.launch.sweep", path, "--pack", "0"), "--pack 0")


@pytest.mark.parametrize(
    ("most", "packs"), [(1, ["a", "b", "c", "d", "e"]), (2, ["ac", "b", "de"]), (9, ["acde", "b"])]
)
def test_packs_keep_the_order_of_the_sweep(most, packs):
    given = {"a": "s1", "b": "s2", "c": "s1", "d": "s1", "e": "s1"}
    runs = [
        load_config(f"configs/elm.py:{size}", {"name": name, "seed": seed})
        for seed, (name, size) in enumerate(given.items())
    ]
    found = ["".join(run.name for run in pack) for pack in packs_of(runs, most=most)]
    assert found == packs


def test_a_run_cut_over_devices_is_by_itself():
    given = [{}, {"execution.layout": "fsdp"}, {"seed": 1}]
    runs = [
        load_config("configs/elm.py:s1", {"name": name, **more})
        for name, more in zip("abc", given, strict=True)
    ]
    assert [[run.name for run in pack] for pack in packs_of(runs, most=9)] == [["a", "c"], ["b"]]


def test_what_runs_of_a_pack_prepare_is_prepared_one_after_the_other(tmp_path, monkeypatch):
    """Versions are looked up by code that imports lazily and is not made for threads."""
    inside, most = [], []

    def environment():
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.2)
        inside.pop()
        return {}

    def no_job(run, watch, seat=None):
        raise LabError("not made here")

    def train(seed):
        run = load_config("configs/elm.py:s1", {"execution.workdir": str(tmp_path), "seed": seed})
        with pytest.raises(LabError, match="not made here"):
            runner.train_run(run, hooks(), lambda preparing: None, startup=Startup(0.0))

    monkeypatch.setattr(runner, "environment", environment)
    monkeypatch.setattr(runner, "make_job", no_job)
    threads = [threading.Thread(target=train, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
