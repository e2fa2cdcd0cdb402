"""From a config to a job: what a generator on codes needs, and what is refused in one line."""

import jax
import numpy as np
import pytest

from configs.layouts import LAYOUTS
from lab.core.codes import Alphabet, CodeKind
from lab.core.errors import LabError
from lab.core.layout import make_layout
from lab.data.code_format import Codes, CodeSet, DataFacts, TokenizerFacts
from lab.launch import jobs
from lab.launch.runner import write_config
from tests.data.code_sets import plan, write
from tests.models.worlds import config
from tests.train.jobs import train
from tests.train.tokenizer_jobs import job, split

SHORT = {"train.duration": "6 steps", "train.evaluate_every_steps": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run directory of a tiny binary tokenizer."""
    made = job(tmp_path_factory.mktemp("tokenizer"), "binary", devices=1, **SHORT)
    train(made)
    write_config(made.directory, made.run)
    return made.directory


def coded(directory, *, identity, data="eurosat/rgb/1.0.0", of="train", views="none"):
    """A folder of random codes that says what it is of."""
    count = {"none": 1, "ten_crop": 10}[views]
    bits = np.random.default_rng(0).integers(0, 2, (9, count, 8, 8, 6)).astype(np.uint8)
    what = CodeSet(
        tokenizer=TokenizerFacts(identity=identity, name="tiny"),
        data=DataFacts(name=data, split=of, digest="ab", examples=9, classes=3),
        alphabet=Alphabet(CodeKind.BITS, 6),
        grid=(8, 8),
        views=views,
        dims_per_image=768,
    )
    write(directory, Codes(bits, split(9, seed=1).rows.labels), plan(what))


def made(folder, codes="", watch=lambda preparing: None, **overrides):
    """The job of a generator on the tokenizer of a run directory."""
    run = config(
        "s1",
        **{
            "data.name": "eurosat",
            "data.validation_examples": 5,
            "train.duration": "30 steps",
            "tokenizer.name": "trained",
            "tokenizer.run": str(folder),
            "tokenizer.trained": folder.name,
            "tokenizer.codes": str(codes),
            "model.subcodes": 2,
            **overrides,
        },
    )
    layout = make_layout("ddp", LAYOUTS, jax.devices()[:1])
    return jobs.generator_job(run, layout, watch)


def test_a_generator_on_codes_has_their_sizes(folder, tmp_path):
    identity = jobs.opened(str(folder)).identity
    for name in ("train", "validation"):
        coded(tmp_path / name, identity=identity, of=name)
    found = made(folder, tmp_path)
    assert (found.spec.vocabulary, found.spec.tokens_per_image) == (8, 64)
    header = found.header()
    assert header["data"]["digest"] == "ab-ab:5"
    assert header["tokenizer"]["identity"] == f"{identity}:2"
    with pytest.raises(LabError, match="allowed sub-codes are 1, 2, 3, 6"):
        made(folder, tmp_path, **{"model.subcodes": 4})
    with pytest.raises(LabError, match="10 examples are not there"):
        made(folder, tmp_path, **{"data.train_examples": 10})


def test_whoever_waits_is_told_of_codes_and_of_tokens_of_each_split(folder, tmp_path):
    for name in ("train", "validation"):
        coded(tmp_path / name, identity=jobs.opened(str(folder)).identity, of=name)
    told = []
    made(folder, tmp_path, watch=told.append)
    assert {preparing.what: (preparing.done, preparing.total) for preparing in told} == {
        "train codes": (9, 9),
        "train codes to tokens": (9, 9),
        "validation codes": (9, 9),
        "validation codes to tokens": (5, 5),
    }


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"identity": "binary/1:0:raw:1"}, "codes of tokenizer binary/1:0:raw:1"),
        ({"data": "fashion_mnist/1.0.0"}, "not of eurosat"),
        ({"of": "test"}, "codes of the split test"),
        ({"views": "ten_crop"}, "the image itself not among them"),
    ],
)
def test_codes_of_something_else_are_refused(folder, tmp_path, wrong, words):
    identity = jobs.opened(str(folder)).identity
    coded(tmp_path / "train", **{"identity": identity, **wrong})
    coded(tmp_path / "validation", identity=identity, of="validation")
    with pytest.raises(LabError, match=words):
        made(folder, tmp_path)


def test_a_missing_split_and_a_missing_run_are_refused(folder, tmp_path):
    identity = jobs.opened(str(folder)).identity
    coded(tmp_path / "train", identity=identity)
    with pytest.raises(LabError, match="validation: no such folder"):
        made(folder, tmp_path)
    with pytest.raises(LabError, match="config.tokenizer.run"):
        made(folder, tmp_path, **{"tokenizer.run": ""})
    moved = tmp_path / "0123456789ab"
    moved.symlink_to(folder)
    with pytest.raises(LabError, match=f"holds the run {folder.name}"):
        made(moved, tmp_path)
