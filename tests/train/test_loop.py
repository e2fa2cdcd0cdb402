"""The loop: exact resumption, layouts, evaluation, divergence."""

import json
import math
import shutil

import jax
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.core.store import Store
from lab.train.loop import Status
from tests.train.jobs import job, losses, record, train

RANDOM = {
    "model.class_dropout": 0.2,
    "model.residual_dropout": 0.1,
    "model.mlp_dropout": 0.1,
    "model.embedding_dropout": 0.1,
    "optimizer.ema_decay": 0.9,
}


def state_of(made):
    store = Store(made.directory / "checkpoints", keep_last=2, writable=False)
    return store.restore(made.abstract_state)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    made = job(tmp_path_factory.mktemp("straight"), **RANDOM)
    assert train(made).status is Status.FINISHED
    return made


@pytest.mark.parametrize("stop_at", [1, 5, 7])
def test_stop_and_go_on_is_bit_exact(tmp_path, straight, stop_at):
    """10 straight equal k + restart + the rest: losses, state, record, validation images."""
    made = job(tmp_path, **RANDOM)
    outcome = train(made, stop_at=stop_at)
    assert (outcome.status, outcome.step) == (Status.INTERRUPTED, stop_at)
    assert [r["kind"] for r in record(made)][-1] != "end"
    again = job(tmp_path, **RANDOM)
    assert train(again).status is Status.FINISHED
    assert record(again) == record(straight)
    ours, theirs = state_of(again), state_of(straight)
    assert ours.step == theirs.step == 10
    for a, b in zip(jax.tree.leaves(ours.tree), jax.tree.leaves(theirs.tree), strict=True):
        np.testing.assert_array_equal(a, b)
    name = "validation.npz"
    assert (again.directory / name).read_bytes() == (straight.directory / name).read_bytes()


def manifest_metrics(made):
    """The metrics beside every checkpoint that is kept."""
    found = made.directory.glob("checkpoints/*/manifest.json")
    return {path.parent.name: json.loads(path.read_text())["metrics"] for path in found}


SMALLEST = {"devices": 1, "size": "s1", **RANDOM}


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    made = job(tmp_path_factory.mktemp("smallest"), **SMALLEST)
    assert train(made).status is Status.FINISHED
    return made


