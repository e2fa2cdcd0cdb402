"""Strict settings for all tests: eight virtual devices; compiled programs shared by a session."""

import os
import shutil

import pytest

from tests.compiling import compiler_flags

SHARED_MEMORY, ROOM_BYTES = "/dev/shm", 8 * 2**30
# Matrices of the fits are small: threads of BLAS wait for each other, at four times the time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported
if os.path.isdir(SHARED_MEMORY) and shutil.disk_usage(SHARED_MEMORY).free > ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", SHARED_MEMORY)  # where a sync costs nothing
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
FLAGS = [
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",  # see lab/launch/devices.py
    *compiler_flags(),
]
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory):
    """Keep compiled programs for the session: a job that resumes compiles what the first one did.

    The workers of one session share the folder, and no session sees that of another.
    """
    import jax

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
