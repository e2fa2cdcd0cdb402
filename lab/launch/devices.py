"""What every command asks of jax before it computes: devices, and programs kept on the disk."""

import pathlib

import jax

CACHE = pathlib.Path(".cache/xla").absolute()


def set_up_jax(devices: int) -> None:
    """Make this many CPU devices (no effect on accelerators; 0: as many as there are), and keep
    compiled programs between processes.
    """
    if devices > 1 and not jax.distributed.is_initialized():
        jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