@pytest.mark.parametrize(("step", "looks"), [(0, 1), (5, 3), (5, 9), (10, 4), (10, 12)])
def test_a_stop_inside_an_evaluation_saves_writes_no_row_and_goes_on_exactly(
    tmp_path, smallest, step, looks
):
    """37 images in batches of 16, raw and averaged: 12 looks, half when batches come back."""
    made = job(tmp_path, **SMALLEST)
    outcome = train(made, stop_in=step, looks=looks)
    assert (outcome.status, outcome.step) == (Status.INTERRUPTED, step)
    rows = record(made)
    assert rows == [r for r in record(smallest) if r["kind"] == "header" or r["step"] < step] + [
        r for r in record(smallest) if r["kind"] == "train" and r["step"] == step
    ]
    assert state_of(made).step == step, "saved all the same"
    again = job(tmp_path, **SMALLEST)
    assert train(again).status is Status.FINISHED
    assert record(again) == record(smallest)
    assert manifest_metrics(again)["10"] == manifest_metrics(smallest)["10"]
    for a, b in zip(
        jax.tree.leaves(state_of(again).tree), jax.tree.leaves(state_of(smallest).tree), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    name = "validation.npz"
    assert (again.directory / name).read_bytes() == (smallest.directory / name).read_bytes()


def test_a_stop_after_the_last_look_of_an_evaluation_is_seen_before_the_update(tmp_path, smallest):
    made = job(tmp_path, **SMALLEST)
    assert train(made, stop_in=5, looks=13).status is Status.FINISHED, "there are 12 looks"
    assert record(made) == record(smallest)


def test_a_kept_checkpoint_gets_the_evaluation_that_a_stop_cut_short(tmp_path):
    kept = {"execution.checkpoint_every_steps": 5, "execution.keep_every_steps": 5, **SMALLEST}
    whole = job(tmp_path / "whole", **kept)
    train(whole)
    cut = job(tmp_path / "cut", **kept)
    assert train(cut, stop_in=5, looks=2).status is Status.INTERRUPTED
    assert "loss_nats_per_token" not in manifest_metrics(cut)["5"]
    train(cut)
    assert manifest_metrics(cut) == manifest_metrics(whole)
    assert sorted(manifest_metrics(cut)) == ["10", "5"]
    assert "loss_nats_per_token" in manifest_metrics(cut)["5"]


def test_the_record_says_what_happened(straight):
    rows = record(straight)
    assert [r["kind"] for r in rows] == (
        ["header"] + ["evaluation"] * 2 + ["train"] * 5 + ["evaluation"] * 2 + ["train"] * 5
        + ["evaluation"] * 2 + ["end"]
    )  # fmt: skip
    assert [r["step"] for r in rows if r["kind"] == "train"] == list(range(1, 11))
    assert [(r["step"], r["weights"]) for r in rows if r["kind"] == "evaluation"] == [
        (s, w) for s in (0, 5, 10) for w in ("raw", "ema")
    ]
    header, last = rows[0], rows[-1]
    assert last["status"] == "finished" and len(last["params_sha256"]) == 64
    final = rows[-3]
    flops = sum(header["flops_per_token"].values())
    assert final["tokens"] == 10 * 8 * 12 == 10 * header["tokens_per_step"]
    assert final["flops"] == pytest.approx(final["tokens"] * flops)
    saved = json.loads((straight.directory / "checkpoints/10/manifest.json").read_text())
    assert saved["metrics"]["loss_nats_per_token"] == final["loss_nats_per_token"]


def test_killed_between_the_last_save_and_the_end_row(tmp_path, straight):
    shutil.copytree(straight.directory.parents[1], tmp_path, dirs_exist_ok=True)
    made = job(tmp_path, **RANDOM)
    lines = (made.directory / "record.jsonl").read_text().splitlines(keepends=True)
    (made.directory / "record.jsonl").write_text("".join(lines[:-1]) + lines[-1][:20])
    assert train(made).status is Status.FINISHED
    assert record(made) == record(straight)


def test_a_corrupt_last_checkpoint_is_written_again(tmp_path):
    made = job(tmp_path, **{"execution.checkpoint_every_steps": 5})
    train(made)
    whole = record(made)
    manifest = made.directory / "checkpoints" / "10" / "manifest.json"
    manifest.write_text(manifest.read_text()[:-40])
    lines = (made.directory / "record.jsonl").read_text().splitlines(keepends=True)
    (made.directory / "record.jsonl").write_text("".join(lines[:-1]))
    assert train(made).status is Status.FINISHED
    assert record(made) == whole
    restored = state_of(made)
    assert restored.step == 10 and not restored.skipped


def test_corrupt_newest_checkpoint_falls_back_and_ends_the_same(tmp_path):
    every = {"execution.checkpoint_every_steps": 3, "execution.keep_last": 3}
    whole, hurt = job(tmp_path / "a", **every), job(tmp_path / "b", **every)
    train(whole)
    train(hurt, stop_at=8)
    arrays = hurt.directory / "checkpoints" / "8"
    largest = max(arrays.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 16
    largest.write_bytes(content)
    warnings = []
    assert train(hurt, warn=warnings).status is Status.FINISHED
    assert len(warnings) == 1 and "checkpoints/8" in warnings[0] and "step 6" in warnings[0]
    assert record(hurt) == record(whole)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    made = job(tmp_path_factory.mktemp("one"), devices=1)
    train(made)
    return made


@pytest.mark.parametrize("layout", ["ddp", "fsdp", "hsdp", "fsdp_tp"])
def test_every_layout_gives_the_same_losses(tmp_path, one_device, layout):
    """Within 1e-5: a sum over devices is a sum in another order."""
    made = job(tmp_path, layout=layout)
    train(made)
    np.testing.assert_allclose(losses(made), losses(one_device), rtol=1e-5)
    sharded = [
        leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(made.abstract_state["params"])
    ]
    assert all(sharded) == (layout == "ddp"), "the layout must shard something, or nothing"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ddp", "fsdp_tp"),
        ("fsdp_tp", "hsdp"),
        pytest.param("hsdp", "fsdp", marks=pytest.mark.slow),
    ],
)
def test_restore_across_layouts(tmp_path, one_device, first, second):
    made = job(tmp_path, layout=first)
    train(made, stop_at=5)
    other = job(tmp_path, layout=second)
    assert other.directory == made.directory, "a layout is not part of the identity"
    train(other)
    np.testing.assert_allclose(losses(other), losses(one_device), rtol=1e-5)


