"""The encode job with the networks of lab/tokenizers, at parameters drawn at random."""

import jax
import numpy as np
import pytest

from lab.core.codes import CodeKind, bits_to_subcodes
from lab.data.code_shards import CodeShards
from lab.data.sources import open_source
from lab.launch.door import load_config
from lab.launch.encode_job import EncodeJob, Hooks, Share, plan_of
from lab.tokenizers.build import autoencoder_builder
from lab.tokenizers.trained import SplitTokenizer, TrainedTokenizer
from tests.data.code_sets import contents

TINY = {
    "autoencoder.width": 8,
    "autoencoder.multipliers": "1-1",
    "autoencoder.residual_blocks": 1,
    "autoencoder.decoder_blocks": 1,
    "autoencoder.latent_channels": 8,
    "autoencoder.groups": 4,
    "images.resolution": 8,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    return open_source("dead_leaves", split="train", examples=75, data_dir=folder)


def tokenizer(config, *, devices):
    run = load_config(config, TINY)
    make = autoencoder_builder(run, compute_dtype="float32")
    rng = np.random.default_rng(0)  # initial parameters take seconds to compile
    params = jax.tree.map(
        lambda leaf: rng.normal(scale=0.4, size=leaf.shape).astype(leaf.dtype),
        jax.eval_shape(make, jax.random.key(0)),
    )
    chosen = jax.devices()[:devices]
    return TrainedTokenizer(
        run, params, weights="raw", digest="0" * 64, latent_std=None, devices=chosen
    )


def encode(source, config, out, *, devices, share=None):
    made = tokenizer(config, devices=devices)
    plan = plan_of(source, made, views="flip", shards=2, command="")
    hooks = Hooks(should_stop=lambda: False, progress=lambda *_: None, warn=print)
    share = share or Share()
    EncodeJob(source, made, plan, out, share=share, devices=devices, hooks=hooks).run()
    return made


@pytest.mark.parametrize(
    "config",
    [
        "configs/tokenizers/binary.py:small-16",
        "configs/tokenizers/vqgan.py:small",
        "configs/tokenizers/kl.py:small",
    ],
)
def test_shards_are_those_of_one_device_and_agree_with_encoding_on_the_fly(
    source, tmp_path, config
):
    trained = encode(source, config, tmp_path / "one", devices=1)
    encode(source, config, tmp_path / "eight", devices=8, share=Share(1, 2))
    encode(source, config, tmp_path / "eight", devices=2, share=Share(0, 2))
    assert contents(tmp_path / "one") == contents(tmp_path / "eight")
    shards = CodeShards(tmp_path / "one")
    images = np.stack([example["image"] for example in source.read(range(75))])
    frames = trained.frames.encode(images).reshape(-1, *trained.image_shape)
    # A row's place in a batch may decide how its products are rounded, on some processors.
    tolerance = 1e-5 if trained.alphabet.kind is CodeKind.GAUSSIAN else 0
    for view, seen in enumerate((frames, frames[:, :, ::-1])):
        kept, made = shards.rows(range(75), view).codes, trained.encode_frames(seen)
        np.testing.assert_allclose(kept, made, rtol=0, atol=tolerance * np.abs(made).max())
    assert len(np.unique(shards.rows(range(75)).codes)) > 1
    if trained.alphabet.kind is CodeKind.BITS:
        split = SplitTokenizer(trained, subcodes=2)
        tokens = bits_to_subcodes(shards.rows(range(75)).codes, 2).reshape(75, -1)
        assert (split.encode(images) == tokens).all()
