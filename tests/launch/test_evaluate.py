"""The command on a run trained for a moment, its images judged by an extractor of a few numbers."""

import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from lab.core.errors import ExitCode, LabError
from lab.core.quality import FILE, read_quality
from lab.data.sources import open_source
from lab.launch import evaluate, evaluate_draws
from lab.launch.claim import claimed
from lab.launch.evaluate_features import FOLDER, read_found
from lab.train.trained_generator import find_trained
from tests.launch.commands import TINY, command, only, place

IMAGES = 40
KEPT = ["--config.execution.keep_every_steps=4", "--config.train.evaluate_every_steps=4"]


@jax.tree_util.register_static
class Stub:
    """Six numbers of an image: mean and spread of its colours; three classes."""

    name, metric, features, classes = "stub", "fd_stub", 6, 3

    def __init__(self, text):
        self.identity = f"stub-{text}"
        self.about = {"name": self.name, "identity": self.identity, "metric": self.metric}

    def __call__(self, images):
        found = features(jnp, images)
        return found, jax.nn.log_softmax(5 * found[:, :3])


def features(numbers, images):
    x = images.astype(numbers.float32) / 255
    return numbers.concatenate([x.mean((1, 2)), x.std((1, 2))], axis=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a finished run of 12 tokens an image, checkpoints at 4, 8 and 12."""
    root = tmp_path_factory.mktemp("evaluate")
    flags = ["--config", "configs/elm.py:s1", *TINY, *place(root), *KEPT]
    result = command("-m", "lab.launch.train", *flags, "--config.train.duration=12 steps")
    assert result.returncode == 0, result.stderr
    return root


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of it, not yet evaluated."""
    monkeypatch.setattr("lab.launch.devices.set_up_jax", lambda devices: None)  # conftest has
    shutil.copytree(trained / "runs", tmp_path / "runs")
    return tmp_path


def run_of(folder):
    return only(folder, "runs/default/*")


def evaluated(path, *flags):
    """The exit code of the command, the stub standing for any extractor."""
    return evaluate.main([str(path), *map(str, flags)], Stub)


def judged(path, *flags, what="fd", extractor="a"):
    usual = ["--samples", IMAGES, "--reference-images", 64, "--batch", 8]
    return evaluated(path, "--what", what, "--extractor", extractor, *usual, *flags)


def value_of(row, metric, samples=IMAGES):
    found = [v for v in row["values"] if v["metric"] == metric and v["samples"] == samples]
    assert len(found) == 1, row["values"]
    return found[0]


def frechet(a_NF, b_NF):
    """By the matrix square root of the product, in float64."""
    a, b = np.cov(a_NF, rowvar=False), np.cov(b_NF, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b).real
    return np.sum((a_NF.mean(0) - b_NF.mean(0)) ** 2) + np.trace(a + b - 2 * root)


def real_images(folder, split, count):
    source = open_source("dead_leaves", split=split, examples=count, data_dir=folder / "data")
    images = np.stack([example["image"] for example in source.read(range(count))]).astype(float)
    side = images.shape[1] // 2
    whole = images.reshape(count, 2, side, 2, side, 3).mean((2, 4))
    return np.floor(whole).astype(np.uint8), [e["label"] for e in source.read(range(count))]


def drawn_images(folder, labels, count):
    from lab.launch.sample_job import Wanted, draw
    from lab.launch.sample_settings import settings_of
    from lab.tokenizers.pixels import Pixels
    from tests.launch.test_sample import flags_of

    found = find_trained(run_of(folder))
    tokenizer = Pixels(resolution=2, channels="rgb", levels=found.run.tokenizer.levels)
    wanted = Wanted(np.resize(labels, count).astype(np.int32), np.arange(count, dtype=np.int32))
    return draw(
        *(found, tokenizer, wanted, settings_of(flags_of(), found.run.model, 12)),
        seed=0,
        batch=8,
        progress=lambda done, total: None,
        should_stop=lambda: False,
    ).images


def test_distances_are_of_the_images_that_sample_draws_to_those_that_a_tokenizer_sees(folder):
    assert judged(folder / "runs") == ExitCode.DONE
    (row,) = read_quality(run_of(folder))
    reference, labels = real_images(folder, "train", 64)
    validation, _ = real_images(folder, "validation", IMAGES)
    ours = features(np, drawn_images(folder, labels, IMAGES)).astype(float)
    theirs = features(np, reference).astype(float)
    found = value_of(row, "fd_stub")
    assert found["value"] == pytest.approx(frechet(ours, theirs), rel=1e-3)
    assert found["low"] < found["value"] < found["high"] and found["better"] == "lower"
    assert found["level"] == 0.9 and found["layer"] is None
    floor = frechet(features(np, validation).astype(float), theirs)
    assert value_of(row, "fd_stub_real")["value"] == pytest.approx(floor, rel=1e-3)
    for metric, counts in (("fd_stub", "counts"), ("kid_stub", "kid_counts")):
        curve = [v["samples"] for v in row["values"] if v["metric"] == metric]
        assert sorted(curve) == row["settings"][counts] == [5, 10, 20, 40]
    assert found["quantile"] == pytest.approx(1.7291328)  # Student's, of 20 groups
    assert value_of(row, "recall_stub")["quantile"] is None
    eighth = value_of(row, "fd_stub", samples=5)["value"]
    assert eighth != found["value"]
    names = {v["metric"] for v in row["values"]}
    for name in ("fd_infinity", "kid", "inception_score", "precision", "recall"):
        assert {f"{name}_stub", f"{name}_stub_real"} <= names
    assert row["step"] == 12 and row["weights"] == "raw" and row["extractor"]["name"] == "stub"
    assert row["reference"]["split"] == "train" and row["reference"]["images"] == 64
    assert row["reference"]["resolution"] == 2
    assert row["settings"]["labels"] == "data" and row["settings"]["seed"] == 0
    assert row["settings"]["real"]["split"] == "validation"
    assert "steps" not in row["settings"]["sampler"]["drawing"]  # of a diffusion; there is none


def test_a_reconstruction_is_of_the_images_that_a_tokenizer_gives_back(folder):
    assert judged(folder / "runs", what="reconstruction") == ExitCode.DONE
    (row,) = read_quality(run_of(folder))
    reference, _ = real_images(folder, "train", 64)
    validation, _ = real_images(folder, "validation", IMAGES)
    levels = find_trained(run_of(folder)).run.tokenizer.levels
    codes = validation.astype(int) * levels // 256
    back = ((2 * codes + 1) * 128 // levels).astype(np.uint8)  # the middle of each level
    theirs = features(np, reference).astype(float)
    expected = frechet(features(np, back).astype(float), theirs)
    assert value_of(row, "fd_stub_reconstructed")["value"] == pytest.approx(expected, rel=1e-3)
    assert row["settings"]["tokenizer"] and "sampler" not in row["settings"]
    assert expected != pytest.approx(value_of(row, "fd_stub_real")["value"], rel=0.01)


def test_what_is_done_is_not_done_again_and_drawing_is_shared(folder, monkeypatch, capsys):
    drawn = []
    tokens_of = evaluate_draws.tokens_of
    monkeypatch.setattr(
        "lab.launch.evaluate_samples.tokens_of",
        lambda *args: drawn.append(args) or tokens_of(*args),
    )
    two = ["--extractor", "b"]
    assert judged(folder / "runs", *two, "--list") == ExitCode.DONE
    assert capsys.readouterr().out.count("waiting") == 2
    assert not (run_of(folder) / FILE).exists()
    assert judged(folder / "runs", *two) == ExitCode.DONE
    assert "next: python -m analysis quality" in capsys.readouterr().out
    assert len(drawn) == 1  # for both extractors
    content = (run_of(folder) / FILE).read_bytes()
    assert content.count(b"\n") == 2
    assert judged(folder / "runs", *two, "--json") == ExitCode.DONE
    assert (run_of(folder) / FILE).read_bytes() == content and len(drawn) == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["done"] for each in told] == [True, True]
    assert [each["extractor"]["identity"] for each in told] == ["stub-a", "stub-b"]
    assert judged(folder / "runs", "--labels", "balanced", "--list", "--json") == ExitCode.DONE
    assert [each["done"] for each in json.loads(capsys.readouterr().out)] == [False]
    assert not (run_of(folder) / "draws").exists()


def test_a_stopped_evaluation_goes_on_and_ends_like_another(folder, monkeypatch, capsys):
    assert judged(folder / "runs") == ExitCode.DONE
    (straight,) = read_quality(run_of(folder))
    (run_of(folder) / FILE).unlink()
    written = []
    write_part = evaluate_draws.write_part

    def stop_after_two(*args):
        write_part(*args)
        written.append(args[1])
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(evaluate_draws, "write_part", stop_after_two)
    assert judged(folder / "runs") == ExitCode.INTERRUPTED
    assert "goes on from there" in capsys.readouterr().err
    assert read_quality(run_of(folder)) == [] and written == [0, 8]
    parts = sorted(run_of(folder).glob("draws/*/*.npy"))
    assert [path.name for path in parts] == ["00000000.npy", "00000008.npy"]
    assert judged(folder / "runs") == ExitCode.DONE
    assert written == [0, 8, 16, 24, 32]
    (row,) = read_quality(run_of(folder))
    assert {**row, "clock": 0} == {**straight, "clock": 0}


def test_features_of_a_reference_are_kept_and_made_again_where_they_are_damaged(folder, capsys):
    assert judged(folder / "runs") == ExitCode.DONE
    (straight,) = read_quality(run_of(folder))
    paths = sorted((folder / "runs" / FOLDER).glob("*.npz"))
    assert len(paths) == 2  # train, and validation for the floor
    before = {path: path.stat().st_mtime_ns for path in paths}
    for path in paths:
        assert read_found(path).features_NF.shape in ((64, 6), (IMAGES, 6))
    (run_of(folder) / FILE).unlink()
    assert judged(folder / "runs") == ExitCode.DONE
    assert {path: path.stat().st_mtime_ns for path in paths} == before
    for path in paths:
        path.write_bytes(path.read_bytes()[:-40])
    (run_of(folder) / FILE).unlink()
    assert judged(folder / "runs") == ExitCode.DONE
    assert capsys.readouterr().err.count("damaged; the features are made again") == 2
    (row,) = read_quality(run_of(folder))
    assert {**row, "clock": 0} == {**straight, "clock": 0}


def test_a_grid_is_a_task_a_point(folder):
    flags = ["--grid", "temperature=0.5,2", "--top-k", 1]
    assert judged(folder / "runs", *flags, what="randomness") == ExitCode.DONE
    rows = read_quality(run_of(folder))
    points = [row["settings"]["sampler"]["drawing"] for row in rows]
    assert [(p["temperature"], p["top_k"]) for p in points] == [(0.5, 1), (2.0, 1)]
    distances = [value_of(row, "fd_stub")["value"] for row in rows]
    assert distances[0] == distances[1]  # of one code the temperature says nothing
    assert judged(folder / "runs", "--temperature", 0.5) == ExitCode.DONE
    likely = read_quality(run_of(folder))[-1]
    assert value_of(likely, "fd_stub")["value"] != distances[0]
    assert len({row["key"] for row in [*rows, likely]}) == 3


def test_the_likelihood_is_that_of_the_record_at_every_step(folder, capsys):
    assert evaluated(folder / "runs", "--what", "likelihood", "--steps", "all") == ExitCode.DONE
    rows = read_quality(run_of(folder))
    lines = (run_of(folder) / "record.jsonl").read_text().splitlines()
    record = [row for row in map(json.loads, lines) if row["kind"] == "evaluation"]
    theirs = {row["step"]: row for row in record}
    assert [row["step"] for row in rows] == [4, 8, 12]
    for row in rows:
        nats, bits = row["values"]
        there = theirs[row["step"]]
        assert nats["metric"] == "loss_nats_per_image" and nats["likelihood"] == "exact"
        assert nats["value"] == pytest.approx(there["loss_nats_per_image"], rel=1e-6)
        half = 1.6448536 * 12 * there["loss_se_nats_per_token"]
        assert nats["high"] - nats["value"] == pytest.approx(half, rel=1e-4)
        assert bits["value"] == pytest.approx(there["bits_per_dim"], rel=1e-6)
        assert bits["samples"] == there["examples"] == 16
    assert evaluated(folder / "runs", "--what", "likelihood", "--images", "8") == ExitCode.DONE
    assert read_quality(run_of(folder))[-1]["reference"]["images"] == 8


def test_of_a_study_what_is_not_finished_is_named_and_left_out(folder, capsys):
    study = run_of(folder).parent
    other = study / "unfinished"
    other.mkdir()
    shutil.copy(run_of_finished(study) / "config.json", other)
    (study / "notes").mkdir()
    assert evaluated(study, "--what", "likelihood", "--json") == ExitCode.DONE
    told = capsys.readouterr()
    assert f"left out: {other}: this generator is not trained to its end" in told.err
    assert len(json.loads(told.out)) == 1
    with pytest.raises(LabError, match="not trained to its end"):
        evaluated(other, "--what", "likelihood")
    with pytest.raises(LabError, match="neither a run directory nor"):
        evaluated(study / "notes", "--what", "likelihood")


def run_of_finished(study):
    return next(path.parent for path in study.glob("*/record.jsonl"))


def test_a_run_that_another_process_holds_is_left_out_and_said(folder, capsys):
    with claimed(run_of(folder)) as ours:
        assert ours
        assert evaluated(folder / "runs", "--what", "likelihood") == ExitCode.INTERRUPTED
    assert "another process is evaluating this run" in capsys.readouterr().err
    assert read_quality(run_of(folder)) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--steps", "4,5"], ["no checkpoint of step 5", "4, 8, 12"]),
        (["--weights", "ema"], ["kept no average"]),
        (["--reference-images", "99", "--reference", "test"], ["--reference-images", "test"]),
        (["--rounds", "3"], ["--rounds 3", "masked order"]),
        (["--diffusion-steps", "3"], ["--diffusion-steps 3", "no diffusion"]),
    ],
)
def test_what_does_not_fit_the_run_is_refused_before_anything_is_done(folder, flags, words):
    with pytest.raises(LabError) as caught:
        judged(folder / "runs", *flags)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (run_of(folder) / FILE).exists() and not (run_of(folder) / "draws").exists()


