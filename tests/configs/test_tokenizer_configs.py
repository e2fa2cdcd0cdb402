"""Every tokenizer's config, at every size, admits and builds without an array; published counts."""

import jax
import pytest

from configs.tokenizers import binary, vqgan
from lab.launch.door import load_config
from lab.tokenizers.build import autoencoder_builder, autoencoder_counts

SIZES = {
    "vqgan": [*vqgan.TAMING, *vqgan.LLAMAGEN, "small", "small-l2", "small-restart"],
    "binary": [*map(str, binary.BITS), "small-16", "small-20", "24-rounded", "small-16-rounded"],
    "kl": ["sd-f8", "mar-f16", "small"],
}
# Parameters of encoder, code and decoder. "72M" (LlamaGen's README) and 83,653,863 (the published
# file of Stable Diffusion's autoencoder) are stated by others.
PUBLISHED = {
    ("vqgan", "llamagen-f16"): (72e6, 0.5e6),
    ("vqgan", "llamagen-f8"): (70e6, 0.5e6),
    ("kl", "sd-f8"): (83_653_863, 0),
}


def loaded(name, size):
    file = {"losses.perceptual_file": "vgg.safetensors"}  # not read before a job is made
    return load_config(f"configs/tokenizers/{name}.py:{size}", file)


@pytest.mark.parametrize(("name", "size"), [(n, s) for n, sizes in SIZES.items() for s in sizes])
def test_every_size_admits_builds_and_counts(name, size):
    run = loaded(name, size)
    model = jax.eval_shape(autoencoder_builder(run, compute_dtype="float32"), jax.random.key(0))
    total = sum(leaf.size for leaf in jax.tree.leaves(model))
    counts = autoencoder_counts(run, model.bottleneck)
    assert sum(counts.parameters.values()) == total
    if (name, size) in PUBLISHED:
        published, slack = PUBLISHED[name, size]
        assert abs(total - published) <= slack
    codes = jax.eval_shape(
        lambda m, x: m.encode(x, None),
        model,
        jax.ShapeDtypeStruct((1, run.images.resolution, run.images.resolution, 3), "float32"),
    )
    side = run.images.resolution // model.downscale
    assert codes.shape[:3] == (1, side, side)


def test_f16_of_256_pixels_has_the_published_grid():
    for name, size, side in [("vqgan", "f16-1024", 16), ("kl", "sd-f8", 32), ("binary", "24", 16)]:
        run = loaded(name, size)
        model = jax.eval_shape(autoencoder_builder(run, compute_dtype="float32"), jax.random.key(0))
        assert run.images.resolution // model.downscale == side
