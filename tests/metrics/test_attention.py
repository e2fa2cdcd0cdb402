"""Numbers of attention maps drawn by hand; means over images against NumPy; a whole generator."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.metrics import attention
from lab.metrics.attention import AttentionNumbers, AttentionTally
from lab.models import families
from lab.models.inside import AttentionMap, Site, attention_maps, attention_sites
from tests.layers import transformer_reference as ref
from tests.models.worlds import config

ROWS, COLUMNS = 3, 4
IMAGE = [(row, column) for row in range(ROWS) for column in range(COLUMNS)]
T = len(IMAGE)


def cells(prefix):
    return np.array([(-1, -1)] * prefix + IMAGE, np.int32)


def drawn(weights_QK, *, prefix=0):
    """The same weights for two images and three heads."""
    weights = np.broadcast_to(np.asarray(weights_QK, np.float32), (2, 3, *np.shape(weights_QK)))
    return AttentionMap(
        weights_BHQK=jnp.asarray(weights),
        query_cell_Q=cells(prefix),
        key_cell_K=cells(prefix),
        layer=0,
        stack="blocks",
        causal=False,
    )


numbers_of = jax.jit(attention.numbers_of)


def numbers(weights_QK, *, prefix=0):
    found = numbers_of(drawn(weights_QK, prefix=prefix))
    for value in found:
        assert value.shape == (2, 3) and np.ptp(value) == 0
    return [float(value[0, 0]) for value in found]


def test_attending_to_oneself():
    distance, entropy, sink, first = numbers(np.eye(T))
    assert (distance, entropy, sink) == (0, 0, 0) and first == pytest.approx(1 / T)


def test_one_column_to_the_right_and_around():
    """Distance 1, but from the last column back to the first: 3."""
    shifted = np.zeros((T, T))
    for query, (row, column) in enumerate(IMAGE):
        shifted[query, IMAGE.index((row, (column + 1) % COLUMNS))] = 1
    distance, entropy, _, _ = numbers(shifted)
    assert distance == pytest.approx((3 * 1 + 1 * 3) / 4) and entropy == 0


def test_two_rows_and_one_column_away_is_the_root_of_five():
    weights = np.eye(T)
    weights[0] = 0
    weights[0, IMAGE.index((2, 1))] = 1
    assert numbers(weights)[0] == pytest.approx(math.sqrt(5) / T)


def every_distance():
    return np.array([[math.dist(a, b) for b in IMAGE] for a in IMAGE])


def test_evenly_over_a_prefix_and_all_positions():
    """Keys of the prefix have no distance; its own queries are left out."""
    weights = np.full((T + 2, T + 2), 1 / (T + 2))
    weights[:2] = np.eye(T + 2)[:2]
    distance, entropy, sink, first = numbers(weights, prefix=2)
    assert distance == pytest.approx(every_distance().mean())
    assert entropy == pytest.approx(math.log(T + 2))
    assert sink == pytest.approx(2 / (T + 2)) and first == pytest.approx(1 / (T + 2))
    site = cells(2)
    assert attention.uniform_distance_cells(site, site, causal=False) == pytest.approx(distance)
    assert attention.uniform_entropy_nats(site, site, causal=False) == pytest.approx(entropy)


def test_evenly_over_what_a_causal_mask_leaves():
    weights = np.tril(np.ones((T + 1, T + 1)))
    weights /= weights.sum(1, keepdims=True)
    distance, entropy, sink, first = numbers(weights, prefix=1)
    by_query = [every_distance()[query, : query + 1].mean() for query in range(T)]
    assert distance == pytest.approx(np.mean(by_query))
    assert entropy == pytest.approx(np.mean([math.log(seen) for seen in range(2, T + 2)]))
    assert sink == first == pytest.approx(np.mean([1 / seen for seen in range(2, T + 2)]))
    site = cells(1)
    assert attention.uniform_distance_cells(site, site, causal=True) == pytest.approx(distance)
    assert attention.uniform_entropy_nats(site, site, causal=True) == pytest.approx(entropy)
    assert by_query[-1] > 3 * by_query[1]  # why the even distance stands beside a causal one


def test_random_weights_against_loops():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(T + 1, 0.3), T + 1)
    distance, entropy, sink, first = numbers(weights, prefix=1)
    rows = weights[1:]
    far = [
        sum(row[1 + k] * math.dist(IMAGE[q], IMAGE[k]) for k in range(T)) / row[1:].sum()
        for q, row in enumerate(rows)
    ]
    assert distance == pytest.approx(np.mean(far), rel=1e-5)
    assert entropy == pytest.approx(-(rows * np.log(rows)).sum(1).mean(), rel=1e-5)
    assert sink == pytest.approx(rows[:, 0].mean(), rel=1e-5)
    assert first == pytest.approx(rows[:, 1].mean(), rel=1e-5)


def test_a_head_that_sees_the_prefix_alone_has_no_distance():
    """One query that looks at the image is enough for one."""
    weights = np.zeros((T + 1, T + 1))
    weights[:, 0] = 1
    found = numbers_of(drawn(weights, prefix=1))
    assert np.all(np.isnan(found.distance_cells)) and np.all(found.sink_mass == 1)
    weights[1] = np.eye(T + 1)[IMAGE.index((0, 3)) + 1]
    assert numbers(weights, prefix=1)[0] == 3


SITES = [Site(0, "encoder", cells(1), False), Site(1, "decoder", cells(1), False)]


def test_means_and_errors_over_images_in_any_batches():
    rng = np.random.default_rng(1)
    values = 5 + rng.standard_normal((2, 4, 11, 3))  # blocks, numbers, images, heads
    values[1, 0, 2, 1] = np.nan  # one image in which a head has no distance
    found = []
    for splits in ([11], [1, 4, 6], [5, 1, 5]):
        tally = AttentionTally(SITES)
        for part in np.split(values, np.cumsum(splits)[:-1], axis=2):
            tally.add([AttentionNumbers(*map(jnp.asarray, block)) for block in part])
        found.append(tally.blocks(level=0.9))
    for blocks in found:
        for block, value in zip(blocks, values, strict=True):
            assert block.images == 11 and block.stack == SITES[block.layer].stack
            for name, of_BH in zip(AttentionNumbers._fields, value, strict=True):
                got = getattr(block, name)
                count_H = np.isfinite(of_BH).sum(0)
                error_H = np.nanstd(of_BH, axis=0, ddof=1) / np.sqrt(count_H)
                np.testing.assert_allclose(got.per_head, np.nanmean(of_BH, axis=0), rtol=1e-6)
                np.testing.assert_allclose(got.standard_error_per_head, error_H, rtol=1e-5)
                image_B = np.nanmean(of_BH, axis=1)
                assert got.mean.value == pytest.approx(image_B.mean(), rel=1e-6)
                half = 1.8124611 * image_B.std(ddof=1) / math.sqrt(11)  # t of 10, 95 %
                assert got.mean.low == pytest.approx(image_B.mean() - half, rel=1e-5)
                assert got.mean.high == pytest.approx(image_B.mean() + half, rel=1e-5)
                assert got.mean.quantile == pytest.approx(1.8124611)
                assert got.mean.level == 0.9
    assert found[0][0].uniform_distance_cells == pytest.approx(every_distance().mean())


def test_what_an_interval_needs():
    tally = AttentionTally(SITES[:1])
    tally.add([AttentionNumbers(*(jnp.ones((1, 3)) for _ in range(4)))])
    with pytest.raises(LabError, match="distance_cells of block 0: 1 images"):
        tally.blocks(level=0.9)
    with pytest.raises(LabError, match="level 90"):
        tally.blocks(level=90)


def test_numbers_of_a_generator_are_those_of_its_maps():
    run, codes = config("s4"), families.Codes(vocabulary=5, grid=(2, 3, 1), classes=3)
    make = families.builder(run.model, codes, families.Running(compute_dtype="float32"))
    model = ref.random(make, size=0.3)
    tokens = jax.random.randint(jax.random.key(0), (4, 6, 1), 0, 5)

    @jax.jit
    def both(model, tokens):
        label_B = jnp.zeros(4, int)
        maps = attention_maps(model, tokens, label_B)
        direct = attention.generator_attention(model, tokens, label_B)
        return [numbers_of(each) for each in maps], direct

    of_maps, direct = both(model, tokens)
    tally = AttentionTally(attention_sites(model))
    tally.add(direct)
    assert len(tally.blocks(level=0.9)) == len(of_maps) == run.model.depth
    for a, b in zip(jax.tree.leaves(of_maps), jax.tree.leaves(direct), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    assert np.all(direct[0].distance_cells > 0) and np.all(direct[0].sink_mass > 0)
