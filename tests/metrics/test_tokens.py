"""Statistics of grids: against closed forms of Markov chains and couplings, and brute force."""

import collections
import itertools
import math
import os
import pathlib
from fractions import Fraction

import numpy as np
import pytest

from lab.core.codes import Alphabet, CodeKind
from lab.core.errors import LabError
from lab.metrics.bigram import Neighbour, estimate_pairs, neighbours, shifted
from lab.metrics.bits import bit_statistics, ones_of_groups, tree_information_nats
from lab.metrics.draws import draws_of
from lab.metrics.estimate import estimate
from lab.metrics.grids import TokenGrids, grids_of_codes, grids_of_sequence
from lab.metrics.mutual import (
    COARSE_GROUPS,
    coarse_groups,
    information_against_distance,
    joint_tables,
    offsets_of,
    plug_in_information_nats,
    table_information_nats,
)
from lab.metrics.text import characters, pieces, read_text
from lab.metrics.tokens import token_statistics

ROOT = pathlib.Path(__file__).resolve().parents[2]


def entropy(p):
    p = np.asarray(p, np.float64)
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def grids(ids, alphabet, bits=None):
    return TokenGrids(name="made", unit="images", alphabet=alphabet, ids_UVHW=ids, bits_UVHWD=bits)


@pytest.fixture(scope="module")
def chain():
    """Rows that are Markov chains, independent of each other: (grids, p, transitions)."""
    rng = np.random.default_rng(0)
    size = 6
    steps = rng.dirichlet(np.full(size, 0.5), size)
    p = np.linalg.matrix_power(steps, 200)[0]
    rows = np.empty((300, 8, 12), np.int64)
    rows[..., 0] = rng.choice(size, rows.shape[:2], p=p)
    ladder = steps.cumsum(axis=1)
    for column in range(1, 12):
        drawn = rng.random(rows.shape[:2])[..., None]
        rows[..., column] = np.minimum((drawn > ladder[rows[..., column - 1]]).sum(-1), size - 1)
    return grids(rows[:, None], size), p, steps


def inside(quantity, truth, *, slack=0.0):
    assert quantity["converged"]
    assert quantity["low_nats"] - slack <= truth <= quantity["high_nats"] + slack, (quantity, truth)


def test_a_markov_chain_gives_its_entropy_rate_and_its_pairs(chain):
    found, p, steps = chain
    record = token_statistics(found)
    pair = p[:, None] * steps
    rate = entropy(pair) - entropy(p)
    across, down = record["bigram"]["horizontal"], record["bigram"]["vertical"]
    slack = 0.004  # an interval of 90 % misses now and then; this is a hundredth of the quantities
    inside(record["unigram"]["kl_from_uniform"], math.log(6) - entropy(p), slack=slack)
    inside(across["kl_from_uniform"], 2 * math.log(6) - entropy(pair), slack=slack)
    inside(across["conditional_entropy"], rate, slack=slack)
    inside(across["mutual_information"], entropy(p) - rate, slack=slack)
    inside(down["mutual_information"], 0.0, slack=slack)
    inside(down["conditional_entropy"], entropy(p), slack=slack)
    assert entropy(p) - rate > 50 * slack
    assert record["bigram"]["raster"]["draws"] == 300 * (8 * 12 - 1)


def test_information_of_a_chain_falls_as_its_powers(chain):
    found, p, steps = chain
    offsets = information_against_distance(found)
    assert [(o.rows, o.columns) for o in offsets] == offsets_of(8, 12)
    for offset in offsets:
        truth = 0.0
        if not offset.rows:
            joint = p[:, None] * np.linalg.matrix_power(steps, offset.columns)
            truth = 2 * entropy(p) - entropy(joint)
        assert offset.corrected_nats == pytest.approx(truth, abs=0.006)
        # Six symbols, sixteen groups: next to nothing is lost.
        low = offset.coarse_nats - 4 * offset.coarse_se_nats
        assert low <= truth + 1e-9
        assert offset.coarse_nats >= 0.5 * truth - 0.002
        assert offset.pairs == 300 * (8 - offset.rows) * (12 - offset.columns)


