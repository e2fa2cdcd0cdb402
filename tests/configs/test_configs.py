"""Every config and every size of it admits and builds, without an array."""

import pathlib
import re

import jax
import pytest

from configs import base
from configs.layouts import LAYOUTS
from lab.core.errors import LabError
from lab.launch.door import ROOT, load_config
from lab.launch.sweep import load_sweep
from lab.models import families

CONFIGS = sorted(p.stem for p in (ROOT / "configs").glob("*.py"))
OTHERS = ("__init__", "base", "layouts", "recipes")
FAMILY_CONFIGS = [name for name in CONFIGS if name not in OTHERS]
TOKENS = {  # of a family, as small as its published ones are large
    "mar": families.Codes(vocabulary=0, grid=(8, 8, 1), classes=10, channels=16),
    "ar_diffusion": families.Codes(vocabulary=0, grid=(8, 8, 1), classes=10, channels=16),
    "dit": families.Codes(vocabulary=0, grid=(8, 8, 1), classes=10, channels=4),
    "bigr": families.Codes(vocabulary=2, grid=(8, 8, 1), classes=10),
}
PIXELS = families.Codes(vocabulary=16, grid=(8, 8, 3), classes=10)
ENCODER_DECODER = {"model.backbone": "encoder_decoder", "model.decoder_depth": 1}


def test_every_family_has_a_config_and_every_config_a_family():
    assert set(FAMILY_CONFIGS) == set(families.FAMILIES)


@pytest.mark.parametrize(
    ("name", "size"), [(n, s) for n in FAMILY_CONFIGS for s in families.FAMILIES[n].sizes]
)
def test_every_size_admits_and_builds_abstractly(name, size):
    model = abstract(f"configs/{name}.py:{size}", TOKENS.get(name, PIXELS))
    total = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert total == model.parameters().total


def abstract(spec, codes, **overrides):
    run = load_config(spec, overrides)
    make = families.builder(run.model, codes, families.Running(compute_dtype="float32"))
    return jax.eval_shape(make, jax.random.key(0))


@pytest.mark.parametrize("variant", ["S0", "S1", "S2", "S3", "bce", "x0"])
def test_the_variants_of_bigr(variant):
    """AR or masked x categorical or binary, and the ablations of the transcoder."""
    spec = f"configs/bigr.py:{variant}-L"
    codes = families.Codes(vocabulary=2, grid=(16, 16, 1), classes=1000)
    if variant in ("S0", "S1"):
        codes = families.Codes(vocabulary=2**16, grid=(16, 16, 1), classes=1000)
    run, model = load_config(spec, {}), abstract(spec, codes)
    assert run.model.order == ("raster" if variant in ("S0", "S2") else "masked")
    assert ("categorical" in run.model.head) == (variant in ("S0", "S1"))
    assert (run.model.head == "bernoulli") == (variant == "bce")
    assert model.parameters().total > 3e8


@pytest.mark.parametrize(
    ("family", "overrides", "says"),
    [
        ("elm", {"model.head": "bernoulli"}, 'model.head = "bernoulli": takes bits'),
        ("mlm", {"model.backbone": "dit"}, 'backbone "dit" serves joint'),
        ("mlm", {"model.mask_schedule": "none"}, "model.mask_schedule = 'none'"),
        ("mlm", {"model.backbone": "encoder_decoder"}, "model.decoder_depth = 0"),
        ("mlm", {**ENCODER_DECODER, "model.buffer": 0}, "model.buffer = 0"),
        ("elm", {"model.order": "masked"}, "model.mask_schedule = 'none'"),
        ("dit", {"model.order": "raster"}, 'backbone "dit" serves joint'),
        ("dit", {"model.patch": 3}, "must divide the grid of 8 x 8"),
        ("dit", {"model.modulation": "shared"}, "model.modulation = 'shared': of the backbone"),
        ("mar", {"model.qk_norm": True}, "model.qk_norm = True: of the backbone llama only"),
        ("dit", {"model.z_loss": 1e-4}, "model.z_loss = 0.0001: of the heads categorical"),
        ("mar", {}, 'model.embedding = "latents": takes latents'),
        ("elm", {"model.head": "categoric"}, "allowed are bernoulli"),
    ],
)
def test_parts_that_do_not_fit_are_refused(family, overrides, says):
    with pytest.raises(LabError, match=re.escape(says)):
        abstract(f"configs/{family}.py:s3", PIXELS, **overrides)


def test_a_new_composition_is_a_line():
    """AR order x Bernoulli-diffusion head on ELM's blocks."""
    model = abstract(
        "configs/elm.py:s3",
        TOKENS["bigr"],
        **{
            "model.subcodes": 16,
            "model.embedding": "bits",
            "model.head": "bernoulli_diffusion",
            "model.denoiser_depth": 2,
            "model.denoiser_width": 48,
            "model.denoiser_target": "xor",
            "model.diffusion_steps": 64,
        },
    )
    assert type(model.head).__name__ == "BernoulliDiffusionHead"


def test_sizes_of_a_ladder_grow():
    sizes = [s for name, s in families.FAMILIES["elm"].sizes.items() if name.startswith("s")]
    blocks = [s.depth * (4 * s.width**2 + 3 * s.width * s.mlp_hidden) for s in sizes]
    assert blocks == sorted(blocks) and len(set(blocks)) == len(blocks)
    assert all(21 <= s.width / s.depth <= 48 for s in sizes)  # published: 32 to 64


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
