"""Damaged checkpoints: the right values, a fall-back by name or a clear stop; never silence."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import mutate_checkpoints as tool
from tools.mutate_checkpoints import BAD, Mutation, Outcome, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("as_large", [False, True])
def test_no_mutation_restores_wrong_values(tmp_path, as_large):
    table = run(60, seed=1, directory=tmp_path, as_large=as_large)
    assert table.total() == 60
    assert not [key for key in table if key[1] in BAD]
    # Only a swap damages the older step too: all else must find it.
    assert {key[0] for key in table if key[1] is Outcome.STOPPED} <= {Mutation.SWAP}
    # The test would prove nothing if the mutations touched nothing that is read.
    for mutation in Mutation:
        assert table[mutation, Outcome.FELL_BACK] + table[mutation, Outcome.STOPPED] > 0


def test_a_restore_without_verification_is_found_wrong(tmp_path, monkeypatch):
    """The harness sees silent damage where there is some: the digests are what prevents it."""
    monkeypatch.setattr("lab.core.manifest.check_arrays", lambda arrays, manifest: None)
    table = run(40, seed=2, directory=tmp_path, as_large=True, kinds=[Mutation.FLIP])
    assert table[Mutation.FLIP, Outcome.WRONG] > 0


# A worker whose restores die, raise or hang by the kind of the mutation. Nothing heavy is loaded.
BROKEN = """
import os, signal, sys, time
from tools import mutate_checkpoints as tool

def mutate(directory, mutation, rng):
    match mutation:
        case tool.Mutation.FLIP:
            os.kill(os.getpid(), signal.SIGSEGV)
        case tool.Mutation.TRUNCATE:
            raise RuntimeError("bang")
        case tool.Mutation.DELETE:
            time.sleep(60)
    return "file"

tool.HANG_S = 0.5
tool.mutate = mutate
tool._tree = lambda step: step
tool._save = lambda directory, trees, as_large: directory.mkdir()
tool.outcome = lambda directory, trees: (tool.Outcome.HARMLESS, "")
sys.exit(tool.main())
"""


def test_a_restore_that_dies_raises_or_hangs_is_counted_and_the_rest_goes_on(tmp_path):
    flags = argparse.Namespace(mutations=8, seed=0, as_large=False)
    results = tool.supervise(flags, tmp_path, worker=("-c", BROKEN))
    assert [result.index for result in results] == list(range(8))
    died, raised, fine = Outcome.DIED, Outcome.RAISED, Outcome.HARMLESS
    assert [r.outcome for r in results] == [died, raised, died, fine, fine, died, raised, died]
    assert [results[i].detail for i in (0, 1)] == ["exit code -11", "RuntimeError: bang"]


def test_a_worker_that_cannot_begin_is_an_error_and_no_table(tmp_path):
    flags = argparse.Namespace(mutations=2, seed=0, as_large=False)
    with pytest.raises(SystemExit, match=r"could not be saved: .*bang"):
        tool.supervise(flags, tmp_path, worker=("-c", "raise SystemExit('bang')"))


def command(*flags):
    """The command as a user gives it."""
    line = [sys.executable, "tools/mutate_checkpoints.py", *flags]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


def test_the_command_gives_its_counts_as_json():
    result = command("--mutations", "10", "--json")
    content = json.loads(result.stdout)
    assert (result.returncode, result.stderr, content["bad"]) == (0, "", [])
    assert {kind: sum(row.values()) for kind, row in content["counts"].items()} == {
        kind: 2 for kind in Mutation
    }
    assert command("--mutations", "0").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("as_large", [[], ["--as-large"]])
def test_no_mutation_of_a_thousand_is_bad(as_large):
    result = command("--mutations", "1000", "--seed", "0", "--json", *as_large)
    content = json.loads(result.stdout)
    assert (result.returncode, content["bad"]) == (0, [])
    stopped = {kind for kind, row in content["counts"].items() if row[Outcome.STOPPED]}
    assert stopped <= {Mutation.SWAP}