def test_coarse_groups_find_what_a_large_alphabet_hides():
    """2,000 ids in noisy blocks: pairs are too few, their groups are not."""
    rng = np.random.default_rng(0)
    block = rng.integers(0, 8, (900, 1, 8, 1))
    flip = rng.random((900, 1, 8, 8)) < 0.1
    blocks = np.where(flip, rng.integers(0, 8, flip.shape), block)
    ids = rng.permutation(2000)[blocks * 250 + rng.integers(0, 250, blocks.shape)]
    keep = 0.9 + 0.1 / 8  # both are their row's block with this chance, or another's evenly
    channel = np.full((8, 8), (1 - keep) / 7) + np.eye(8) * (keep - (1 - keep) / 7)
    truth = 2 * math.log(8) - entropy(channel.T @ channel / 8)
    across, down = information_against_distance(grids(ids, 2000), offsets=[(0, 1), (1, 0)])
    assert 0.4 * truth < across.coarse_nats < truth + 4 * across.coarse_se_nats
    assert abs(down.coarse_nats) < 4 * down.coarse_se_nats + 1e-3
    assert across.plug_in_nats > 1.5 * truth, "the plain estimate would do: this test shows nothing"


def test_coarse_groups_halve_a_split_alphabet():
    first = np.array([[0, 1, 2, 3] * 50])
    second = np.array([[1, 0, 3, 2] * 50])
    groups = coarse_groups(first, second, symbols=4)
    assert groups.min() >= 0 and groups.max() < COARSE_GROUPS
    order = np.argsort(groups)
    assert set(order[:2]) in ({0, 1}, {2, 3})


def test_independent_tokens_share_nothing():
    ids = np.random.default_rng(0).integers(0, 30, (200, 1, 8, 8))
    for offset in information_against_distance(grids(ids, 30)):
        assert abs(offset.corrected_nats) < 0.01
        assert abs(offset.coarse_nats) < 4 * offset.coarse_se_nats
        assert offset.plug_in_nats > 0.02, "there is no bias to take off: this test shows nothing"


def test_information_of_a_table_by_fractions():
    table = np.array([[5, 1, 0], [2, 0, 9]])
    total, nats = table.sum(), 0.0
    for i, j in itertools.product(range(2), range(3)):
        if table[i, j]:
            ratio = Fraction(int(table[i, j] * total), int(table[i].sum() * table[:, j].sum()))
            nats += table[i, j] / total * math.log(ratio)
    correction = -(2 - 1) * (3 - 1) / (2 * total)
    assert table_information_nats(table) == pytest.approx(nats + correction)
    pairs = [(i, j) for i in range(2) for j in range(3) for _ in range(table[i, j])]
    first, second = np.array(pairs).T[:, :, None]
    assert plug_in_information_nats(first, second) == pytest.approx(nats)
    tables = joint_tables(first, second, size=3)
    assert len(tables) == 16
    np.testing.assert_array_equal(tables.sum(axis=0)[:2], table)


def test_pairs_by_brute_force():
    ids = np.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4)
    for which in Neighbour:
        expected = collections.Counter()
        for unit, view, row, column in np.ndindex(ids.shape):
            if which is Neighbour.RASTER:
                row_to, column_to = divmod(row * 4 + column + 1, 4)
            else:
                down = which is Neighbour.VERTICAL
                row_to, column_to = row + down, column + (not down)
            if row_to < 3 and column_to < 4:
                pair = ids[unit, view, row, column], ids[unit, view, row_to, column_to]
                expected[unit, *pair] += 1
        first, second = neighbours(ids, which)
        units = np.arange(2)[:, None] + np.zeros_like(first)
        found = zip(units.ravel(), first.ravel(), second.ravel(), strict=True)
        assert collections.Counter(found) == expected
    assert neighbours(ids[:, :, :1], Neighbour.VERTICAL) is None
    first, second = shifted(ids, rows=2, columns=1)
    np.testing.assert_array_equal(second - first, np.full((2, 6), 9))


