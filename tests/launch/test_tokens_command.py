"""The command on folders of codes and texts: table, records, figure, refusals."""

import functools
import json

import numpy as np
import pytest

from lab.core.codes import CodeKind
from lab.core.errors import LabError
from lab.data.code_format import Codes
from lab.launch import tokens as module
from lab.launch.token_table import number
from tests.data.code_sets import code_set, draw, plan, write
from tests.launch.commands import command, refused

HEAVY = ("jax", "flax", "scipy", "tokenizers", "array_record", "matplotlib", "rich")


def folder_of(path, codes, what):
    write(path, codes, plan(what, shards=2))
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of bits with flips, one of ids, one of latents, and a text."""
    root = tmp_path_factory.mktemp("tokens")
    bits = code_set(CodeKind.BITS, 6, examples=200)
    folder_of(root / "bits", draw(bits), bits)
    ids = code_set(CodeKind.IDS, 200, views="none", examples=120)
    folder_of(root / "ids", draw(ids), ids)
    latents = code_set(CodeKind.GAUSSIAN, 4, examples=20)
    folder_of(root / "latents", draw(latents), latents)
    words = np.random.default_rng(0).choice(["kew", "gardens", "alone", "are", "vast"], 4000)
    (root / "words.txt").write_text(" ".join(words))
    return root


def tokens(*arguments):
    return command("-m", "lab.launch.tokens", *arguments)


def test_help_loads_nothing_heavy():
    result = command("-X", "importtime", "-m", "lab.launch.tokens", "--help")
    assert result.returncode == 0 and result.stdout.count("lab.launch.tokens") >= 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines}
    assert lines and not loaded & set(HEAVY)


@pytest.fixture(scope="module")
def outcome(folders):
    """The command over all that can be counted, and its records."""
    known = f"{folders / 'bits'}=1.25"
    result = tokens(
        *(folders / "bits", folders / "ids", "--split-bits", "2", "--text", folders / "words.txt"),
        *("--pieces", "260", "--sampled-bit-entropy", known, "--out", folders / "report"),
    )
    assert result.returncode == 0, result.stderr
    return result, json.loads((folders / "report" / "tokens.json").read_text())


def test_records_are_of_the_very_codes(folders, outcome):
    _, report = outcome
    bits, ids, characters, pieces = report["sources"]
    what = code_set(CodeKind.BITS, 6, examples=200)
    codes = draw(what).codes
    folded = (codes.astype(int) * (1 << np.arange(5, -1, -1))).sum(axis=-1)
    counts = np.bincount(folded.ravel(), minlength=64)
    p = counts[counts > 0] / counts.sum()
    plug_in = bits["unigram"]["by_estimator_nats"]["plug_in"]
    assert plug_in == pytest.approx(-(p * np.log(p)).sum())
    assert bits["units"] == 200 and bits["views"] == 2 and bits["tokens"] == 200 * 2 * 9
    np.testing.assert_allclose(bits["bits"]["bit_means"], codes.reshape(-1, 6).mean(axis=0))
    assert bits["sampled_bit_entropy_nats_per_position"] == 1.25
    assert [part["alphabet"] for part in bits["subcodes"]] == [8, 8]
    pairs = np.stack([folded[..., :-1], folded[..., 1:]], axis=-1).reshape(-1, 2)
    seen = np.unique(pairs, axis=0)
    assert bits["bigram"]["horizontal"]["distinct"] == len(seen)
    assert (ids["alphabet"], ids["bits"], ids["subcodes"]) == (200, None, [])
    assert ids["sampled_bit_entropy_nats_per_position"] is None
    assert characters["alphabet"] == len(set((folders / "words.txt").read_text()))
    assert pieces["alphabet"] == 260 and pieces["grid"] == [1, 256]
    assert report["published_unigram_kl_nats"]["BAE"] == 0.24


def test_the_table_shows_every_source_and_no_number_that_is_not_known(outcome):
    result, report = outcome
    for name in ("bits", "bits [1/2]", "ids", "words, characters", "words, 260 pieces"):
        assert name in result.stdout.replace("\n", "")
    assert "[a, b]: not converged" in result.stdout and "BAE 0.24" in result.stdout
    assert "next: python experiments/02_tokens/figure.py" in result.stdout
    ids = report["sources"][1]["bigram"]["horizontal"]["kl_from_uniform"]
    assert not ids["converged"] and ids["nats"] is None
    assert f"[{ids['low_nats']:.2f}, {ids['high_nats']:.2f}]" in result.stdout
    kl = report["sources"][0]["unigram"]["kl_from_uniform"]
    assert number(kl) in result.stdout and f"{kl['nats']:.3f} ±" in number(kl)


def test_json_is_the_report_and_the_seed_changes_only_the_order(folders, outcome):
    _, report = outcome
    result = tokens(folders / "ids", "--json", "--seed", "7")
    found = json.loads(result.stdout)["sources"][0]["unigram"]["by_estimator_nats"]
    expected = report["sources"][1]["unigram"]["by_estimator_nats"]
    assert found["chao_wang_jost"] == pytest.approx(expected["chao_wang_jost"])
    assert found["jackknife"] != expected["jackknife"]
    fewer = json.loads(tokens(folders / "ids", "--json", "--images", "30").stdout)["sources"][0]
    assert fewer["units"] == 30 and fewer["tokens"] == 270


def test_the_figure_is_drawn(folders, outcome):
    out = folders / "tokens.svg"
    figure = ("experiments/02_tokens/figure.py", folders / "report" / "tokens.json")
    result = command(*figure, "--out", out)
    assert result.returncode == 0, result.stderr
    assert out.read_text().rstrip().endswith("</svg>")
    assert command(*figure, "--out", out, "--only", "nothing").returncode == 1


def test_what_cannot_be_measured_is_refused_in_one_line(folders, tmp_path):
    ids = folders / "ids"
    refused(tokens(folders / "latents"), "latents", "continuous codes have no token distribution")
    refused(tokens(ids, folders / "latents"), "continuous")
    refused(tokens(), "nothing to measure")
    refused(tokens(ids, ids), "given twice")
    refused(tokens(tmp_path), str(tmp_path), "no codes")
    refused(tokens(folders / "bits", "--split-bits", "4"), "6 bits in 4 sub-codes", "1, 2, 3, 6")
    refused(tokens(ids, "--images", "15"), "15 images; at least 16")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "0"], ["--images 0", ">= 1"]),
        (["--tolerance", "nan"], ["--tolerance nan", "> 0"]),
        (["--pieces", "256"], ["--pieces 256", "above 256"]),
        (["--sampled-bit-entropy", "y=1"], ["'y' is none of the CODES_DIR"]),
        (["--sampled-bit-entropy", "x=-1"], ["'-1' is no number of nats"]),
        (["--config.seed=1"], ["--config.seed", "no config"]),
        (["--txt", "x"], ["--txt", "no such flag"]),
    ],
)
def test_wrong_flags_are_refused_in_one_line(arguments, words):
    refused(tokens("x", *arguments), *words)


def test_a_damaged_folder_is_refused(tmp_path):
    what = code_set(CodeKind.IDS, 200, views="none", examples=40)
    codes = draw(what)
    folder = folder_of(tmp_path / "ids", Codes(codes.codes, codes.labels), what)
    shard = sorted(folder.glob("codes-*"))[0]
    content = bytearray(shard.read_bytes())
    content[-9] ^= 1
    shard.write_bytes(bytes(content))
    refused(tokens(folder), shard.name, "the digest differs")


@pytest.mark.parametrize(("kind", "size", "fit"), [("bits", 16, 868), ("ids", 200, 1338)])
def test_more_tokens_than_memory_holds_are_refused_before_they_are_read(
    tmp_path, monkeypatch, kind, size, fit
):
    """The line says how many images would do; nine positions of two views take that much."""
    monkeypatch.setattr(module, "machine_bytes", lambda: 4_000_000)
    what = code_set(CodeKind(kind), size, examples=5000)
    check = functools.partial(module.check_memory, what, name="codes/x")
    with pytest.raises(LabError, match=f"codes/x: statistics of 5000.*: --images {fit} or fewer"):
        check(None)
    with pytest.raises(LabError, match=f"of {fit + 1} images"):
        check(fit + 1)
    check(fit)
    write(tmp_path, draw(code_set(examples=40)), plan(code_set(examples=40)))
    monkeypatch.setattr(module, "machine_bytes", lambda: 10_000)
    with pytest.raises(LabError, match="--images"):
        module.main([str(tmp_path)])
