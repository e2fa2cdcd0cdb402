"""The rows of a diffusion head stay with the devices of their images."""

import re

import jax
import pytest

from lab.launch.compile_job import lowered
from tests.train.family_jobs import family_job

IMAGES, POSITIONS = 24, 8


@pytest.mark.parametrize(("name", "repeats"), [("mar", 4), ("bigr", 1)])
@pytest.mark.parametrize("layout", ["fsdp", pytest.param("ddp", marks=pytest.mark.slow)])
def test_no_device_has_the_rows_of_all_images(tmp_path, name, repeats, layout):
    """In the program as it is partitioned for eight devices; MAR's each token at four times."""
    more = {"train.batch_size": IMAGES, "train.evaluation_batch_size": IMAGES}
    made = family_job(tmp_path, name, layout=layout, **more)
    assert len(made.layout.mesh.devices.flat) == 8
    rows = IMAGES * POSITIONS * repeats
    text = lowered(made, "train").compile().as_text()
    leading = {int(n) for n in re.findall(r"(?:f32|bf16)\[(\d+)[,\]]", text)}
    assert rows // 8 in leading and rows not in leading


@pytest.mark.parametrize("name", ["mar", "bigr"])
def test_the_network_of_the_head_is_sharded_like_the_backbone(tmp_path, name):
    made = family_job(tmp_path, name, layout="fsdp")
    network = made.abstract_state["params"].head.network
    matrices = [
        leaf
        for path, leaf in jax.tree.leaves_with_path(network)
        if "weight" in jax.tree_util.keystr(path)
    ]
    assert len(matrices) > 6
    assert not any(leaf.sharding.is_fully_replicated for leaf in matrices)
