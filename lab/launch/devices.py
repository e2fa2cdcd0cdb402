"""What every command asks of jax before it computes: devices, and programs kept on the disk."""

import os
import pathlib

import jax

from lab.core.errors import LabError

CACHE = pathlib.Path(".cache/xla").absolute()
# XLA's CPU devices may start two collectives of one program in different orders, and then wait
# for each other for ever (jax 0.10.2: DiT on pixels under fsdp); in one order they cannot.
ONE_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def set_up_jax(devices: int, *, processes: int = 1) -> None:
    """Make this many CPU devices (no effect on accelerators; 0: as many as there are), and keep
    compiled programs between processes.

    Of several processes each makes its part of them.
    """
    if devices % processes:
        raise LabError(
            f"config.execution.devices = {devices}: must be a multiple of --processes {processes}"
        )
    if max(devices, processes) > 1 and not jax.distributed.is_initialized():
        flags = os.environ.get("XLA_FLAGS", "")
        if ONE_ORDER.split("=")[0] not in flags:  # what a user says about it stands
            os.environ["XLA_FLAGS"] = f"{flags} {ONE_ORDER}".strip()
        if devices:
            jax.config.update("jax_num_cpu_devices", devices // processes)
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
