"""Loss spikes: what is suspicious, what is left out, where a run returns to, and resumption."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.config import identity
from lab.core.errors import LabError
from lab.core.guard_config import GuardConfig
from lab.core.keys import Stream, key
from lab.core.store import Store
from lab.train.guard import Guard, Verdict, initial_guard, judged
from lab.train.loop import Status
from lab.train.optimizer import learning_rate, numbers_at
from tests.models.worlds import config
from tests.train import jobs
from tests.train.jobs import record, train

W = 8
BAD = (7, 8)  # numbers of batches whose numbers are not finite
STEPS = 14
GUARDED = {
    "train.duration": f"{STEPS} steps",
    "train.evaluate_every_steps": 0,
    "execution.checkpoint_every_steps": 3,
    "optimizer.ema_decay": 0.9,
    "model.class_dropout": 0.2,
    "train.guard.window": W,
}
SKIP = {**GUARDED, "train.guard.policy": "skip"}
ROLLBACK = {**GUARDED, "train.guard.policy": "rollback", "train.guard.rollback_steps": 3}


def slow(*values):
    """A case that is left to the slow tests."""
    return pytest.param(*values, marks=pytest.mark.slow)


def job(tmp_path, **overrides):
    """A small one, on one device."""
    return jobs.job(tmp_path, **{"devices": 1, "size": "s1", "validation": 16, **overrides})


def settings(**more):
    usual = {"policy": "skip", "window": W, "threshold": 5.0, "most_skips": 4}
    return GuardConfig(**{**usual, "rollback_steps": 100, **more})


def numpy_verdicts(losses, norms, *, threshold, limit):
    """The rule in float64, one update after the other: (suspicious, z of loss, z of norm)."""
    seen, found = [], []
    for loss, norm in zip(losses, norms, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            now = np.array([loss, np.log(max(norm, 1e-30))])
        z = np.full(2, np.nan)
        if len(seen) >= W:
            window = np.array(seen[-W:])
            median = np.median(window, axis=0)
            mad = 1.4826 * np.median(np.abs(window - median), axis=0)
            z = (now - median) / np.maximum(mad, [1e-3 * abs(median[0]), 1e-2])
        bad = not np.isfinite([loss, norm]).all() or loss > limit or bool((z > threshold).any())
        found.append((bad, *z))
        if not bad:
            seen.append(now)
    return found


def test_the_rule_is_numpys():
    rng = np.random.default_rng(0)
    losses = 3 * np.exp(-np.arange(80) / 40) + 0.02 * rng.normal(size=80)
    norms = np.exp(0.2 * rng.normal(size=80))
    losses[[3, 40]], norms[[20, 50]] = [np.nan, 5.0], [np.inf, 30.0]
    losses[[60, 61, 62]] += [0.5, 100.0, 0.02]
    guard = Guard(settings(), "loss", loss_limit=50.0)
    step = jax.jit(lambda state, metrics, at: judged(guard, state, metrics, step=at))
    state, found = initial_guard(guard.settings), []
    for at, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        metrics = {"loss": jnp.float32(loss), "grad_norm": jnp.float32(norm)}
        state, packed = step(state, metrics, jnp.int32(at))
        found.append(Verdict.of(packed))
    expected = numpy_verdicts(losses, norms, threshold=5.0, limit=50.0)
    assert [v.suspicious for v in found] == [bad for bad, *_ in expected]
    bad = {at for at, verdict in enumerate(found) if verdict.suspicious}
    assert {3, 20, 40, 50, 60, 61} <= bad and len(bad) < 12
    for verdict, (_, z_loss, z_norm) in zip(found, expected, strict=True):
        for ours, theirs in ((verdict.z_loss, z_loss), (verdict.z_grad_norm, z_norm)):
            assert (ours is None) == math.isnan(theirs)
            assert ours is None or ours == pytest.approx(theirs, rel=2e-3, abs=2e-3)
    skips = [sum(other in bad for other in range(at - W + 1, at + 1)) for at in range(80)]
    assert [v.skips for v in found] == skips


def test_equal_numbers_have_no_spread_and_are_not_suspicious():
    guard = Guard(settings(threshold=10.0), "loss", loss_limit=50.0)
    state = initial_guard(guard.settings)
    for at, loss in enumerate([2.0] * W + [2.01, 2.03]):  # 1e-3 of the loss is a standard error
        metrics = {"loss": jnp.float32(loss), "grad_norm": jnp.float32(0.0)}
        state, packed = judged(guard, state, metrics, step=jnp.int32(at))
        assert Verdict.of(packed).suspicious == (loss == 2.03)


# In the config.


def test_the_default_is_no_part_of_the_identity_nor_of_the_state(tmp_path):
    before = job(tmp_path)
    assert "guard" not in before.abstract_state
    assert before.guard is None
    guarded = job(tmp_path, **SKIP)
    assert set(guarded.abstract_state) == {*before.abstract_state, "guard"}
    names = {identity(config(**over)) for over in ({}, {"train.guard.policy": "stop"})}
    assert len(names) == 1
    others = [{"train.guard.policy": "skip"}, {"train.guard.policy": "rollback"}]
    others += [{"train.guard.policy": "skip", "train.guard.threshold": 9.0}]
    assert len(names | {identity(config(**over)) for over in others}) == 4


@pytest.mark.parametrize(
    ("policy", "field", "value", "words"),
    [
        ("stop", "window", 64, ("guard.window = 64", '"stop"', "128 is expected")),
        ("skip", "rollback_steps", 50, ("guard.rollback_steps = 50", '"skip"', "100")),
        ("skip", "window", 7, ("guard.window = 7", ">= 8")),
        ("jump", "window", 128, ("guard.policy = 'jump'", "stop, skip, rollback")),
        ("skip", "threshold", 0.0, ("guard.threshold = 0.0", "> 0")),
    ],
)
def test_fields_that_do_not_fit_are_refused(policy, field, value, words):
    with pytest.raises(LabError) as refusal:
        config(**{"train.guard.policy": policy, f"train.guard.{field}": value})
    assert all(word in str(refusal.value) for word in words), refusal.value


# In a run. Batches are numbered as they come; some have numbers that are not finite.


def harmed(made, bad=BAD):
    """The job with weights that are no numbers in some training batches."""
    place, stacked = made.place, made.stacked

    def spoilt(batch, step):
        return {**batch, "weight": np.full_like(batch["weight"], np.nan)} if step in bad else batch

    def placed(batch, stream, step):
        return place(spoilt(batch, step) if stream is Stream.TRAIN else batch, stream, step)

    made.place = placed
    made.stacked = lambda batches, first: stacked(
        [spoilt(batch, first + at) for at, batch in enumerate(batches)], first
    )
    return made


def state_of(made, step=None):
    store = Store(made.directory / "checkpoints", writable=False)
    return store.restore(made.abstract_state, step=step).tree


def stepped(tmp_path, batches):
    """The state after these (step, number of its batch), one unguarded update after the other."""
    plain = job(tmp_path, **{k: v for k, v in GUARDED.items() if "guard" not in k})
    steps, state = plain.steps(), plain.initial_state()
    for step, number in batches:
        rate = learning_rate(plain.run.optimizer, step, total_steps=STEPS, warmup_steps=2)
        state = {**state, "step": plain.layout.replicate(np.int32(step))}
        batch = plain.place(plain.train_batches().at(number), Stream.TRAIN, number)
        state, _ = steps.train(
            state, batch, key(0, Stream.TRAIN, number), numbers_at(plain.run.optimizer, rate)
        )
    return state


def assert_close(found, expected):
    """Parameters, moments and average to rounding: a guard is compiled into one program with them.

    A batch more or less moves them by a hundredth.
    """
    for part in ("params", "opt", "ema"):
        for a, b in zip(jax.tree.leaves(found[part]), jax.tree.leaves(expected[part]), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.fixture(scope="module")
def skipped(tmp_path_factory):
    made = harmed(job(tmp_path_factory.mktemp("skipped"), **SKIP))
    warnings = []
    assert train(made, warn=warnings).status is Status.FINISHED
    assert [line.split(":")[0] for line in warnings] == ["step 8", "step 9"]
    return made


@pytest.mark.slow
def test_skipped_updates_are_as_if_their_batches_were_not_there(tmp_path, skipped):
    rest = [(step, step) for step in range(STEPS) if step not in BAD]
    assert_close(state_of(skipped), stepped(tmp_path, rest))
    rows = [r for r in record(skipped) if r["kind"] == "spike"]
    assert [(r["step"], r["action"], r["loss_nats_per_token"]) for r in rows] == [
        (8, "skip", "nan"), (9, "skip", "nan"),
    ]  # fmt: skip
    assert rows[0]["tokens"] == 8 * 96 and rows[0]["z_loss"] is None
    trained = [r["step"] for r in record(skipped) if r["kind"] == "train"]
    assert trained == [s for s in range(1, STEPS + 1) if s not in (8, 9)]


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory):
    """From the spike in update 7 to step 6, and on with the batches from number 8."""
    made = harmed(job(tmp_path_factory.mktemp("rolled"), **ROLLBACK), bad=(7,))
    warnings = []
    assert train(made, warn=warnings).status is Status.FINISHED
    assert len(warnings) == 1 and "back to step 6 without the 2 batches" in warnings[0]
    return made


def test_a_rollback_goes_on_from_the_checkpoint_with_the_batches_after_the_spike(
    tmp_path, rolled_back
):
    order = [(step, step if step < 6 else step + 2) for step in range(STEPS)]
    assert_close(state_of(rolled_back), stepped(tmp_path, order))
    rows = record(rolled_back)
    (spike,) = [r for r in rows if r["kind"] == "spike"]
    assert (spike["step"], spike["action"], spike["to_step"]) == (8, "rollback", 6)
    assert (spike["batches_left_out"], spike["rollback"]) == (2, 1)
    assert [r["step"] for r in rows if r["kind"] == "train"] == list(range(1, STEPS + 1))
    at = rows.index(spike)
    assert (rows[at - 1]["step"], rows[at + 1]["step"]) == (6, 7)


def assert_same_end(made, straight):
    """The same record and the same state, bit for bit."""
    assert record(made) == record(straight)
    ours, theirs = state_of(made), state_of(straight)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [3, 8, 9, 10, 12])
def test_stop_and_go_on_is_bit_exact_with_skips(tmp_path, skipped, stop_at):
    """Next to a spike nothing is saved, and the run comes to it again."""
    assert train(harmed(job(tmp_path, **SKIP)), stop_at=stop_at).status is Status.INTERRUPTED
    again = harmed(job(tmp_path, **SKIP))
    assert train(again).status is Status.FINISHED
    assert_same_end(again, skipped)


class Killed(BaseException):
    """A kill: nothing that follows it runs."""


def killed_when(made, method, calls):
    """Train and die at the beginning of that call of a store's or a record's method."""
    from lab.core.record import Record

    owner = Record if hasattr(Record, method) else Store
    real, left = getattr(owner, method), [calls]

    def dies(self, *given, **more):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return real(self, *given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, dies)
        with pytest.raises(Killed):
            train(made)


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        slow("restore", 1),  # before anything
        slow("forget_after", 1),  # in the rollback: before it
        slow("restore", 2),  # behind its first half
        ("set_back", 1),
        slow("save", 3),  # between the rollback and its first save
        slow("save", 4),  # behind that
        slow("append", 8),  # before the row of the rollback
        slow("append", 9),  # behind it
        slow("append", 12),
    ],
)
def test_killed_anywhere_around_a_rollback_ends_the_same(tmp_path, rolled_back, method, calls):
    killed_when(harmed(job(tmp_path, **ROLLBACK), bad=(7,)), method, calls)
    again = harmed(job(tmp_path, **ROLLBACK), bad=(7,))
    assert train(again).status is Status.FINISHED
    assert_same_end(again, rolled_back)


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [7, 8, 11])
def test_stopped_around_a_rollback_ends_the_same(tmp_path, rolled_back, stop_at):
    """Stops count updates, those that were given up among them."""
    train(harmed(job(tmp_path, **ROLLBACK), bad=(7,)), stop_at=stop_at)
    again = harmed(job(tmp_path, **ROLLBACK), bad=(7,))
    assert train(again).status is Status.FINISHED
    assert_same_end(again, rolled_back)


@pytest.mark.slow
def test_a_damaged_checkpoint_of_a_rollback_is_passed_over_and_the_end_is_the_same(
    tmp_path, rolled_back
):
    """Train to step 7, damage step 6, go on: back to 3 where 6 was meant, and there again."""
    kept = {**ROLLBACK, "execution.keep_last": 3}
    made = harmed(job(tmp_path, **kept), bad=(7,))
    train(made, stop_at=7)
    manifest = made.directory / "checkpoints" / "6" / "manifest.json"
    manifest.write_text(manifest.read_text()[:-40])
    warnings = []
    again = harmed(job(tmp_path, **kept), bad=(7,))
    assert train(again, warn=warnings).status is Status.FINISHED
    assert any("falling back to step 3" in line for line in warnings)
    assert_same_end(again, rolled_back)


@pytest.mark.slow
def test_rollbacks_to_the_beginning_and_several_to_one_step(tmp_path):
    """Batches 1 and 4 are bad: step 0 twice; then 3 skipped numbers stand between."""
    made = harmed(job(tmp_path / "a", **ROLLBACK), bad=(1, 4))
    assert train(made).status is Status.FINISHED
    spikes = [r for r in record(made) if r["kind"] == "spike"]
    assert [(r["step"], r["to_step"], r["rollback"]) for r in spikes] == [(2, 0, 1), (3, 0, 2)]
    order = [(step, step + 5) for step in range(STEPS)]
    assert_close(state_of(made), stepped(tmp_path / "b", order))


@pytest.mark.slow
@pytest.mark.parametrize("policy", [SKIP, ROLLBACK])
def test_too_many_spikes_are_a_divergence_that_leaves_the_last_good_checkpoint(tmp_path, policy):
    """All batches from number 7 are bad: a policy gives up, and nothing bad was saved.

    Rollbacks go to 6, to 3, and would go to 0: each spike is nearer to the step returned to.
    """
    limited = {**policy, "train.guard.most_skips": 2, "execution.keep_last": 1}
    made = harmed(job(tmp_path, **limited), bad=range(7, 1000))
    outcome = train(made)
    assert outcome.status is Status.DIVERGED
    assert "more than 2" in outcome.message
    good = 6 if policy is SKIP else 3
    assert f"last good checkpoint is step {good}" in outcome.message
    rows = record(made)
    assert rows[-1]["status"] == "diverged" and rows[-2]["action"] == "stop"
    assert [r["action"] for r in rows if r["kind"] == "spike"][:-1] == [
        policy["train.guard.policy"]
    ] * 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state_of(made)["params"]))


@pytest.mark.slow
def test_nothing_is_saved_until_updates_are_calm_and_the_last_good_one_stays(tmp_path):
    """A spike in update 8; checkpoints are due at 9 and 10, and with W = 24 calm is 3 updates."""
    every = {"train.guard.window": 24, "execution.checkpoint_every_steps": 1}
    made = harmed(job(tmp_path, **{**SKIP, **every, "execution.keep_last": 9}), bad=(8,))
    train(made)
    steps = sorted(int(p.name) for p in (made.directory / "checkpoints").glob("[0-9]*"))
    assert steps == [3, 4, 5, 6, 7, 8, 12, 13, 14]


@pytest.mark.slow
def test_the_last_state_is_saved_even_if_suspicious_beside_the_last_good_one(tmp_path):
    made = harmed(job(tmp_path, **{**SKIP, "execution.keep_last": 1}), bad=(STEPS - 1,))
    assert train(made).status is Status.FINISHED
    steps = sorted(int(p.name) for p in (made.directory / "checkpoints").glob("[0-9]*"))
    assert steps == [12, STEPS]


@pytest.mark.slow
def test_a_loss_far_above_the_others_is_skipped(tmp_path):
    """Tokens at random where the others are runs of neighbours; nothing in it is not finite."""
    made = job(tmp_path, **{**SKIP, "train.guard.threshold": 6.0, "optimizer.learning_rate": 0.03})
    place = made.place

    def placed(batch, stream, step):
        if stream is Stream.TRAIN and step == 12:
            batch = {
                **batch,
                "tokens": (7 * np.arange(batch["tokens"].size) % 8)
                .astype(np.uint8)
                .reshape(batch["tokens"].shape),
            }
        return place(batch, stream, step)

    made.place = placed
    train(made)
    (row,) = [r for r in record(made) if r["kind"] == "spike"]
    assert row["step"] == 13 and max(row["z_loss"], row["z_grad_norm"]) > 6.0


@pytest.mark.slow
def test_layouts_decide_alike(tmp_path, skipped):
    made = harmed(job(tmp_path, layout="fsdp_tp", devices=8, **SKIP))
    train(made)
    kinds = [(r["kind"], r.get("step"), r.get("action")) for r in record(made)]
    assert kinds == [(r["kind"], r.get("step"), r.get("action")) for r in record(skipped)]
