"""Freed memory stays with the process: its pages are faulted in once."""

import subprocess
import sys

import pytest

CHILD = """
import resource, sys
from lab.launch.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
import jax, jax.numpy as jnp

@jax.jit
@jax.grad
def step(w, x):  # 112 MiB that are gone at its end
    for _ in range(6):
        x = jnp.tanh(x @ w)
    return jnp.sum(x)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

w, x, found = jnp.ones((256, 256)), jnp.ones((2**14, 256)), []
for _ in range(15):
    before = faults()
    step(w, x).block_until_ready()
    found.append(faults() - before)
print(sorted(found)[len(found) // 2])
"""


def faults_of_a_step(how):
    """The median: the heap finds its shape in the first ones."""
    found = subprocess.run(
        [sys.executable, "-c", CHILD, how], capture_output=True, text=True, check=True
    )
    return int(found.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_a_step_finds_its_memory_again():
    assert faults_of_a_step("keep") < 0.05 * faults_of_a_step("as it is")