def test_evaluation_counts_each_image_once_and_its_error_is_numpys(one_device):
    """37 images in batches of 16: the last one padded; mean and error in float64."""
    with np.load(one_device.directory / "validation.npz") as saved:
        nats, step = saved["nats_per_image"].astype(np.float64), int(saved["step"])
    assert nats.shape == (37,) and step == 10
    row = [r for r in record(one_device) if r["kind"] == "evaluation"][-1]
    assert row["examples"] == 37
    assert row["loss_nats_per_token"] == pytest.approx(nats.mean() / 12, rel=1e-12)
    assert row["loss_se_nats_per_token"] == pytest.approx(
        nats.std(ddof=1) / math.sqrt(37) / 12, rel=1e-12
    )
    assert row["bits_per_dim"] == pytest.approx(nats.mean() / 12 / math.log(2), rel=1e-12)
    rows = one_device.images.validation.rows.rows(np.arange(37))
    params = state_of(one_device).tree["params"]
    direct = params.nats_per_image(rows.tokens[..., None], rows.labels, None)
    np.testing.assert_allclose(nats, direct, rtol=1e-4)


def test_divergence_names_step_rate_norm_and_last_good_checkpoint(tmp_path):
    made = job(
        tmp_path,
        **{
            "optimizer.learning_rate": 1e6,
            "optimizer.clip_norm": 0.0,
            "train.explode_factor": 1.5,
            "train.duration": "40 steps",
            "train.evaluate_every_steps": 0,
            "execution.checkpoint_every_steps": 1,
        },
    )
    outcome = train(made)
    assert outcome.status is Status.DIVERGED
    for word in ("step ", "learning rate ", "gradient norm ", "last good checkpoint is step "):
        assert word in outcome.message
    end = record(made)[-1]
    assert end["kind"] == "end" and end["status"] == "diverged" and end["reason"]
    good = state_of(made)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(good.tree["params"]))


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(LabError, match=r"config\.train\.batch_size = 12: a multiple of 8"):
        job(tmp_path, **{"train.batch_size": 12})


def test_heads_that_do_not_divide_over_the_tensor_axis_are_refused(tmp_path):
    """Every device of the axis would have the attention of all heads, unsaid."""
    with pytest.raises(
        LabError, match=r"execution\.tensor = 8: must divide config\.model\.heads = 3"
    ):
        job(tmp_path, layout="fsdp_tp", **{"execution.tensor": 8})


@pytest.mark.parametrize(
    ("warmup", "said"),
    [("9 steps", 'the 9 of config.optimizer.warmup = "9 steps"'), ("2e3 tokens", "the 21 of")],
)
def test_a_schedule_longer_than_the_run_is_refused_when_the_data_are_known(tmp_path, warmup, said):
    """96 tokens and 8 images a step, 48 images: 2 epochs are 12 steps."""
    made = job(tmp_path, **{"optimizer.warmup": warmup, "train.duration": "2 epochs"})
    with pytest.raises(LabError) as refused:
        train(made)
    assert str(refused.value).startswith('config.train.duration = "2 epochs": 12 steps are too few')
    assert said in str(refused.value) and "the 4 of config.optimizer.cooldown" in str(refused.value)
    assert not (made.directory / "record.jsonl").exists()


def test_the_first_loss_is_the_log_of_the_vocabulary(one_device):
    assert losses(one_device)[0] == pytest.approx(math.log(8), rel=1e-6)
    assert losses(one_device)[-1] < losses(one_device)[0] - 0.05
