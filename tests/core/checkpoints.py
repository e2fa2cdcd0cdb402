"""Small checkpoints, and ways to damage them."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lab.core.store import Store


def tree(step):
    return {"w": jnp.arange(12.0).reshape(3, 4) + step, "b": jnp.full(5, step, jnp.int32)}


def fill(directory, steps, **policy):
    with Store(directory, **({"keep_last": 100} | policy)) as opened:
        for step in steps:
            opened.save(step, tree(step), metrics={"tokens": step})
    return directory


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def damage(directory, step):
    """Flip one bit of the file that holds the values; returns its name in the step."""
    files = (directory / str(step) / "state").rglob("d/*")
    file = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    return file.relative_to(directory / str(step)).as_posix()


def edit_manifest(folder, *, seal=False, **changes):
    path = folder / "manifest.json"
    content = json.loads(path.read_text()) | changes
    if seal:
        rest = {name: value for name, value in content.items() if name != "sha256"}
        canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        content["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps(content))


def meshes():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
    specs = [PartitionSpec(), PartitionSpec("data", "model"), PartitionSpec(None, "data")]
    return [NamedSharding(mesh, spec) for spec in specs]