def test_relabelled_and_transposed_tokens_give_the_same(chain):
    found, _, _ = chain
    names = np.random.default_rng(5).permutation(6)
    one = token_statistics(found)
    two = token_statistics(grids(names[found.ids_UVHW], 6))
    turned = token_statistics(grids(found.ids_UVHW.swapaxes(2, 3), 6))
    for part in ("unigram", "bigram"):
        assert flat(one[part]) == pytest.approx(flat(two[part]), rel=1e-9, abs=1e-12)
    for here, there in (("horizontal", "vertical"), ("vertical", "horizontal")):
        expected = flat(one["bigram"][here]["entropy"])
        assert flat(turned["bigram"][there]["entropy"]) == pytest.approx(expected, rel=1e-9)


def flat(tree, path=""):
    """Leaves of nested dicts and lists by path."""
    if isinstance(tree, dict):
        return {k: v for key in tree for k, v in flat(tree[key], f"{path}/{key}").items()}
    if isinstance(tree, list | tuple):
        return {k: v for i, x in enumerate(tree) for k, v in flat(x, f"{path}/{i}").items()}
    return {path: tree} if isinstance(tree, float) else {}


def test_what_is_too_thinly_drawn_is_bounded_and_not_stated():
    """65,536 even codes and 12,800 tokens: the truth of every quantity is known."""
    ids = np.random.default_rng(0).integers(0, 2**16, (200, 1, 8, 8))
    record = token_statistics(grids(ids, 2**16))
    across = record["bigram"]["horizontal"]
    truths = {
        "kl_from_uniform": 0.0,
        "conditional_entropy": 16 * math.log(2),
        "mutual_information": 0.0,
    }
    for name, truth in truths.items():
        assert not across[name]["converged"] and across[name]["nats"] is None
        assert across[name]["low_nats"] <= truth + 1e-9 <= across[name]["high_nats"] + 2e-9
    assert record["unigram"]["kl_from_uniform"]["nats"] is None and record["perplexity"] is None
    assert record["perplexity_at_least"] < 2**16


def test_bounds_of_pairs_hold_and_use_what_groups_share():
    """A deterministic neighbour: ids evenly drawn, the next is the same id; I = ln K."""
    ids = np.random.default_rng(0).integers(0, 400, (100, 1, 6, 1)) + np.zeros((1, 1, 1, 2), int)
    first, second = (draws_of(x, alphabet=400) for x in shifted(ids, rows=0, columns=1))
    pairs = estimate_pairs(first, second, tolerance_nats=1e-9, shared_nats=1.5)
    truth = math.log(400)
    assert pairs.kl.low_nats >= 1.5 and pairs.mutual_information.low_nats == 1.5
    assert pairs.kl.low_nats <= truth <= pairs.kl.high_nats
    assert pairs.mutual_information.low_nats <= truth <= pairs.mutual_information.high_nats + 1e-9
    assert pairs.conditional.low_nats == 0.0
    assert pairs.conditional.high_nats == pytest.approx(truth - 1.5)


# --- bits ----------------------------------------------------------------------------------------


def bit_grids(make, *, bits, units=64, seed=0):
    drawn = np.random.default_rng(seed).integers(0, 2, (units, 2, 6, 6, bits)).astype(np.uint8)
    return grids_of_codes(make(drawn), Alphabet(CodeKind.BITS, bits), name="bits", seed=seed)


def record_of_bits(found):
    return bit_statistics(found.bits_UVHWD, estimate(draws_of(found.ids_UVHW, alphabet=2**16)))