def test_attention_is_that_of_the_maps_of_these_images(folder):
    flags = ["--what", "attention", "--images", 10, "--batch", 8, "--steps", "8"]
    assert evaluated(folder / "runs", *flags) == ExitCode.DONE
    (row,) = read_quality(run_of(folder))
    assert row["step"] == 8 and row["reference"]["images"] == 10
    weights_BHQK, cell_K = first_map(folder, step=8, images=10)
    image_K = np.flatnonzero(cell_K[:, 0] >= 0)
    seen = weights_BHQK[:, :, image_K]
    found = {v["metric"]: v for v in row["values"] if v["layer"] == 0}
    sink_BH = seen[..., cell_K[:, 0] < 0].sum(-1).mean(-1)
    assert found["attention_sink_mass"]["per_head"] == pytest.approx(sink_BH.mean(0), rel=1e-4)
    entropy_BH = -(seen * np.log(np.where(seen > 0, seen, 1))).sum(-1).mean(-1)
    value = found["attention_entropy_nats"]
    assert value["value"] == pytest.approx(entropy_BH.mean(), rel=1e-4)
    assert value["low"] < value["value"] < value["high"] and value["better"] is None
    assert {v["stack"] for v in row["values"]} == {"blocks"} and value["samples"] == 10
    even = found["attention_uniform_distance_cells"]
    assert even["low"] == even["value"] == even["high"] > 0


