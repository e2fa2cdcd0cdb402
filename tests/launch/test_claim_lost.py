"""A run that another process took over while this one stood still in a save."""

import time

import pytest

from lab.core.config import run_directory
from lab.core.errors import NotSaved
from lab.launch import claim, runner
from lab.launch.claim import LEASE, ClaimLost
from lab.launch.door import load_config
from lab.launch.lease import Lease, remove
from lab.launch.timesheet import Startup
from tests.train.jobs import hooks


@pytest.mark.parametrize("lost", [True, False])
def test_a_save_that_failed_since_another_took_over_is_a_lost_claim(tmp_path, monkeypatch, lost):
    """Not a failure of the run: a sweep would try it no more."""
    overrides = {"execution.workdir": str(tmp_path)}
    run = load_config("configs/elm.py:s1", overrides)
    lease = run_directory(run) / LEASE
    monkeypatch.setattr(claim, "RENEW_S", 0.05)

    def fails(run, watch, seat=None):
        if lost:
            remove(lease, expected=lambda content: True)
            rival = Lease(lease, renew_s=60.0)
            assert rival.take()
        time.sleep(0.2)
        raise NotSaved("checkpoints/50: not saved: No such file or directory")

    monkeypatch.setattr(runner, "make_job", fails)
    with pytest.raises(ClaimLost if lost else NotSaved):
        runner.train_run(run, hooks(), lambda preparing: None, startup=Startup(0.0))
