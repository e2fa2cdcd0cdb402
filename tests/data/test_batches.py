"""Batches: permutations per epoch, hosts, prefetching, and the masked last batch."""

import threading

import grain
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.data.batches import Batches, validation_batches
from lab.data.tokens import MirroredImages, Rows, TokenTable, ViewedRows

COUNT = 23


@pytest.fixture(scope="module")
def rows():
    """Row i holds the tokens i, i + 1, i + 2 and the label i mod 10."""
    index = np.arange(COUNT)
    tokens = (index[:, None] + np.arange(3)).astype(np.uint8)
    return TokenTable(Rows(tokens, (index % 10).astype(np.int32)))


def served(batches, steps):
    return np.concatenate([batches.at(step)["tokens"][:, 0] for step in steps]).tolist()


def test_a_batch_has_tokens_labels_and_weights(rows):
    batch = Batches(rows, seed=0, batch_size=4).at(0)
    assert {name: (a.shape, a.dtype.name) for name, a in batch.items()} == {
        "tokens": ((4, 3), "uint8"),
        "label": ((4,), "int32"),
        "weight": ((4,), "float32"),
    }
    first = batch["tokens"][:, 0].astype(int)
    assert np.array_equal(batch["tokens"], first[:, None] + np.arange(3))
    assert np.array_equal(batch["label"], first % 10) and (batch["weight"] == 1).all()


