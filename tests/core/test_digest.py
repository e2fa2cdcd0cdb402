"""The stated hash of a tree."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.digest import tree_sha256
from tests.core.checkpoints import meshes


def test_tree_sha256_is_the_stated_hash_of_the_values(tmp_path):
    values = np.arange(128, dtype=np.float32).reshape(8, 16)
    expected = hashlib.sha256()
    expected.update(b"a/0\nint32\n()\n" + np.int32(5).tobytes())
    expected.update(b"w\nfloat32\n(8, 16)\n" + values.tobytes())
    digests = {
        tree_sha256({"w": jax.device_put(values, layout), "a": [jnp.int32(5)]})
        for layout in [*meshes(), jax.devices()[0]]
    }
    assert digests == {expected.hexdigest()}
    others = [
        {"w": values.reshape(16, 8), "a": [np.int32(5)]},
        {"w": values.view(np.int32), "a": [np.int32(5)]},
        {"v": values, "a": [np.int32(5)]},
        {"w": np.where(values == 3, -values, values), "a": [np.int32(5)]},
    ]
    assert len({tree_sha256(other) for other in others} | digests) == 5
