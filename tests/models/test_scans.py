"""Orders of cells, and autoregression along them: tables by hand, enumeration, what sees what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core import config as core_config
from lab.core.errors import LabError
from lab.models import compatible, families, inside
from lab.models.scans import SCANS, scan
from tests.models.worlds import config, every_image, nats_per_image, position_nats, stirred

# The place of each cell of a 4 x 4 grid in the scan, written down by hand.
PLACES = {
    "rows": "0 1 2 3 / 4 5 6 7 / 8 9 10 11 / 12 13 14 15",
    "columns": "0 4 8 12 / 1 5 9 13 / 2 6 10 14 / 3 7 11 15",
    "rows_zigzag": "0 1 2 3 / 7 6 5 4 / 8 9 10 11 / 15 14 13 12",
    "columns_zigzag": "0 7 8 15 / 1 6 9 14 / 2 5 10 13 / 3 4 11 12",
    "diagonal": "0 1 3 6 / 2 4 7 10 / 5 8 11 13 / 9 12 14 15",
    "spiral": "0 1 2 3 / 11 12 13 4 / 10 15 14 5 / 9 8 7 6",
    "z_curve": "0 1 4 5 / 2 3 6 7 / 8 9 12 13 / 10 11 14 15",
    "hilbert": "0 1 14 15 / 3 2 13 12 / 4 7 8 11 / 5 6 9 10",
    "subsample": "0 4 1 5 / 6 7 8 9 / 2 10 3 11 / 12 13 14 15",
}
FAST = ("columns", "hilbert")  # the others compile as long and are slow
BEYOND_ROWS = [
    name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
    for name in SCANS
    if name != "rows"
]
SQUARE = families.Codes(vocabulary=2, grid=(2, 2, 1), classes=2)
SLOTTED = families.Codes(vocabulary=5, grid=(2, 3, 2), classes=2)


@pytest.mark.parametrize("name", PLACES)
def test_a_scan_is_the_table_written_by_hand(name):
    table = [int(place) for place in PLACES[name].replace("/", " ").split()]
    np.testing.assert_array_equal(np.argsort(scan(name, 4, 4)), table)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("grid", [(8, 8), (3, 5), (1, 7), (6, 2), (1, 1)])
def test_a_scan_visits_every_cell_once(name, grid):
    assert sorted(scan(name, *grid)) == list(range(grid[0] * grid[1]))


@pytest.mark.parametrize("name", ["rows_zigzag", "columns_zigzag", "spiral", "hilbert"])
@pytest.mark.parametrize("side", [4, 8, 16])
def test_a_curve_goes_from_neighbour_to_neighbour(name, side):
    row, column = np.divmod(scan(name, side, side), side)
    np.testing.assert_array_equal(np.abs(np.diff(row)) + np.abs(np.diff(column)), 1)


def test_the_shuffled_order_has_no_neighbours_to_speak_of_and_never_changes():
    order = scan("shuffled", 16, 16)
    row, column = np.divmod(order, 16)
    steps = np.abs(np.diff(row)) + np.abs(np.diff(column))
    assert abs(steps.mean() - 2 * (16**2 - 1) / (3 * 16)) < 1.5  # of two random cells
    np.testing.assert_array_equal(scan("shuffled", 2, 3), [4, 5, 0, 1, 2, 3])


def test_the_config_allows_the_scans_that_there_are_and_raster_order_alone_has_one():
    assert set(core_config.SCANS) == {*SCANS, "any"}
    assert config(**{"model.scan": "spiral"}).model.scan == "spiral"
    with pytest.raises(LabError, match="config.model.scan = 'spirals'"):
        config(**{"model.scan": "spirals"})
    for family in ("mlm", "dit"):
        with pytest.raises(LabError, match=r'model.scan = "hilbert": of the order raster only'):
            compatible.check_each_other(config("s1", family, **{"model.scan": "hilbert"}).model)


@pytest.mark.parametrize("name", BEYOND_ROWS)
def test_likelihoods_of_all_images_sum_to_one(name):
    model = stirred(config(**{"model.scan": name}), SQUARE)
    images = every_image(positions=4, subcodes=1, vocabulary=2)
    nats_E = nats_per_image(model, images, jnp.zeros(len(images), int))
    assert float(jnp.sum(jnp.exp(-nats_E))) == pytest.approx(1.0, abs=1e-5)
    assert float(jnp.std(nats_E)) > 0.1


@pytest.mark.parametrize("name", BEYOND_ROWS)
def test_a_position_depends_on_those_before_it_in_the_scan_and_no_others(name):
    model = stirred(config("s4", **{"model.scan": name}), SLOTTED, noise=0.2)
    label_B = jnp.zeros(13, int)
    tokens_BT = np.tile(np.arange(12) % 5, (13, 1))
    for place in range(12):
        tokens_BT[place + 1, place] = (tokens_BT[place + 1, place] + 1) % 5
    nats_BT = np.asarray(position_nats(model, tokens_BT[..., None], label_B))
    changed_TT = np.abs(nats_BT[1:] - nats_BT[:1]) > 1e-6  # of a row's token, at a column
    cells = scan(name, 2, 3)
    when_T = np.argsort([2 * cell + slot for cell in cells for slot in (0, 1)])
    np.testing.assert_array_equal(changed_TT, when_T[:, None] <= when_T[None])


def test_turned_images_have_the_likelihood_of_a_model_of_the_turned_scan():
    """Columns of an image are rows of its transpose, but for the halves of the rotary features."""
    rows, columns = (stirred(config(**{"model.scan": n}), SQUARE) for n in ("rows", "columns"))
    images = every_image(positions=4, subcodes=1, vocabulary=2)
    turned = images[:, [0, 2, 1, 3]]
    zero_E = jnp.zeros(len(images), int)
    first, second = (np.exp(-nats_per_image(m, images, zero_E)) for m in (rows, columns))
    assert np.max(np.abs(first - second)) > 1e-3
    # Without angles the two are one model.
    for model in (rows, columns):
        model.backbone.layers.attention.query[...] *= 0
    first = np.asarray(nats_per_image(rows, images, zero_E))
    second = np.asarray(nats_per_image(columns, turned, zero_E))
    np.testing.assert_allclose(first, second, rtol=1e-5)


@pytest.mark.parametrize("name", BEYOND_ROWS)
def test_states_stand_in_raster_order_and_maps_say_their_cells(name):
    model = stirred(config("s4", **{"model.scan": name}), SLOTTED, noise=0.2)
    tokens_BT = np.tile(np.arange(12) % 5, (2, 1))
    cell = int(scan(name, 2, 3)[3])
    tokens_BT[1, 2 * cell] = (tokens_BT[1, 2 * cell] + 1) % 5
    given = jnp.asarray(tokens_BT)[..., None], jnp.zeros(2, int)
    states = jax.jit(inside.layer_states)(model, *given)
    moved_T = np.abs(np.asarray(states[-1, 0] - states[-1, 1])).max(axis=1) > 1e-6
    when_T = np.argsort([2 * cell + slot for cell in scan(name, 2, 3) for slot in (0, 1)])
    np.testing.assert_array_equal(moved_T, when_T >= 6)

    found = jax.jit(inside.attention_maps)(model, *given)
    places = {tuple(divmod(int(cell), 3)): place for place, cell in enumerate(scan(name, 2, 3))}
    places[-1, -1] = -1
    query, key = (
        np.array([places[tuple(cell)] for cell in cells.tolist()])
        for cells in (found[0].query_cell_Q, found[0].key_cell_K)
    )
    later_QK = key[None] > query[:, None]
    assert later_QK.any() and not np.asarray(found[0].weights_BHQK)[:, :, later_QK].any()
