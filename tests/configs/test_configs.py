"""Every config and every size of it admits and builds, without an array."""

import pathlib

import jax
import pytest

from configs import base
from configs.layouts import LAYOUTS
from lab.core.counts import parameters
from lab.launch.door import ROOT, load_config
from lab.launch.sweep import load_sweep
from lab.models import families

CONFIGS = sorted(p.stem for p in (ROOT / "configs").glob("*.py"))
FAMILY_CONFIGS = [name for name in CONFIGS if name not in ("__init__", "base", "layouts")]
SWEEPS = sorted((ROOT / "experiments").glob("*/sweep.py"))


def test_every_family_has_a_config_and_every_config_a_family():
    assert set(FAMILY_CONFIGS) == set(families.FAMILIES)


@pytest.mark.parametrize(
    ("name", "size"), [(n, s) for n in FAMILY_CONFIGS for s in families.FAMILIES[n].sizes]
)
def test_every_size_admits_and_builds_abstractly(name, size):
    run = load_config(f"configs/{name}.py:{size}", {})
    codes = families.Codes(vocabulary=16, grid=(8, 8, 3), classes=10)
    make = families.builder(run.model, codes, families.Running(compute_dtype="float32"))
    model = jax.eval_shape(make, jax.random.key(0))
    total = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert total == parameters(families.count_sizes(run.model, codes)).total


def test_sizes_of_a_ladder_grow():
    sizes = [s for name, s in families.FAMILIES["elm"].sizes.items() if name.startswith("s")]
    blocks = [s.depth * (4 * s.width**2 + 3 * s.width * s.mlp_hidden) for s in sizes]
    assert blocks == sorted(blocks) and len(set(blocks)) == len(blocks)
    assert all(21 <= s.width / s.depth <= 48 for s in sizes)  # published: 32 to 64


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.parent.name)
def test_every_sweep_admits_with_distinct_identities(path: pathlib.Path):
    runs = load_sweep(str(path), {})
    assert len(runs) >= 6


@pytest.mark.parametrize("data", ["dead_leaves", "fashion_mnist", "eurosat"])
def test_the_first_ladder_spans_what_it_promises(data):
    runs = load_sweep(f"experiments/01_first_ladder/sweep.py:{data}", {})
    full = [r for r in runs if r.train.duration == runs[0].train.duration]
    shapes = sorted((r.model.depth, r.model.width, r.model.mlp_hidden) for r in full)
    n = [d * (4 * w**2 + 3 * w * h + 2 * w) for d, w, h in shapes]
    assert len(n) >= 6 and max(n) / min(n) >= 30
    assert {r.study for r in runs} == {f"first_ladder_{data}"}


def test_layouts_map_the_same_axes():
    axes = [set(table["rules"]) for table in LAYOUTS.values()]
    assert all(a == axes[0] for a in axes)
    for table in LAYOUTS.values():
        meshed = set(table["mesh"])
        assert set(table["batch"]) <= meshed
        assert {a for a in table["rules"].values() if a} <= meshed


def test_every_field_of_base_has_its_meaning_beside_it():
    source = pathlib.Path(base.__file__).read_text().splitlines()
    fields = [line.strip() for line in source if line.startswith("    c.") and "()" not in line]
    plain = {line.split(" = ")[0] for line in fields if "  # " not in line}
    assert plain <= {f"c.{name}" for name in NEED_NO_WORDS}


NEED_NO_WORDS = [
    *("family", "embedding", "order", "head", "heads", "rotary_base", "norm_epsilon"),
    *("embedding_dropout", "residual_dropout", "mlp_dropout", "beta1", "beta2", "epsilon"),
    *("train_split", "validation_split", "log_every_steps", "checkpoint_every_steps"),
]
