"""Trained tokenizers: opened from run directories, on any devices, and as generators see them."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs.layouts import LAYOUTS
from lab.core.errors import LabError
from lab.core.layout import make_layout
from lab.core.store import Store, tree_sha256
from lab.launch.runner import write_config
from lab.tokenizers.levels import in_unit_range, to_levels
from lab.tokenizers.trained import SplitTokenizer, open_tokenizer
from tests.train.jobs import train
from tests.train.tokenizer_jobs import job, split

SHORT = {
    "train.duration": "6 steps",
    "train.evaluate_every_steps": 0,
    "autoencoder.residual_blocks": 1,
    "autoencoder.decoder_blocks": 1,
}
IMAGES = split(70, seed=5).rows.tokens.reshape(-1, 16, 16, 3)  # 70: no multiple of a batch


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A job of each kind, trained to its end and with its config beside it."""
    made = {}
    for kind in ("vq", "binary", "kl"):
        extra = {"optimizer.ema_decay": 0.5} if kind == "vq" else {}
        made[kind] = job(tmp_path_factory.mktemp(kind), kind, devices=1, **SHORT, **extra)
        train(made[kind])
        write_config(made[kind].directory, made[kind].run)
    return made


@pytest.fixture(scope="module")
def opened(finished):
    """The tokenizers of the jobs, on one device; what they compile is compiled once."""
    return {kind: open_tokenizer(made.directory) for kind, made in finished.items()}


@jax.jit
def encode(model, images):
    return model.encode(images, None)


@jax.jit
def decode(model, codes):
    return to_levels(model.decode(codes))


@jax.jit
def probabilities(model, images):
    return model.bottleneck.probabilities(model._hidden(images))


@pytest.mark.parametrize("kind", ["vq", "binary", "kl"])
def test_codes_and_images_are_those_of_the_final_parameters(finished, opened, kind):
    made = finished[kind]
    with Store(made.directory / "checkpoints", writable=False) as store:
        state = store.restore(made.abstract_state).tree
    params = state["ema"] if kind == "vq" else state["params"]
    images = in_unit_range(IMAGES)
    tokenizer = opened[kind]
    codes = tokenizer.encode_frames(IMAGES)
    want = np.asarray(encode(params, images))
    differ = np.abs(codes.astype(np.float64) - want) > 1e-4  # other batches, other roundings
    assert differ.mean() < 0.002
    assert codes.dtype == tokenizer.alphabet.dtype and codes.shape[:3] == (70, 8, 8)
    seen = tokenizer.decode_codes(codes)
    expected = np.asarray(decode(params, np.asarray(codes).astype(want.dtype)))
    assert np.abs(seen.astype(int) - expected).max() <= 1
    assert tokenizer.weights == ("ema" if kind == "vq" else "raw")
    assert tokenizer.identity.split(":")[1:] == [
        made.identity,
        tokenizer.weights,
        tree_sha256(params)[:12],
    ]
    assert (tokenizer.latent_std is not None) == (kind == "kl")


@pytest.mark.parametrize("kind", ["vq", "binary", "kl"])
def test_codes_do_not_depend_on_devices_or_on_the_rest_of_the_batch(finished, opened, kind):
    alone = opened[kind]
    many = open_tokenizer(finished[kind].directory, devices=jax.devices())
    codes = alone.encode_frames(IMAGES)
    np.testing.assert_array_equal(codes, many.encode_frames(IMAGES))
    np.testing.assert_array_equal(codes, alone.encode_frames(IMAGES))
    np.testing.assert_array_equal(codes[:5], alone.encode_frames(IMAGES[:5]))


