"""Parameters against published numbers. For FLOPs see test_flops.py."""

import math

import jax
import pytest

from lab.launch.counts import counted
from lab.models import families, sizes
from lab.models.published import PUBLISHED
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


def abstract(run, codes):
    make = families.builder(run.model, codes, families.Running(compute_dtype="float32"))
    return jax.eval_shape(make, jax.random.key(0))


@pytest.mark.parametrize(("size", "subcodes", "bits"), PUBLISHED_MILLIONS)
def test_elm_in_every_split(size, subcodes, bits):
    n = abstract(*imagenet(size, subcodes, bits)).parameters()
    assert round(n.total / 1e6, 1) == PUBLISHED_MILLIONS[size, subcodes, bits]
    assert round(n.blocks / 1e6, 1) == BLOCKS_MILLIONS[size]


@pytest.mark.parametrize("of", PUBLISHED, ids=lambda of: f"{of.family}-{of.size}-{of.said}")
def test_every_published_size_at_the_published_precision(of):
    row = counted(of)
    assert row["met"], f"{of.rounded(row['params_total'])} and not {of.said}"
    assert sum(row["params"].values()) == row["params_total"]


@pytest.mark.parametrize("width", [768, 1024, 1280, 1536, 2560])
def test_a_count_by_hand(width):
    """ELM's blocks: four square projections, SwiGLU's three matrices, two norms."""
    (name,) = [n for n, s in sizes.ELM.items() if s.width == width]
    size = sizes.ELM[name]
    n = abstract(*imagenet(name, 2, 10)).parameters()
    block = 4 * width**2 + 3 * width * size.mlp_hidden + 2 * width
    assert n.blocks == size.depth * block
    assert n.embedding == 2 * 2**10 * width + 2 * width**2 + 1001 * width
    assert n.head == 2 * 2**10 * width + width


@pytest.mark.parametrize(
    ("width", "hidden"),
    [(768, 2048), (1024, 2816), (1280, 3584), (1536, 4096), (1792, 4864), (2560, 6912)],
)
def test_published_swiglu_widths(width, hidden):
    """Two thirds of four widths, rounded up to a multiple of 256 (Llama's rule), as published."""
    (size,) = [s for s in sizes.ELM.values() if s.width == width]
    assert size.mlp_hidden == hidden == math.ceil(int(2 * 4 * width / 3) / 256) * 256