def test_no_example_twice_before_an_epoch_ends(rows):
    stream = served(Batches(rows, seed=0, batch_size=4), range(23))  # 92 rows: four epochs
    epochs = [stream[at : at + COUNT] for at in range(0, 92, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_order_is_a_function_of_the_seed(rows):
    one = served(Batches(rows, seed=1, batch_size=23), range(4))
    assert one == served(Batches(rows, seed=1, batch_size=23), range(4))
    two = served(Batches(rows, seed=2, batch_size=23), range(4))
    assert one != two
    assert one[COUNT : 2 * COUNT] != two[:COUNT]  # seeds are not epochs of one another


@pytest.mark.parametrize("step", [0, 3, 7, 1000])
def test_at_is_a_pure_function_of_the_step(rows, step):
    used = Batches(rows, seed=0, batch_size=4)
    for other in (5, 0, 9):
        used.at(other)
    fresh = Batches(rows, seed=0, batch_size=4)
    assert np.array_equal(used.at(step)["tokens"], fresh.at(step)["tokens"])


def cuts(hosts):
    """Places of 8 rows for each of so many hosts: in blocks, and in any other way."""
    shuffled = np.random.default_rng(hosts).permutation(8)
    return [np.split(np.arange(8), hosts), np.split(shuffled, hosts)]


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_share_one_global_batch(rows, hosts):
    whole = Batches(rows, seed=0, batch_size=8)
    for cut in cuts(hosts):
        parts = [Batches(rows, seed=0, batch_size=8, places=places) for places in cut]
        for step in range(7):
            union = np.empty((8, 3), np.uint8)
            for places, part in zip(cut, parts, strict=True):
                union[places] = part.at(step)["tokens"]
            assert np.array_equal(union, whole.at(step)["tokens"])


def test_the_order_is_that_of_the_stream_in_batches(rows):
    """Runs that were stopped before hosts were given places go on as they would have."""
    order = grain.MapDataset.range(COUNT).seed(5).shuffle().repeat().batch(8, batch_fn=np.asarray)
    for step in (0, 3, 1000):
        labels = Batches(rows, seed=5, batch_size=8).at(step)["tokens"][:, 0]
        assert np.array_equal(labels, order[step])


class Elsewhere(TokenTable):
    """Rows that a thread makes ahead."""

    in_memory = False


@pytest.fixture(params=[TokenTable, Elsewhere])
def either(request, rows):
    """The rows in memory, and the same as if they were to be read."""
    return request.param(rows.rows(range(COUNT)))


@pytest.mark.parametrize("together", [1, 5, 100])
def test_prefetched_batches_are_those_of_at(either, together):
    batches = Batches(either, seed=0, batch_size=4, places=[1, 3], together=together)
    with batches.prefetched(3, 20) as ahead:
        found = list(ahead)
    assert len(found) == 17
    for step, batch in enumerate(found, start=3):
        for name, values in batches.at(step).items():
            assert np.array_equal(values, batch[name])


@pytest.mark.parametrize("in_memory", [True, False])
def test_batches_made_together_have_the_views_of_their_steps(rows, in_memory):
    mirrored = TokenTable(Rows(rows.tokens[:, ::-1].copy(), rows.labels))
    views = ViewedRows([rows, mirrored])
    views.in_memory = in_memory
    batches = Batches(views, seed=3, batch_size=6, places=[0, 2, 5], together=4)
    with batches.prefetched(2, 13) as ahead:
        found = [batch["tokens"] for batch in ahead]
    expected = [batches.at(step)["tokens"] for step in range(2, 13)]
    assert np.array_equal(found, expected)
    falls = np.stack(expected)[..., 0] > np.stack(expected)[..., 2]
    assert falls.any() and not falls.all()  # both views are there


def test_what_is_to_be_read_is_read_a_batch_at_a_time(rows):
    asked = []

    class Counted(Elsewhere):
        def rows(self, indices, views=None):
            asked.append(len(indices))
            return super().rows(indices)

    batches = Batches(Counted(rows.rows(range(COUNT))), seed=0, batch_size=4, together=5)
    with batches.prefetched(0, 10) as ahead:
        assert len(list(ahead)) == 10
    assert asked == [4] * 10


def started_by(work):
    """The names of threads that came while the work ran."""
    before = set(threading.enumerate())
    work()
    return [thread.name for thread in set(threading.enumerate()) - before]


@pytest.mark.parametrize(
    ("kind", "copies", "threads"), [(TokenTable, 1, 0), (Elsewhere, 1, 1), (TokenTable, 2**16, 1)]
)
def test_small_batches_in_memory_are_made_without_a_thread(rows, kind, copies, threads):
    table = kind(Rows(np.tile(rows.tokens, (1, copies)), rows.labels))
    batches = Batches(table, seed=0, batch_size=4, together=2)
    with batches.prefetched(0, 10) as ahead:
        assert len(started_by(lambda: next(ahead))) == threads


def test_prefetching_ends_with_its_context(rows):
    before = set(threading.enumerate())  # one of an earlier test may end meanwhile
    batches = Batches(Elsewhere(rows.rows(range(COUNT))), seed=0, batch_size=4)
    with batches.prefetched(0, 10_000) as ahead:
        next(ahead)
    with pytest.raises(KeyboardInterrupt), batches.prefetched(0, 10_000) as ahead:
        next(ahead)
        raise KeyboardInterrupt
    assert not set(threading.enumerate()) - before
    with batches.prefetched(5, 5) as ahead:
        assert list(ahead) == []


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_error_while_prefetching_reaches_the_reader(rows, in_memory):
    class Broken(TokenTable):
        def rows(self, indices, views=None):
            if len(indices) > 1:
                raise LabError("record 3 cannot be read")
            return super().rows(indices)

    broken = Broken(rows.rows(range(COUNT)))
    broken.in_memory = in_memory
    batches = Batches(broken, seed=0, batch_size=4)
    with pytest.raises(LabError, match="record 3"), batches.prefetched(0, 5) as ahead:
        next(ahead)


def test_changing_a_batch_does_not_change_the_table(rows):
    batches = Batches(rows, seed=0, batch_size=4)
    batches.at(0)["tokens"][:] = 99
    assert rows.tokens.max() < 99


@pytest.mark.parametrize("cut", [cut for hosts in (1, 2, 4) for cut in cuts(hosts)])
def test_validation_serves_each_example_once_in_order_and_masks_the_rest(rows, cut):
    tokens, weight = np.full(24, -1), np.full(24, -1.0)
    parts = [validation_batches(rows, batch_size=8, places=places) for places in cut]
    assert [len(part) for part in parts] == [3] * len(cut)
    for index, together in enumerate(zip(*parts, strict=True)):
        for places, batch in zip(cut, together, strict=True):
            tokens[8 * index + places] = batch["tokens"][:, 0]
            weight[8 * index + places] = batch["weight"]
    assert np.array_equal(tokens[:COUNT], np.arange(COUNT))
    assert weight.tolist() == [1.0] * COUNT + [0.0]
    assert tokens[COUNT:].tolist() == [0]
    every = [parts[0].weights(index) for index in range(3)]
    assert np.array_equal(np.concatenate(every), weight)


def test_validation_of_fewer_examples(rows):
    batches = list(validation_batches(rows, batch_size=4, examples=10))
    assert [batch["weight"].sum() for batch in batches] == [4, 4, 2]
    assert {len(batch["tokens"]) for batch in batches} == {4}
    assert batches[-1]["label"].tolist() == [8, 9, 0, 0]


def test_wrong_sizes(rows):
    with pytest.raises(LabError, match="24 examples are not there; allowed: 1 to 23"):
        validation_batches(rows, batch_size=4, examples=24)
    with pytest.raises(LabError, match="batch_size 0: allowed: 1 or more"):
        Batches(rows, seed=0, batch_size=0)
    with pytest.raises(LabError, match=r"places \[0, 4\]: allowed: some of 0 to 3"):
        Batches(rows, seed=0, batch_size=4, places=[0, 4])
    with pytest.raises(LabError, match=r"places \[\]: allowed: some of 0 to 3"):
        validation_batches(rows, batch_size=4, places=[])
    with pytest.raises(IndexError):
        Batches(rows, seed=0, batch_size=4).at(-1)
    with pytest.raises(IndexError):
        validation_batches(rows, batch_size=4).at(6)


def viewed(rows):
    """Three views: view v of row i holds tokens i + 100 v ..."""
    tables = [
        TokenTable(Rows((rows.tokens + np.uint8(v * 70)).astype(np.uint8), rows.labels))
        for v in range(3)
    ]
    return ViewedRows(tables)


def test_views_are_drawn_alike_for_any_hosts_and_all_come_up(rows):
    whole = Batches(viewed(rows), seed=3, batch_size=12)
    cut = [np.arange(h, 12, 3) for h in range(3)]
    parts = [Batches(viewed(rows), seed=3, batch_size=12, places=places) for places in cut]
    seen = np.zeros(3, int)
    for step in range(40):
        batch = whole.at(step)
        first, label = batch["tokens"][:, 0].astype(int), batch["label"]
        view = np.round((first - label) / 70).astype(int)  # rows 0 to 22: 70 apart is unambiguous
        seen += np.bincount(view, minlength=3)
        for h, part in enumerate(parts):
            np.testing.assert_array_equal(part.at(step)["tokens"], batch["tokens"][h::3])
    assert seen.sum() == 480
    assert np.all(np.abs(seen - 160) < 5 * np.sqrt(480 * 2 / 9))  # five standard deviations


def test_the_order_of_images_does_not_depend_on_the_views(rows):
    plain, many = (Batches(r, seed=1, batch_size=4) for r in (rows, viewed(rows)))
    for step in (0, 7):
        np.testing.assert_array_equal(plain.at(step)["label"], many.at(step)["label"])


def test_validation_reads_the_image_itself(rows):
    batch = next(iter(validation_batches(viewed(rows), batch_size=8)))
    np.testing.assert_array_equal(batch["tokens"], rows.tokens[:8])


def test_mirrored_images_are_those_read_backwards():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 2)).astype(np.uint8)
    flat = TokenTable(Rows(images.reshape(5, -1), np.arange(5, dtype=np.int32)), are_images=True)
    found = MirroredImages(flat, (3, 4, 2)).rows([4, 1]).tokens.reshape(2, 3, 4, 2)
    for got, want in zip(found, images[[4, 1]], strict=True):
        for row in range(3):
            for column in range(4):
                np.testing.assert_array_equal(got[row, column], want[row, 3 - column])