def test_bits_of_parity_share_ln_2_that_no_pair_shows():
    def parity(b):
        b[..., 2] = b[..., 0] ^ b[..., 1]
        return b

    found = bit_grids(parity, bits=4)
    record = record_of_bits(found)
    inside(record["total_correlation"], math.log(2), slack=0.002)
    assert record["total_correlation_tree_nats"] < 0.002
    assert record["correlation_pairs"] == 6
    alarms = [
        record_of_bits(bit_grids(parity, bits=4, seed=seed))["correlation_pairs_significant"] > 0
        for seed in range(30)
    ]
    assert sum(alarms) <= 5, "5 % of 30 are expected"
    flat_bits = found.bits_UVHWD.reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(record["correlations"], np.corrcoef(flat_bits.T), atol=1e-12)
    np.testing.assert_allclose(record["bit_means"], flat_bits.mean(axis=0), atol=1e-12)
    off = np.corrcoef(flat_bits.T)[np.triu_indices(4, 1)]
    assert record["correlation_max_abs"] == pytest.approx(np.abs(off).max())
    assert record["correlation_mean_abs"] == pytest.approx(np.abs(off).mean())


def test_bits_of_a_tree_share_what_its_edges_do():
    rng = np.random.default_rng(1)

    def noisy_chain(b):
        for bit in range(1, 3):
            b[..., bit] = b[..., bit - 1] ^ (rng.random(b.shape[:-1]) < 0.1)
        return b

    record = record_of_bits(bit_grids(noisy_chain, bits=4))
    truth = 2 * (math.log(2) - entropy([0.1, 0.9]))
    inside(record["total_correlation"], truth, slack=0.01)
    assert record["total_correlation_tree_nats"] == pytest.approx(truth, abs=0.03)
    assert record["correlation_pairs_significant"] == 3
    assert record["correlation_max_abs"] == pytest.approx(0.8, abs=0.03)


def test_a_bit_that_never_changes_and_one_bit_alone():
    def stuck(b):
        b[..., 1] = 1
        return b

    record = record_of_bits(bit_grids(stuck, bits=3))
    assert record["constant_bits"] == [1] and record["bit_entropies_nats"][1] == 0
    assert record["correlations"][1] == [0.0, 1.0, 0.0]
    single = record_of_bits(bit_grids(lambda b: b, bits=1))
    assert single["correlation_pairs"] == 0 and single["total_correlation_tree_nats"] == 0
    assert single["total_correlation"]["nats"] == pytest.approx(0, abs=1e-3)


def test_sums_of_groups_and_tree_by_hand():
    bits = np.random.default_rng(0).integers(0, 2, (9, 1, 2, 2, 3)).astype(np.uint8)
    sums = ones_of_groups(bits)
    assert sums.shape == (8, 4, 4) and sums[:, -1, -1].sum() == 36
    ones = np.concatenate([bits.reshape(-1, 3), np.ones((36, 1))], axis=1)
    np.testing.assert_array_equal(sums.sum(axis=0), ones.T @ ones)
    shared = {
        (i, j): plug_in_information_nats(ones[:, [i]].astype(int), ones[:, [j]].astype(int))
        for i, j in itertools.combinations(range(3), 2)
    }
    assert tree_information_nats(sums.sum(axis=0)) == pytest.approx(
        sum(shared.values()) - min(shared.values()), abs=1e-9
    )


def test_bits_fold_big_endian_and_split_into_subcodes():
    found = bit_grids(lambda b: b, bits=16, units=16)
    weights = 1 << np.arange(15, -1, -1)
    np.testing.assert_array_equal(found.ids_UVHW, (found.bits_UVHWD * weights).sum(axis=-1))
    high, low = found.subcodes(2)
    np.testing.assert_array_equal(high.ids_UVHW, found.ids_UVHW >> 8)
    np.testing.assert_array_equal(low.ids_UVHW, found.ids_UVHW & 255)
    assert (high.alphabet, high.name) == (256, "bits [1/2]")
    record = token_statistics(found, split_bits=2, sampled_bit_entropy_nats=3.5)
    assert [part["name"] for part in record["subcodes"]] == ["bits [1/2]", "bits [2/2]"]
    assert record["sampled_bit_entropy_nats_per_position"] == 3.5


