"""A process that saves step after step until it is killed; test_store.py kills it.

python -m tests.core.checkpoint_writer DIRECTORY: prints a step when its save has returned, that
is when the step before it is committed.
"""

import pathlib
import sys

import jax.numpy as jnp
import numpy as np

from lab.core.store import Store


def tree(step: int):
    """Arrays that differ at every step."""
    values = np.random.default_rng(step).normal(size=(4, 50_000)).astype(np.float32)
    return {"w": [jnp.asarray(value) for value in values], "step": jnp.int32(step)}


def main(directory: pathlib.Path) -> None:
    """Go on from the newest step, for ever."""
    with Store(directory, keep_last=2, keep_every=50) as store:
        restored = store.restore(tree(0))
        step = restored.step if restored else 0
        while True:
            step += 1
            store.save(step, tree(step), metrics={"tokens": step})
            print(step, flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