@pytest.mark.parametrize(("subcodes", "vocabulary"), [(1, 64), (2, 8), (3, 4), (6, 2)])
def test_bits_fall_into_big_endian_sub_codes(opened, subcodes, vocabulary):
    trained = opened["binary"]
    tokenizer = SplitTokenizer(trained, subcodes=subcodes)
    assert tokenizer.spec.vocabulary == vocabulary
    assert tokenizer.spec.tokens_per_image == 64 and tokenizer.spec.dims_per_image == 768
    tokens = tokenizer.encode(IMAGES[:3]).reshape(3, 64, subcodes)
    bits = trained.encode_frames(IMAGES[:3]).reshape(3, 64, 6)
    for image in range(3):
        for position in range(64):
            text = "".join(str(bit) for bit in bits[image, position])
            each = 6 // subcodes
            want = [int(text[i : i + each], 2) for i in range(0, 6, each)]
            assert tokens[image, position].tolist() == want
    np.testing.assert_array_equal(
        tokenizer.decode(tokens.reshape(3, -1)), trained.decode_codes(bits.reshape(3, 8, 8, 6))
    )


def test_drawn_bits_have_their_probabilities_and_do_not_depend_on_devices(opened):
    tokenizer = SplitTokenizer(opened["binary"], subcodes=6, sampled=True)
    image = IMAGES[:1].reshape(1, -1)
    frames = np.repeat(image, 64, axis=0)
    few, many = (
        tokenizer.encoder_on(make_layout("ddp", LAYOUTS, jax.devices()[:n])) for n in (1, 8)
    )
    drawn = np.concatenate([np.asarray(few(frames, jax.random.key(k), 0)) for k in range(12)])
    params = tokenizer.trained.params
    p = np.asarray(probabilities(params, in_unit_range(IMAGES[:1]))).reshape(64, 6)
    assert 0.02 < p.min() and p.max() < 0.98  # draws can tell
    share, count = drawn.mean(axis=0), len(drawn)
    z = (share - p) / np.sqrt(p * (1 - p) / count)
    assert np.abs(z).max() < 5 and 0.8 < np.mean(z**2) < 1.25  # 384 bits: SE of the mean 0.07
    key = jax.random.key(3)
    np.testing.assert_array_equal(few(frames, key, 0), many(frames, key, 0))
    np.testing.assert_array_equal(
        np.asarray(few(frames, key, 0))[8:], np.asarray(few(frames, key, 8))[:-8]
    )
    rounded = np.asarray(few(frames, None, 0))[0]
    np.testing.assert_array_equal(rounded, (p > 0.5).astype(int))


def test_what_is_no_trained_tokenizer_is_refused(finished, tmp_path):
    made = finished["binary"]

    def copy(name):
        shutil.copytree(made.directory, tmp_path / name)
        return tmp_path / name

    cut = copy("cut")
    lines = (cut / "record.jsonl").read_text().splitlines(keepends=True)
    (cut / "record.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(LabError, match="not trained to its end"):
        open_tokenizer(cut)
    with pytest.raises(LabError, match="config.json: missing"):
        open_tokenizer(tmp_path / "nowhere")
    changed = copy("changed")
    document = json.loads((changed / "config.json").read_text())
    document["config"]["seed"] = 77
    (changed / "config.json").write_text(json.dumps(document))
    with pytest.raises(LabError, match="its fields give the identity"):
        open_tokenizer(changed)
    torn = copy("torn")
    manifest = next(torn.glob("checkpoints/*/manifest.json"))
    manifest.write_text(manifest.read_text().replace('"step"', '"steq"'))
    with pytest.raises(LabError, match="digest differs"):
        open_tokenizer(torn)


def test_what_a_generator_cannot_have_is_refused(opened):
    trained = opened
    with pytest.raises(LabError, match="continuous"):
        SplitTokenizer(trained["kl"], subcodes=1)
    with pytest.raises(LabError, match="one code a position"):
        SplitTokenizer(trained["vq"], subcodes=2)
    with pytest.raises(LabError, match="allowed sub-codes are 1, 2, 3, 6"):
        SplitTokenizer(trained["binary"], subcodes=4)
    with pytest.raises(LabError, match="a token is not in 0 to 31"):
        SplitTokenizer(trained["vq"], subcodes=1).decode(np.full((1, 64), 32))
