"""The command on a run trained for a moment: files, numbers of images, what is kept, refusals."""

import argparse
import contextlib
import json
import time
import types

import numpy as np
import pytest
from PIL import Image

from lab.core.config import SCANS
from lab.core.errors import LabError
from lab.launch import sample
from lab.launch.sample_job import by_class, hidden_part
from lab.launch.sample_settings import settings_of
from lab.models.orders import Grid, RasterOrder
from lab.sampling.conditions import check_beginning
from tests.launch.commands import TINY, command, only, place, refused, start
from tests.models.worlds import config

HEAVY = ("jax", "flax", "PIL", "rich", "numpy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of 12 tokens an image, the workdir of it."""
    root = tmp_path_factory.mktemp("sample")
    flags = ["--config", "configs/elm.py:s1", *TINY, *place(root)]
    result = command("-m", "lab.launch.train", *flags, "--config.train.duration=6 steps")
    assert result.returncode == 0, result.stderr
    return root


def run_of(folder):
    return only(folder, "runs/*/*")


def sampled(folder, out, *arguments):
    return command("-m", "lab.launch.sample", run_of(folder), "--out", out, *arguments)


def test_help_loads_nothing_heavy():
    result = command("-X", "importtime", "-m", "lab.launch.sample", "--help")
    assert result.returncode == 0 and "--guidance" in result.stdout
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines}
    assert lines and not loaded & set(HEAVY)


def test_images_are_written_and_do_not_depend_on_what_else_is_drawn(folder):
    result = sampled(
        folder,
        folder / "all",
        *("--classes", "0", "3", "1", "--per-class", "3", "--guidance", "2"),
        *("--schedule", "linear", "--top-k", "20", "--batch", "4"),
    )
    assert result.returncode == 0, result.stderr
    assert "next: python -m lab.launch.sample" in result.stdout and "distinct" in result.stdout
    found = np.load(folder / "all" / "samples.npz")
    assert found["images"].shape == (9, 2, 2, 3) and found["images"].dtype == np.uint8
    assert found["tokens"].shape == (9, 12, 1)
    assert found["classes"].tolist() == [0, 0, 0, 3, 3, 3, 1, 1, 1]
    assert found["numbers"].tolist() == [0, 10, 20, 3, 13, 23, 1, 11, 21]
    about = json.loads(str(found["settings"]))
    assert about["settings"]["guidance"] == {"scale": 2.0, "schedule": "linear"}
    assert about["step"] == 6 and about["weights"] == "raw" and about["images"] == 9
    with Image.open(folder / "all" / "samples.png") as picture:
        assert picture.size == (88 + 3 * 68, 4 + 3 * 68)  # a row a class
        shown = np.asarray(picture)[4 + 68 + 10, 88 + 10]  # the first image of class 3
    assert shown.tolist() == found["images"][3, 0, 0].tolist()

    alone = sampled(
        folder,
        folder / "alone",
        *("--classes", "3", "--per-class", "2", "--guidance", "2", "--schedule", "linear"),
        *("--top-k", "20", "--batch", "4", "--json"),
    )
    assert json.loads(alone.stdout)["images"] == 2
    again = np.load(folder / "alone" / "samples.npz")
    np.testing.assert_array_equal(again["images"], found["images"][3:5])
    other = sampled(folder, folder / "other", "--classes", "3", "--per-class", "2", "--seed", "1")
    assert other.returncode == 0
    assert (np.load(folder / "other" / "samples.npz")["tokens"] != again["tokens"]).any()


