"""Whether the tests of this process compile as users do, or faster.

Compiling is most of what tests do. At LLVM's level 0 and by the older of two ways to make code for
a fusion (later jaxlibs have one, and end at a flag that they do not know) it takes less than half
of the time. Code is slower then, and sums that are of the same bits otherwise need not be.
"""

import importlib.metadata
import os
import subprocess
import sys

VARIABLE = "TESTS_COMPILE_AS_USERS_DO"
COMPILED_AS_USERS_DO = VARIABLE in os.environ


def compiler_flags() -> list[str]:
    """For XLA_FLAGS, here and in the processes that tests start."""
    if COMPILED_AS_USERS_DO:
        return []
    old = importlib.metadata.version("jaxlib").startswith("0.10.")
    emitters = ["--xla_cpu_use_fusion_emitters=false"] if old else []
    return ["--xla_backend_optimization_level=0", *emitters]


def passes_as_users_compile(*names: str) -> str:
    """Run these tests in a process that compiles as users do; what it printed, "" if all passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    del kept["XLA_FLAGS"]  # conftest makes its own
    ran = subprocess.run(
        command, env={**kept, VARIABLE: "1"}, capture_output=True, text=True, check=False
    )
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr
