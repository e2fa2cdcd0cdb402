"""Parameters against published numbers and against the leaves. For FLOPs see test_flops.py."""

import math

import jax
import pytest

from lab.core import counts
from lab.models import families
from tests.models.worlds import config

# systems.md, section 1.1: computed from ELM's published code; in millions, 16 x 16 positions.
PUBLISHED_MILLIONS = {
    ("B", 1, 16): 186.4,
    ("B", 2, 8): 87.7,
    ("B", 2, 10): 90.0,
    ("B", 2, 12): 99.5,
    ("L", 1, 16): 443.6,
    ("L", 2, 8): 312.5,
    ("L", 2, 10): 315.6,
    ("L", 2, 12): 328.2,
    ("XL", 1, 16): 900.5,
    ("XL", 2, 8): 737.3,
    ("XL", 2, 10): 741.3,
    ("XL", 2, 12): 757.0,
    ("XXL", 1, 16): 1562.0,
    ("XXL", 2, 8): 1366.9,
    ("XXL", 2, 10): 1371.7,
    ("XXL", 2, 12): 1390.5,
    ("2B", 1, 16): 2108.6,
    ("2B", 2, 8): 1881.9,
    ("2B", 2, 10): 1887.4,
    ("2B", 2, 12): 1909.5,
    ("XXXL", 2, 10): 3832.7,
}
BLOCKS_MILLIONS = {"B": 85.0, "L": 308.3, "XL": 731.5, "XXL": 1359.1, "2B": 1871.9, "XXXL": 3806.6}


def imagenet(size, subcodes, bits):
    run = config(size, **{"model.subcodes": subcodes})
    codes = families.Codes(vocabulary=2**bits, grid=(16, 16, 1), classes=1000)
    return run, codes


@pytest.mark.parametrize(("size", "subcodes", "bits"), PUBLISHED_MILLIONS)
def test_published_parameter_counts(size, subcodes, bits):
    run, codes = imagenet(size, subcodes, bits)
    counted = counts.parameters(families.count_sizes(run.model, codes))
    assert round(counted.total / 1e6, 1) == PUBLISHED_MILLIONS[size, subcodes, bits]
    assert round(counted.blocks / 1e6, 1) == BLOCKS_MILLIONS[size]


@pytest.mark.parametrize(
    ("size", "subcodes", "slots"),
    [(s, 2, 1) for s in ("B", "L", "2B")] + [(f"s{i}", 1, 3) for i in range(1, 12)],
)
def test_counts_equal_the_leaves_by_role(size, subcodes, slots):
    run = config(size, **{"model.subcodes": subcodes})
    codes = families.Codes(vocabulary=32, grid=(8, 8, slots), classes=10)
    make = families.builder(run.model, codes, families.Running(compute_dtype="float32"))
    model = jax.eval_shape(make, jax.random.key(0))

    def leaves(part):
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))

    counted = counts.parameters(families.count_sizes(run.model, codes))
    assert counted.embedding == leaves(model.embedding) + leaves(model.classes)
    assert counted.blocks == leaves(model.backbone)
    assert counted.head == leaves(model.head)


@pytest.mark.parametrize(
    ("width", "hidden"),
    [(768, 2048), (1024, 2816), (1280, 3584), (1536, 4096), (1792, 4864), (2560, 6912)],
)
def test_published_swiglu_widths(width, hidden):
    """Two thirds of four widths, rounded up to a multiple of 256 (Llama's rule), as published."""
    (size,) = [s for s in families.ELM_SIZES.values() if s.width == width]
    assert size.mlp_hidden == hidden == math.ceil(int(2 * 4 * width / 3) / 256) * 256