def test_the_top_of_images_is_kept_and_the_rest_drawn(folder):
    result = sampled(
        folder,
        folder / "kept",
        *("--keep", "top:0.5", "--of", "validation", "--images", "4", "2", "--per-class", "3"),
    )
    assert result.returncode == 0, result.stderr
    found = np.load(folder / "kept" / "samples.npz")
    originals = found["originals"]
    assert originals.shape == (2, 2, 2, 3) and found["images"].shape == (6, 2, 2, 3)
    for at, image in enumerate(found["images"]):
        np.testing.assert_array_equal(image[0], originals[at // 3][0])
    lower = found["images"][:, 1].reshape(6, -1)
    assert len(np.unique(lower, axis=0)) == 6
    with Image.open(folder / "kept" / "samples.png") as picture:
        assert picture.size[0] == 88 + 5 * 68


def test_what_cannot_be_drawn_is_refused_in_one_line(folder, tmp_path):
    refused(sampled(folder, tmp_path, "--classes", "10"), "--classes 10", "classes 0 to 9")
    refused(sampled(folder, tmp_path, "--order", "random"), "--order random", "masked order")
    refused(sampled(folder, tmp_path, "--weights", "ema"), "kept no average", "raw")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text((run_of(folder) / "config.json").read_text())
    result = command("-m", "lab.launch.sample", unfinished, "--out", tmp_path / "x")
    refused(result, str(unfinished), "not trained to its end")
    assert not (tmp_path / "x").exists()


def test_eight_devices_draw_the_images_of_one(folder):
    import jax

    from lab.launch.sample_job import draw
    from lab.tokenizers.pixels import Pixels
    from lab.train.trained_generator import find_trained

    trained = find_trained(run_of(folder))
    tokenizer = Pixels(resolution=2, channels="rgb", levels=trained.run.tokenizer.levels)
    settings = settings_of(flags_of(guidance=1.5), trained.run.model, 12)

    def images(devices):
        return draw(
            trained,
            tokenizer,
            by_class(range(5), 2, trained.classes),
            settings,
            seed=0,
            batch=8,
            progress=lambda done, total: None,
            should_stop=lambda: False,
            devices=jax.devices()[:devices],
        ).images

    np.testing.assert_array_equal(images(8), images(1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--per-class", "0"], ["--per-class 0", "1 to"]),
        (["--seed", "-1"], ["--seed -1", "0 to"]),
        (["--seed", str(2**40)], ["--seed 1099511627776", "0 to 2147483647"]),
        (["--keep", "top:0.5"], ["--of, --images not given"]),
        (["--classes", "1", "1"], ["--classes 1", "given twice"]),
        (["--schedule", "cosine"], ["--schedule", "invalid choice"]),
        (["--config.seed=1"], ["--config.seed", "no config"]),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_loaded(tmp_path, arguments, words):
    with pytest.raises(LabError) as caught:
        sample.main([str(tmp_path), "--out", str(tmp_path / "x"), *arguments])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def flags_of(**given):
    names = (
        "guidance schedule temperature top_k top_p rounds order gumbel gumbel_change remask pace"
    )
    empty = dict.fromkeys([*names.split(), "steps", "method"])
    return argparse.Namespace(**{**empty, **given})


DROPPED = {"model.class_dropout": 0.1}
MODELS = {
    "elm": ("s1", "elm", DROPPED),
    "untaught": ("s1", "elm", {}),
    "mlm": ("s1", "mlm", DROPPED),
    "bigr": ("s1", "bigr", DROPPED),
    "mar": ("s1", "mar", DROPPED),
    "dit": ("s1", "dit", DROPPED),
}


def model_of(name):
    size, family, overrides = MODELS[name]
    return config(size, family, **overrides).model


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("dit", {"top_k": 5}, ["--top-k 5", "no codes"]),
        ("bigr", {"top_p": 0.5}, ["--top-p 0.5", "no codes"]),
        ("elm", {"rounds": 5}, ["--rounds 5", "masked order"]),
        ("elm", {"steps": 5}, ["--steps 5", "no diffusion"]),
        ("mlm", {"method": "ddim"}, ["--method ddim", "whole images"]),
        ("dit", {"method": "heun", "temperature": 0.5}, ["--temperature 0.5", "no noise"]),
        ("mlm", {"order": "raster", "gumbel": 1.0}, ["--gumbel 1.0", "confidence or certainty"]),
        ("mlm", {"order": "random", "remask": True}, ["--remask", "confidence or certainty"]),
        ("mar", {"order": "confidence"}, ["--order confidence", "random, raster"]),
        ("elm", {"schedule": "linear"}, ["--schedule linear", "--guidance"]),
        ("untaught", {"guidance": 2.0}, ["--guidance 2.0", "null class"]),
        ("mlm", {"rounds": 17}, ["--rounds 17", "16 positions"]),
        ("bigr", {"steps": 257}, ["--steps 257", "256"]),
        ("elm", {"temperature": 0.0}, ["temperature 0.0"]),
    ],
)
def test_options_that_mean_nothing_to_a_family_are_refused(name, given, words):
    with pytest.raises(LabError) as caught:
        settings_of(flags_of(**given), model_of(name), 16)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_is_not_given_is_as_published():
    mlm, bigr, mar, dit = (
        settings_of(flags_of(), model_of(name), 256) for name in ("mlm", "bigr", "mar", "dit")
    )
    assert (mlm.unmasking.rounds, mlm.unmasking.gumbel, mlm.unmasking.gumbel_change) == (
        *(12, 4.5),
        "down",
    )
    assert (bigr.unmasking.rounds, bigr.drawing.steps) == (20, 100)
    assert bigr.unmasking.gumbel_change == "constant"
    assert (mar.unmasking.ranking, mar.unmasking.pace) == ("random", "unmasked")
    assert (mar.unmasking.rounds, mar.unmasking.gumbel) == (64, 0.0)
    assert (dit.drawing.steps, dit.method) == (250, "ddpm")
    given = settings_of(flags_of(order="raster", rounds=0, guidance=3.0), model_of("mlm"), 256)
    assert given.unmasking.rounds == 0 and given.unmasking.gumbel == 0.0
    assert given.guidance.scale == 3.0


def test_a_kept_side_is_its_cells():
    hidden = hidden_part("left:0.5", (2, 4, 3)).reshape(2, 4, 3)
    assert not hidden[:, :2].any() and hidden[:, 2:].all()
    assert hidden_part("top:0.25", (4, 1, 1)).tolist() == [False, True, True, True]
    assert hidden_part("bottom:0.3", (4, 1, 1)).tolist() == [True, True, True, False]
    assert hidden_part("right:0.75", (1, 4, 1)).tolist() == [True, False, False, False]
    for wrong in ("top", "top:x", "top:0", "top:1", "middle:0.5", "top:0.05"):
        with pytest.raises(LabError, match=f"--keep {wrong}"):
            hidden_part(wrong, (4, 4, 1))


@pytest.mark.parametrize("grid", [(4, 4, 1), (3, 2, 3), (1, 6, 1)])
@pytest.mark.parametrize("scan", SCANS)
def test_a_side_can_be_kept_where_it_begins_the_scan_of_a_model(scan, grid):
    """As the sampler itself decides."""
    model = config(**{"model.scan": scan}).model
    order = RasterOrder(grid=Grid(*grid), rotary_base=1e4, embedding_dropout=0.0, scan=scan)
    for share in ("0.25", "0.5", "0.75"):
        taken = set()
        for side in sample.SIDES:
            with contextlib.suppress(LabError):
                check_beginning(hidden_part(f"{side}:{share}", grid)[None], order)
                taken.add(side)
        if scan != "any":
            assert set(sample.sides_kept(model, grid, share)) == taken
        else:
            assert taken <= set(sample.SIDES) == set(sample.sides_kept(model, grid, share))


def test_the_hint_is_of_a_side_that_can_be_kept():
    flags = argparse.Namespace(run="r", keep=None, seed=0, out="o")
    for scan, side in (("rows", "top"), ("columns", "left"), ("hilbert", "left"), ("any", "top")):
        model = config(**{"model.scan": scan}).model
        trained = types.SimpleNamespace(run=types.SimpleNamespace(model=model))
        assert f"--keep {side}:0.5" in sample.next_command(flags, trained, (4, 4, 1))
    spiral = config(**{"model.scan": "spiral"}).model
    trained = types.SimpleNamespace(run=types.SimpleNamespace(model=spiral))
    assert sample.next_command(flags, trained, (4, 4, 1)).endswith("--seed 1 --out o-1")


def test_numbers_of_images_are_all_different_and_of_their_class():
    wanted = by_class([2, 0], 3, 5)
    assert wanted.number_N.tolist() == [2, 7, 12, 0, 5, 10]
    assert (wanted.number_N % 5 == wanted.class_N).all()


def test_an_interrupt_leaves_nothing_behind(folder):
    out = folder / "interrupted"
    process = start(
        *("-m", "lab.launch.sample", run_of(folder), "--out", out),
        *("--classes", "0", "--per-class", "2000000", "--batch", "16"),
    )
    time.sleep(6)
    process.send_signal(2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75 and "Traceback" not in errors, errors
    assert not out.exists()


def test_a_config_that_was_changed_or_is_of_a_tokenizer_is_refused(folder, tmp_path):
    from configs.tokenizers.binary import get_config
    from lab.train.trained_generator import find_trained

    document = json.loads((run_of(folder) / "config.json").read_text())
    document["config"]["seed"] += 1
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(LabError, match="its fields give the identity"):
        find_trained(tmp_path)
    document["config"] = get_config("small-16").to_dict()
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(LabError, match="a tokenizer's run"):
        find_trained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LabError, match="not a config of this laboratory"):
        find_trained(tmp_path)
