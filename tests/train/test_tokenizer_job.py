"""Training of tokenizers: exact resumption, layouts, a GAN's two losses, restarts, pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lab.core.keys import Stream, key
from lab.core.store import Store
from lab.tokenizers.adversarial import adaptive_weight, hinge_discriminator, hinge_generator
from lab.tokenizers.levels import in_unit_range
from lab.train.loop import Status
from lab.train.tokenizer_step import autoencoder_gradients
from tests.train.jobs import record, train
from tests.train.tokenizer_jobs import ADVERSARIAL, job

EVERYTHING = {
    "vq": {**ADVERSARIAL, "losses.restart_below": 0.95, "optimizer.ema_decay": 0.9},  # 0.99^6
    "binary": {**ADVERSARIAL, "data.augmentation": "flip"},
    "kl": {"losses.reconstruction": "l2"},
}


def losses(made, name):
    return np.array([r[name] for r in record(made) if r["kind"] == "train"])


def state_of(made):
    with Store(made.directory / "checkpoints", keep_last=2, writable=False) as store:
        return store.restore(made.abstract_state).tree


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A function from a kind to its job, trained without a stop; once a kind."""

    @functools.cache
    def made(kind):
        found = job(tmp_path_factory.mktemp(kind), kind, devices=1, **EVERYTHING[kind])
        assert train(found).status is Status.FINISHED
        return found

    return made


OFTEN = ["vq", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("binary", "kl"))]


@pytest.mark.parametrize("stop_at", [pytest.param(1, marks=pytest.mark.slow), 7])
@pytest.mark.parametrize("kind", OFTEN)
def test_stop_and_go_on_is_bit_exact(tmp_path, straight, kind, stop_at):
    """Stopped before the discriminator counts and after: rows, both networks, codes' shares."""
    made = job(tmp_path, kind, devices=1, **EVERYTHING[kind])
    assert train(made, stop_at=stop_at).status is Status.INTERRUPTED
    again = job(tmp_path, kind, devices=1, **EVERYTHING[kind])
    assert train(again).status is Status.FINISHED
    assert record(again) == record(straight(kind))
    states = [jax.tree.leaves(state_of(each)) for each in (again, straight(kind))]
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)


LAYOUTS = [(kind, layout) for kind in EVERYTHING for layout in ("ddp", "fsdp", "fsdp_tp")]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
def test_every_layout_has_the_same_losses(tmp_path, straight, kind, layout):
    """Rounding grows through the straight-through codes: so the first rows of each are compared."""
    made = job(tmp_path, kind, layout=layout, devices=8, **EVERYTHING[kind])
    assert train(made).status is Status.FINISHED
    rows = [[r for r in record(m) if r["kind"] == "train"] for m in (made, straight(kind))]
    shared = set(rows[0][0]) - {"kind"}
    for ours, theirs in zip(rows[0][:6], rows[1][:6], strict=True):
        for name in shared:
            assert ours[name] == pytest.approx(theirs[name], rel=5e-3, abs=2e-4), (name, ours)


def test_the_discriminator_waits_for_its_start(straight):
    rows = [r for r in record(straight("vq")) if r["kind"] == "train"]
    assert [r["discriminator"] == 0 for r in rows] == [True] * 2 + [False] * 8
    assert [r["adversarial_weight"] == 0 for r in rows] == [True] * 2 + [False] * 8
    assert sum(r["restarted"] for r in rows) > 0
    assert rows[2]["discriminator"] == pytest.approx(1, abs=0.4)  # the hinge of logits near 0


def test_the_loss_falls(tmp_path):
    made = job(tmp_path, "binary", devices=1, **{"train.duration": "60 steps"})
    train(made)
    found = losses(made, made.loss.key)
    assert found[-5:].mean() < 0.8 * found[:5].mean()


