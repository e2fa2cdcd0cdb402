"""Wishes that all processes see at the same step, and saves by the clock."""

import jax
import jax.numpy as jnp
import pytest

from configs.layouts import LAYOUTS
from lab.core.layout import make_layout
from lab.train.agreement import Agreement, Wishes
from tests.train import jobs


@pytest.mark.parametrize("layout", ["ddp", "fsdp_tp"])
def test_a_wish_comes_back(layout):
    agreement = Agreement(make_layout(layout, LAYOUTS, jax.devices()))
    for wishes in (Wishes(), Wishes(stop=True), Wishes(save=True), Wishes(stop=True, save=True)):
        assert agreement.read(agreement.propose(wishes, after=jnp.float32(1.0))) == wishes


def test_a_wish_of_one_device_is_that_of_all():
    """What one process places on its devices; the others place zeros."""
    agreement = Agreement(make_layout("ddp", LAYOUTS, jax.devices()))
    rows = jnp.zeros((8, 2), jnp.int32).at[5, 0].set(1)
    placed = jax.device_put(rows, agreement._row_a_device)
    agreement._placed = lambda wishes: placed
    found = agreement.read(agreement.propose(Wishes(), after=jnp.float32(0.0)))
    assert found == Wishes(stop=True)


def test_wishes_add_up():
    assert Wishes(stop=True).either(Wishes(save=True)) == Wishes(stop=True, save=True)
    assert Wishes().either(Wishes()) == Wishes()


def saved(made):
    return sorted(int(p.name) for p in made.directory.glob("checkpoints/[0-9]*"))


@pytest.mark.slow
def test_a_save_is_due_by_the_clock_too(tmp_path):
    """The clock of these jobs moves half a second a look."""
    quiet = {"execution.checkpoint_every_steps": 100, "execution.keep_last": 99}
    plain = jobs.job(tmp_path / "plain", **quiet)
    timed = jobs.job(tmp_path / "timed", **quiet, **{"execution.checkpoint_every_minutes": 0.1})
    for made in (plain, timed):
        jobs.train(made)
    assert saved(plain) == [10]
    assert len(saved(timed)) > 2
    assert jobs.record(plain) == jobs.record(timed), "no part of the result"
    assert plain.identity == timed.identity