def first_map(folder, *, step, images):
    """Weights of the first block for the first validation images, and cells of its keys."""
    from lab.models.inside import attention_maps
    from lab.tokenizers.pixels import Pixels
    from lab.train.trained_generator import find_trained

    found = find_trained(run_of(folder), step=step)
    tokenizer = Pixels(resolution=2, channels="rgb", levels=found.run.tokenizer.levels)
    pictures, labels = real_images(folder, "validation", images)
    tokens = tokenizer.encode(pictures).reshape(images, 12, 1).astype(np.int32)
    model = found.open(tokenizer.spec, platform="cpu")
    first = attention_maps(model, jnp.asarray(tokens), jnp.asarray(labels))[0]
    return np.asarray(first.weights_BHQK), np.asarray(first.key_cell_K)


def test_a_probe_has_every_layer_and_says_which_images_are_right(folder):
    flags = ["--what", "probe", "--probe-images", 90, "--images", 21, "--batch", 32]
    assert evaluated(folder / "runs", *flags) == ExitCode.DONE
    (row,) = read_quality(run_of(folder))
    assert row["settings"]["train_images"] == 90 and row["reference"]["images"] == 21
    assert row["settings"]["penalties"] == "10 to 1e-07, 2 a decade"
    assert [v["layer"] for v in row["values"]] == [0, 1]  # what enters the block, what leaves it
    train, test = (layer_inputs(folder, *of) for of in (("train", 90), ("validation", 21)))
    for value in row["values"]:
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(value["correct_hex"]), np.uint8))
        assert bits[21:].sum() == 0 and value["value"] == pytest.approx(bits.mean() * 24 / 21)
        layer = value["layer"]
        own = nearest_to_a_ridge(train[0][layer], train[1], test[0][layer], value["penalty"])
        agree = (own == test[1]) == bits[:21].astype(bool)
        assert agree.mean() > 0.9  # another solver of the same problem
        assert value["gradient_norm"] < 1e-5 and value["better"] == "higher"


def layer_inputs(folder, split, count):
    """Features (L + 1, N, D) of the null class by a loop over images, and labels."""
    from lab.models.inside import layer_states
    from lab.tokenizers.pixels import Pixels
    from lab.train.trained_generator import find_trained

    found = find_trained(run_of(folder))
    tokenizer = Pixels(resolution=2, channels="rgb", levels=found.run.tokenizer.levels)
    pictures, labels = real_images(folder, split, count)
    tokens = tokenizer.encode(pictures).reshape(count, 12, 1).astype(np.int32)
    model = found.open(tokenizer.spec, platform="cpu")
    null = jnp.full(count, found.classes)
    states = layer_states(model, jnp.asarray(tokens), null)
    return np.asarray(states, np.float64).mean(2), np.asarray(labels)


def nearest_to_a_ridge(train_NF, label_N, test_MF, penalty):
    """Classes of the test features by scikit-learn at this penalty."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    mean, std = train_NF.mean(0), train_NF.std(0)
    model = linear_model.LogisticRegression(
        C=1 / (penalty * len(train_NF)), max_iter=5000, tol=1e-9
    )
    model.fit((train_NF - mean) / std, label_N)
    return model.predict((test_MF - mean) / std)
