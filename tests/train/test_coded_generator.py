"""A generator on a trained tokenizer: from a table, from codes on disk and on the fly, the same."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.layouts import LAYOUTS
from lab.core.config import identity
from lab.core.errors import LabError
from lab.core.keys import Stream
from lab.core.layout import make_layout
from lab.data.batches import Batches
from lab.data.code_format import Codes, CodeSet, DataFacts, TokenizerFacts
from lab.data.code_shards import CodeShards
from lab.data.tokens import Rows, TokenTable, ViewedRows
from lab.launch.runner import write_config
from lab.tokenizers.code_rows import CodeRows, open_code_rows
from lab.tokenizers.trained import SplitTokenizer, open_tokenizer
from lab.train.generator_job import GeneratorJob
from lab.train.job import Images, Split
from lab.train.loop import Status
from tests.data.code_sets import plan, write
from tests.models.worlds import config
from tests.train.jobs import losses, record, train
from tests.train.tokenizer_jobs import job, split

SUBCODES = 2
FRAMES = {"train": split(48, seed=3), "validation": split(21, seed=4)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    made = job(
        tmp_path_factory.mktemp("tokenizer"),
        "binary",
        devices=1,
        **{"train.duration": "6 steps", "train.evaluate_every_steps": 0},
    )
    train(made)
    write_config(made.directory, made.run)
    return open_tokenizer(made.directory)


def images(name):
    return FRAMES[name].rows.tokens.reshape(-1, 16, 16, 3)


def table(tokenizer, name, *, mirrored=False):
    frames = images(name)[:, :, ::-1] if mirrored else images(name)
    return TokenTable(Rows(tokenizer.encode(frames), FRAMES[name].rows.labels))


def coded(tokenizer, name, directory, *, views="none"):
    """What lab.launch.encode would have written, in `directory`."""
    frames = [images(name), images(name)[:, :, ::-1]][: 1 if views == "none" else 2]
    codes = np.stack([tokenizer.trained.encode_frames(f) for f in frames], axis=1)
    labels = FRAMES[name].rows.labels
    what = CodeSet(
        tokenizer=TokenizerFacts(identity=tokenizer.trained.identity, name="tiny"),
        data=DataFacts(name="made_up", split=name, digest="0", examples=len(labels), classes=3),
        alphabet=tokenizer.trained.alphabet,
        grid=tokenizer.trained.grid,
        views=views,
        dims_per_image=768,
    )
    write(directory, Codes(codes, labels), plan(what))
    return CodeShards(directory)


def generator(place, tokenizer, rows, *, devices=1, **overrides):
    run = config(
        "s1",
        **{
            "execution.workdir": str(place),
            "tokenizer.name": "trained",
            "tokenizer.run": str(tokenizer.trained.run_identity),
            "tokenizer.trained": tokenizer.trained.run_identity,
            "model.subcodes": SUBCODES,
            "train.batch_size": 8,
            "train.evaluation_batch_size": 8,
            "train.duration": "6 steps",
            "train.log_every_steps": 1,
            "train.evaluate_every_steps": 3,
            "optimizer.warmup": "2 steps",
            **overrides,
        },
    )
    parts = {
        name: Split(rows=r, name="made_up", digest=name, classes=3) for name, r in rows.items()
    }
    layout = make_layout("ddp", LAYOUTS, jax.devices()[:devices])
    made = GeneratorJob(run, layout=layout, tokenizer=tokenizer, images=Images(**parts))
    made.directory.mkdir(parents=True, exist_ok=True)
    return made


def test_table_codes_and_on_the_fly_give_the_same_run(tmp_path, trained):
    tokenizer = SplitTokenizer(trained, subcodes=SUBCODES)
    ways = {
        "table": {n: table(tokenizer, n) for n in FRAMES},
        "codes": {
            n: CodeRows(
                coded(tokenizer, n, tmp_path / n), tokenizer, examples=0, augmentation="none"
            )
            for n in FRAMES
        },
        "fly": {n: FRAMES[n].rows for n in FRAMES},
    }
    records = {}
    for way, rows in ways.items():
        made = generator(tmp_path / way, tokenizer, rows)
        assert train(made).status is Status.FINISHED
        records[way] = record(made)
    assert records["codes"] == records["table"]
    assert records["fly"] == records["table"]


def test_mirrors_from_codes_are_those_of_a_table(tmp_path, trained):
    tokenizer = SplitTokenizer(trained, subcodes=SUBCODES)
    both = ViewedRows([table(tokenizer, "train", mirrored=m) for m in (False, True)])
    shards = coded(tokenizer, "train", tmp_path / "flip", views="flip")
    rows = CodeRows(shards, tokenizer, examples=0, augmentation="flip")
    loaded = open_code_rows(shards, tokenizer, examples=0, augmentation="flip")
    assert isinstance(loaded, ViewedRows)
    one, other, third = (Batches(r, seed=0, batch_size=12) for r in (both, rows, loaded))
    plain = Batches(table(tokenizer, "train"), seed=0, batch_size=12)
    differs = 0
    for step in range(6):
        np.testing.assert_array_equal(one.at(step)["tokens"], other.at(step)["tokens"])
        np.testing.assert_array_equal(one.at(step)["tokens"], third.at(step)["tokens"])
        rows_differ = np.any(one.at(step)["tokens"] != plain.at(step)["tokens"], axis=1)
        differs += int(rows_differ.sum())
    assert 15 < differs < 57  # of 72 about half are mirrored
    with pytest.raises(LabError, match="holds the views flip"):
        CodeRows(shards, tokenizer, examples=0, augmentation="ten_crop")
    with pytest.raises(LabError, match="49 examples are not there"):
        CodeRows(shards, tokenizer, examples=49, augmentation="none")


def test_drawn_bits_are_new_each_step_and_the_same_for_every_evaluation(tmp_path, trained):
    tokenizer = SplitTokenizer(trained, subcodes=SUBCODES, sampled=True)
    rows = {n: FRAMES[n].rows for n in FRAMES}
    drawn = {"tokenizer.sampled": True}
    made = generator(tmp_path, tokenizer, rows, **drawn)
    batch = made.train_batches().at(0)
    codes = [np.asarray(made.place(batch, Stream.TRAIN, step)["codes"]) for step in (0, 0, 1)]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert (codes[0] != codes[2]).any()
    seeds = [generator(tmp_path, tokenizer, rows, seed=s, **drawn) for s in (0, 1)]
    seen = [
        [np.asarray(placed["codes"]) for placed, _ in each.validation_batches()] for each in seeds
    ]
    for a, b in zip(*seen, strict=True):
        np.testing.assert_array_equal(a, b)
    larger = generator(tmp_path, tokenizer, rows, **drawn, **{"train.evaluation_batch_size": 24})
    whole = next(iter(larger.validation_batches()))[0]["codes"][:21]
    np.testing.assert_array_equal(np.concatenate(seen[0])[:21], np.asarray(whole))


def test_a_run_on_drawn_bits_resumes_exactly_and_is_the_same_on_eight_devices(tmp_path, trained):
    tokenizer = SplitTokenizer(trained, subcodes=SUBCODES, sampled=True)
    rows = {n: FRAMES[n].rows for n in FRAMES}
    drawn = {"tokenizer.sampled": True}
    straight = generator(tmp_path / "a", tokenizer, rows, **drawn)
    train(straight)
    cut = generator(tmp_path / "b", tokenizer, rows, **drawn)
    assert train(cut, stop_at=4).status is Status.INTERRUPTED
    again = generator(tmp_path / "b", tokenizer, rows, **drawn)
    train(again)
    assert record(again) == record(straight)
    many = generator(tmp_path / "c", tokenizer, rows, devices=8, **drawn)
    train(many)
    np.testing.assert_allclose(losses(many), losses(straight), rtol=1e-4)


def test_the_identity_holds_the_tokenizer_and_the_drawing_but_no_folder(tmp_path, trained):
    tokenizer = SplitTokenizer(trained, subcodes=SUBCODES)
    run = generator(tmp_path, tokenizer, {n: table(tokenizer, n) for n in FRAMES}).run

    def with_tokenizer(**fields):
        return identity(
            dataclasses.replace(run, tokenizer=dataclasses.replace(run.tokenizer, **fields))
        )

    assert with_tokenizer(run="elsewhere/x", codes="codes") == identity(run)
    assert with_tokenizer(trained="0" * 12) != identity(run)
    assert with_tokenizer(sampled=True) != identity(run)
