"""Unique tokens: what a record says of its data becomes U, and nothing is guessed."""

import json

import pytest

from analysis import AnalysisError, fit, read_runs
from analysis.__main__ import main
from tests.analysis.conftest import TOKENS_PER_IMAGE, write_run

DATA = {"name": "eurosat", "digest": "t1-v1"}


def repeated(study, *, n, epochs, images=100, **data):
    tokens = int(epochs * images * TOKENS_PER_IMAGE)
    tokens -= tokens % 320
    found = DATA | {"train_examples": images, "validation_examples": 64} | data
    return write_run(study, n=n, tokens=tokens, changes={"data": found})


def test_unique_tokens_are_those_of_all_images_or_of_a_run_that_ends_before(tmp_path):
    repeated(tmp_path, n=1000, epochs=4)
    repeated(tmp_path, n=1000, epochs=0.5)
    table = read_runs(tmp_path)
    seen, unique = table.variable("D"), table.variable("U")
    assert unique[0] == seen[0] < 100 * TOKENS_PER_IMAGE
    assert unique[1] == 100 * TOKENS_PER_IMAGE < seen[1]


def test_records_that_do_not_name_their_images_have_no_column_and_no_law_of_it(ladder):
    assert "U_tokens" not in read_runs(ladder).runs
    with pytest.raises(AnalysisError, match="no variable 'U' .unique tokens.: a record says it"):
        fit("repeats", read_runs(ladder))


def test_one_record_that_does_not_say_it_leaves_the_column_out_and_where_brings_it_back(tmp_path):
    repeated(tmp_path, n=1000, epochs=4)
    write_run(tmp_path, n=2000, name="silent", changes={"data": DATA})
    assert "U_tokens" not in read_runs(tmp_path).runs
    assert "U_tokens" in read_runs(tmp_path, where={"name": "n1000"}).runs


def test_augmented_images_have_other_tokens_every_time(tmp_path):
    run = repeated(tmp_path, n=1000, epochs=4)
    config = json.loads((run / "config.json").read_text())
    config["config"] = {"data": {"augmentation": "flip", "train_examples": 100}}
    (run / "config.json").write_text(json.dumps(config))
    assert "U_tokens" not in read_runs(tmp_path).runs


def test_numbers_of_images_may_differ_in_a_law_of_unique_tokens_alone(tmp_path):
    for images, digest in ((100, "t1-v1"), (200, "t2-v1")):
        repeated(tmp_path, n=1000, epochs=4, images=images, digest=digest)
    assert len(read_runs(tmp_path, unique_varies=True)) == 2
    with pytest.raises(AnalysisError, match="data digests differ"):
        read_runs(tmp_path)


def test_other_validation_images_are_refused_all_the_same(tmp_path):
    for images, digest in ((100, "t1-v1"), (200, "t2-v2")):
        repeated(tmp_path, n=1000, epochs=4, images=images, digest=digest)
    with pytest.raises(AnalysisError, match="data digests differ"):
        read_runs(tmp_path, unique_varies=True)


def test_the_digest_holds_unique_tokens_only_where_data_were_repeated(ladder, tmp_path, rewrite):
    before = read_runs(ladder).digest

    def named(rows):
        rows[0]["data"]["train_examples"] = 10**6
        return rows

    for run in ladder.iterdir():
        rewrite(run, named)
    assert "U_tokens" in read_runs(ladder).runs and read_runs(ladder).digest == before

    def fewer(rows):
        rows[0]["data"]["train_examples"] = 100
        return rows

    for run in ladder.iterdir():
        rewrite(run, fewer)
    assert read_runs(ladder).digest != before


def test_the_command_reads_runs_of_other_numbers_of_images(tmp_path, capsys):
    for images, digest in ((100, "t1-v1"), (300, "t2-v1")):
        for n in (1000, 2000):
            for epochs in (1, 2, 4):
                repeated(tmp_path, n=n, epochs=epochs, images=images, digest=digest)
    assert main(["fit", str(tmp_path), "--form", "repeats"]) == 0
    assert "12 runs" in (said := capsys.readouterr().out) and "2 values of N" in said
    assert main(["fit", str(tmp_path), "--form", "separable"]) == 2


def test_a_known_exponent_lowers_the_number_of_sizes_that_a_law_of_repeats_needs(tmp_path):
    for n in (1000, 2000):
        for epochs in (1, 2, 4, 8, 16):
            repeated(tmp_path, n=n, epochs=epochs)
    table = read_runs(tmp_path)
    assert "2 values of N" in fit("repeats", table).reason
    assert "values of N" not in fit("repeats", table, pinned={"a": 0.3}, draws=1).reason
