"""What the tests of rendered job files share."""

import time

from lab.core.errors import ExitCode
from lab.launch import render

SWEEP = "experiments/01_first_ladder/sweep.py"
SLURM = ("--target=slurm", "--workdir=/shared/runs")


def admit_only_what_is_new(monkeypatch):
    """Admit the ladder only with the flags that a test adds: thirteen runs take a while."""
    admit = render._admit

    def admit_new(sweep, overrides):
        if sweep != SWEEP or len(overrides) > 1:
            admit(sweep, overrides)

    monkeypatch.setattr(render, "_admit", admit_new)


def rendered(capsys, *flags, sweep=SWEEP):
    """The text that a command line gives."""
    assert render.main([sweep, *flags]) == ExitCode.DONE
    return capsys.readouterr().out


def wait_for(path, *, seconds=20):
    for _ in range(seconds * 20):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path}: not there after {seconds} s")
