"""What the benchmark of training divides by."""

import jax
import pytest

from benchmarks.training import Way, job_of, mfu_of


def test_mfu_is_of_all_devices_that_share_the_batch(monkeypatch):
    """A step at the peak of N devices takes an Nth of the time, and its MFU is 1 all the same."""
    rate, way = 1e12, Way(batch=16, remat="none")
    every = jax.devices()
    for devices in (every, every[:1]):
        monkeypatch.setattr(jax, "devices", lambda devices=devices: devices)
        job = job_of("elm", "s1", way)
        needed = 16 * 256 * job.flops_per_token.total  # 16 x 16 positions
        assert mfu_of(job, needed / (len(devices) * rate), rate) == pytest.approx(1)
    assert len(every) == 8
