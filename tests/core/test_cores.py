"""Cores: a process that keeps to one starts others on all that it was given."""

import os
import pathlib
import subprocess
import sys

import pytest

from lab.core import cores

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = """
import subprocess, sys
from lab.core import cores
given = cores.usable_cores()
cores.keep_to([])
assert cores.usable_cores() == given
cores.keep_to(given[-1:])
assert (cores.usable_cores(), cores.core_count()) == (given[-1:], 1)
assert cores.given_core_count() == len(given)
ask = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
def said():
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
assert said() == str(given[-1:])
try:
    with cores.on_given_cores():
        assert said() == str(given)
        raise KeyError
except KeyError:
    assert said() == str(given[-1:])
print(len(given))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no say")
def test_processes_of_a_process_that_keeps_to_one_core():
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) == len(cores.usable_cores())
