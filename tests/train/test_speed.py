"""How fast a step is, against what its devices could do."""

import pytest

from lab.core.counts import PEAK_FLOPS_PER_S
from tests.train.jobs import job


def test_mfu_is_of_all_devices(tmp_path, monkeypatch):
    """A step at the peak of four devices; of a device that no data sheet tells of, nothing."""
    made = job(tmp_path, devices=4, size="s1")
    needed = made.tokens_per_step * made.flops_per_token.total
    step_s = needed / (4 * 1e9)
    assert made.speed(step_s)["mfu"] is None and made.mfu(needed / step_s) is None
    monkeypatch.setitem(PEAK_FLOPS_PER_S, "cpu", 1e9)
    assert made.speed(step_s) == {
        "tokens_per_s": pytest.approx(made.tokens_per_step / step_s, rel=1e-6),
        "mfu": 1.0,
    }
    assert made.mfu(needed / step_s / 2) == pytest.approx(0.5)