def test_gradients_are_those_of_the_whole_objective(tmp_path):
    """Against jax.grad of one scalar with the adaptive weight held fixed at its value."""
    made = job(tmp_path, "vq", devices=1, **ADVERSARIAL)
    state = made.initial_state()
    images = in_unit_range(jnp.asarray(made.images.train.rows.tokens[:4].reshape(-1, 16, 16, 3)))
    params, critic = state["params"], state["critic"]["params"]
    objective = made.objective

    grads, terms, _, _ = autoencoder_gradients(
        objective,
        params,
        critic,
        images,
        key=key(0, Stream.TRAIN, 0),
        adversarial=jnp.bool_(True),
        perceptual=None,
    )

    def pixel(model):
        return jnp.mean(jnp.abs(images - model.reconstruct(images, None)[0]))

    def against(model):
        return hinge_generator(critic(model.reconstruct(images, None)[0]))

    of_pixel, of_critic = jax.grad(pixel)(params), jax.grad(against)(params)
    last = [g.decoder.out.weight[...] for g in (of_pixel, of_critic)]
    weight = 0.5 * adaptive_weight(*last, most=1e4)
    assert float(terms["adversarial_weight"]) == pytest.approx(float(weight), rel=1e-4)

    def whole(model):
        bottled = model.reconstruct(images, None)[1]
        return pixel(model) + weight * against(model) + sum(bottled.losses.values())

    for got, want in zip(
        jax.tree.leaves(grads), jax.tree.leaves(jax.grad(whole)(params)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-5)


@pytest.mark.slow
def test_without_its_turn_the_discriminator_changes_nothing(tmp_path):
    plain = job(tmp_path / "a", "vq", devices=1, **{"train.duration": "4 steps"})
    waiting = job(tmp_path / "b", "vq", devices=1, **{**ADVERSARIAL, "train.duration": "4 steps"})
    for made in (plain, waiting):
        train(made)
    first = [losses(made, plain.loss.key)[:3] for made in (plain, waiting)]  # it begins at step 2
    np.testing.assert_array_equal(*first)


@pytest.mark.slow
def test_the_discriminators_first_loss_is_that_of_its_start(tmp_path):
    made = job(
        tmp_path, "binary", devices=1, **{**ADVERSARIAL, "losses.adversarial_start": "0 steps"}
    )
    train(made, stop_at=1)
    first = made.train_batches().at(0)["tokens"].reshape(-1, 16, 16, 3)
    state = made.initial_state()
    images = in_unit_range(jnp.asarray(first))
    code_key = jax.random.split(key(made.run.seed, Stream.TRAIN, 0))[0]
    seen = state["params"].reconstruct(images, code_key)[0]
    critic = state["critic"]["params"]
    want = float(hinge_discriminator(critic(images), critic(seen)))
    assert losses(made, "discriminator")[0] == pytest.approx(want, rel=1e-4)


@pytest.mark.slow
def test_dead_codes_are_restarted_and_more_are_used(tmp_path):
    # 0.99^51 is 0.6; of 32 codes so short a run uses all without restarts
    long = {"train.duration": "90 steps", "losses.restart_below": 0.6, "code.vocabulary": 512}
    with_restart = job(tmp_path / "a", "vq", devices=1, **long)
    without = job(tmp_path / "b", "vq", devices=1, **{**long, "losses.restart_below": 0.0})
    used = []
    for made in (with_restart, without):
        train(made)
        used.append([r for r in record(made) if r["kind"] == "evaluation"][-1]["codes_distinct"])
    assert losses(with_restart, "restarted").sum() > 0
    assert used[0] > used[1]


@pytest.mark.parametrize("kind", OFTEN)
def test_an_evaluation_has_its_numbers_and_its_picture(straight, kind):
    made = straight(kind)
    row = [r for r in record(made) if r["kind"] == "evaluation"][-1]
    saved = np.load(made.directory / "validation.npz")
    of_images = saved[f"{made.loss.key}_per_image"]
    assert of_images.shape == (37,)
    # EMA weights have a row of their own; the file is of the raw ones.
    raw = [r for r in record(made) if r["kind"] == "evaluation" and r["weights"] == "raw"][-1]
    assert raw[made.loss.key] == pytest.approx(of_images.mean(), rel=1e-6)
    se = made.loss.key.replace("loss_", "loss_se_")
    assert raw[se] == pytest.approx(of_images.std(ddof=1) / np.sqrt(37), rel=1e-5)
    extra = {
        "vq": "codes_perplexity",
        "binary": "bit_entropy_nats_per_position",
        "kl": "latent_std",
    }
    assert row[extra[kind]] > 0
    with Image.open(made.directory / "reconstructions.png") as picture:
        pixels = np.asarray(picture)
    first = made.images.validation.rows.tokens[0].reshape(16, 16, 3)
    np.testing.assert_array_equal(pixels[:16, :16], first)


@pytest.mark.parametrize("kind", OFTEN)
def test_the_record_counts_what_there_is(straight, kind):
    made = straight(kind)
    header = record(made)[0]
    state = made.abstract_state
    leaves = jax.tree.leaves(state["params"])
    critic = jax.tree.leaves(state["critic"]["params"]) if state["critic"] else []
    assert sum(header["params"].values()) == sum(x.size for x in [*leaves, *critic]), kind
    assert header["units"]["loss"].startswith(made.run.losses.reconstruction.upper())
