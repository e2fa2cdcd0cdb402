"""Published weights become a run that encode and generators open."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from lab.core.digest import named_leaves
from lab.core.errors import ExitCode, LabError
from lab.launch import adopt
from lab.tokenizers.build import autoencoder_builder, network_spec
from lab.tokenizers.names import taming_vq_names
from lab.tokenizers.trained import open_tokenizer
from tests.train.tokenizer_jobs import TINY, config

ATTENTION = {"autoencoder.attention": "middle", "autoencoder.decoder_attention": "middle"}
FLAGS = {
    **TINY,
    **ATTENTION,
    "code.vocabulary": 32,
    "code.features": 4,
    "data.name": "dead_leaves",
    "data.validation_examples": 20,
    "data.train_examples": 80,
}


def theirs(run):
    """A made-up model, and its arrays under the published names, convolutions turned to OIHW."""
    model = autoencoder_builder(run, compute_dtype="float32")(jax.random.key(3))
    leaves = {k.removesuffix("/value"): np.asarray(v) for k, v in named_leaves(model).items()}
    arrays = {}
    for weight in taming_vq_names(network_spec(run)).names:
        array = leaves[weight.ours.removesuffix("/value")]
        turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        arrays[weight.theirs] = np.ascontiguousarray(turned)
    return model, arrays


def flags(path, tmp_path):
    fields = {**FLAGS, "execution.workdir": tmp_path / "runs", "data.data_dir": tmp_path / "data"}
    return [
        *("--config", "configs/tokenizers/vqgan.py:small", "--names", "taming_vq"),
        *("--weights", str(path)),
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def test_adopted_weights_are_opened_as_a_tokenizer(tmp_path, capsys):
    model, arrays = theirs(config("vq", **ATTENTION))
    path = tmp_path / "weights.safetensors"
    save_file(arrays, path)
    assert adopt.main(flags(path, tmp_path)) is ExitCode.DONE
    said = capsys.readouterr().out
    assert "PSNR" in said and "lab.launch.encode" in said
    (run,) = (tmp_path / "runs" / "tokenizers").iterdir()
    tokenizer = open_tokenizer(run)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    want = model.encode(images.astype(np.float32) / 127.5 - 1)
    assert (tokenizer.encode_frames(images) == np.asarray(want)).mean() > 0.99
    assert (run / "reconstructions.png").exists()
    arrays.popitem()
    save_file(arrays, path)
    with pytest.raises(LabError, match="missing in the file"):
        adopt.main(flags(path, tmp_path))
    assert len(list((tmp_path / "runs" / "tokenizers").glob("*/record.jsonl"))) == 1


def shown(monkeypatch):
    """What the bar is told."""
    from lab.launch.evaluate_bar import EvaluateBar

    told = []
    monkeypatch.setattr(EvaluateBar, "show", lambda self, *given: told.append(given))
    return told


def test_the_bar_is_told_of_reading_preparing_and_judging(tmp_path, monkeypatch):
    told = shown(monkeypatch)
    _, arrays = theirs(config("vq", **ATTENTION))
    save_file(arrays, tmp_path / "weights.safetensors")
    given = flags(tmp_path / "weights.safetensors", tmp_path)
    adopt.main([*given, "--config.train.evaluation_batch_size=8"])
    assert told[0] == ("reading weights.safetensors, 0 MB", 0, None)
    assert any(what.startswith("preparing train") for what, _, _ in told)
    judged = [(done, total) for what, done, total in told if what == "judging, images"]
    assert judged == [(done, 20) for done in (0, 4, 8, 12, 16, 20)]  # three batches, there and back


def test_a_file_that_does_not_fit_is_refused_before_images_are_prepared(tmp_path, monkeypatch):
    told = shown(monkeypatch)
    _, arrays = theirs(config("vq", **ATTENTION))
    arrays.popitem()
    save_file(arrays, tmp_path / "weights.safetensors")
    with pytest.raises(LabError, match="missing in the file"):
        adopt.main(flags(tmp_path / "weights.safetensors", tmp_path))
    assert len(told) == 1 and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--config", "configs/elm.py:s1"], "--config configs/elm.py:s1: that of a tokenizer"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["--weights", "vq.pt"], "vq.pt: no such file"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(tmp_path, change, words):
    given = flags(tmp_path / "weights.safetensors", tmp_path)
    if change[0] == "--config":
        given = [*change, *given[2:6]]
    with pytest.raises(LabError) as caught:
        adopt.main([*given, *change])
    assert words in str(caught.value) and "\n" not in str(caught.value)