def test_too_few_units_are_refused():
    few = bit_grids(lambda b: b, bits=4, units=15)
    with pytest.raises(LabError, match="bits: 15 images; at least 16"):
        token_statistics(few)


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [
        (CodeKind.GAUSSIAN, 4, "continuous codes have no token distribution"),
        (CodeKind.BITS, 64, "at most 63 bits"),
        (CodeKind.IDS, 3, "codes run from 0 to 7; allowed is 0 to 2"),
    ],
)
def test_codes_that_cannot_be_counted_are_refused(kind, size, words):
    codes = np.arange(8)[:, None, None, None] + np.zeros((1, 1, 2, 2), np.int64)
    with pytest.raises(LabError, match=words):
        grids_of_codes(codes, Alphabet(kind, size), name="x", seed=0)


# --- text ----------------------------------------------------------------------------------------

WORDS = "the naïve cat — and the other cat sat on the mat near the naïve hat\n"


def test_characters_of_a_text():
    text = WORDS * 200
    found = characters(text, name="words", seed=0)
    kept = text[: len(text) // 256 * 256]
    assert found.ids_UVHW.shape == (len(kept) // 256, 1, 1, 256)
    assert found.alphabet == len(set(text))
    counts = np.bincount(found.ids_UVHW.ravel())
    assert sorted(counts) == sorted(collections.Counter(kept).values())
    as_numbers = [sorted(set(text)).index(c) for c in kept]
    blocks = {tuple(as_numbers[at : at + 256]) for at in range(0, len(kept), 256)}
    assert {tuple(block.ravel()) for block in found.ids_UVHW} == blocks


def test_pieces_of_a_text():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcde"), 6)) for _ in range(300)]
    text = " ".join(rng.choice(words, 9000))
    found = pieces(text, vocabulary=400, name="words", seed=0)
    again = pieces(text, vocabulary=400, name="words", seed=0)
    assert found.alphabet == 400 and found.ids_UVHW.max() < 400
    np.testing.assert_array_equal(found.ids_UVHW, again.ids_UVHW)
    assert found.ids_UVHW.size < len(text) / 2
    with pytest.raises(LabError, match="pieces can be made of this text, 5000 were asked for"):
        pieces(WORDS * 3, vocabulary=5000, name="words", seed=0)
    with pytest.raises(LabError, match="more than 256"):
        pieces(text, vocabulary=256, name="words", seed=0)


def test_texts_that_cannot_be_read(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(LabError, match="text.txt: not UTF-8: byte 3"):
        read_text(path)
    path.write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(LabError, match="text.txt: empty"):
        read_text(path)
    with pytest.raises(LabError, match="3 characters; a block is 256"):
        grids_of_sequence(
            np.zeros(3, int), name="x", unit="characters", block=256, alphabet=2, seed=0
        )


def test_a_real_text_is_far_from_uniform():
    """English letters have 4.1 to 4.3 bits each and the next given the last about 3.5."""
    manual = os.environ.get("TFDS_MANUAL_DIR")
    data = pathlib.Path(manual) if manual else ROOT.parent / "shared" / "data"
    path = data / "text" / "pg2701-moby-dick.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    record = token_statistics(characters(read_text(path), name="moby dick", seed=0))
    bits = record["unigram"]["entropy"]["nats"] / math.log(2)
    assert 4.1 < bits < 4.8
    across = record["bigram"]["horizontal"]
    assert across["converged"] and 3.3 < across["conditional_entropy"]["nats"] / math.log(2) < 3.8
    assert record["bigram"]["vertical"] is None and record["bigram"]["raster"] is None
