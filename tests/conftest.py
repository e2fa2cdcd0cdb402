"""Strict settings for all tests: eight virtual devices; compiled programs shared by a session."""

import os

import pytest

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
# Compiling is most of what tests do: at LLVM's level 1 it takes two thirds of the time.
FLAGS = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1 "
    "--xla_cpu_enable_concurrency_optimized_scheduler=false"  # see lab/launch/devices.py
)
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()


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
