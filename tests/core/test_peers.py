"""Texts between processes, on a store that stands in for jax's, and a save that fails on one."""

import itertools
import threading

import numpy as np
import pytest

from lab.core import peers as peers_file
from lab.core import shared_store
from lab.core.errors import NotSaved
from lab.core.peers import PeerFailed, Peers
from lab.core.shared_store import SharedStore

ALONE = Peers(index=0, count=1)


class Shelf:
    """The key-value store of jax.distributed, in this process."""

    def __init__(self):
        self.held = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.held, "said twice"
        self.held[key] = value

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.held.items() if key.startswith(prefix)]

    def key_value_delete(self, prefix):
        self.held = {k: v for k, v in self.held.items() if not k.startswith(prefix)}


@pytest.fixture
def shelf(monkeypatch):
    made = Shelf()
    monkeypatch.setattr(peers_file, "_client", lambda: made)
    monkeypatch.setattr(peers_file, "_LOOK_S", 0.001)
    return made


def each(count, act):
    """What every process gives, or the exception that it raises."""
    found = [None] * count

    def run(index):
        try:
            found[index] = act(Peers(index, count))
        except PeerFailed as failure:
            found[index] = failure

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return found


def test_all_hear_all_in_order(shelf):
    found = each(12, lambda peers: peers.gather("where", f"here {peers.index}"))
    assert found == [[f"here {index}" for index in range(12)]] * 12
    ALONE.forget("where")
    assert shelf.held  # one process has nothing to drop
    Peers(0, 12).forget("where")
    assert shelf.held == {}


def test_topics_are_apart(shelf):
    Peers(1, 2).tell("save-1", "one")
    Peers(1, 2).tell("save-10", "ten")
    assert Peers(0, 2).check("save-1") == {1: "one"}
    assert Peers(0, 2).hear("save-10", 1) == "ten"


def test_a_failure_of_one_reaches_all_that_wait(shelf):
    def act(peers):
        if peers.index == 2:
            peers.fail("save", "No space left on device")
            raise PeerFailed("own")
        return peers.gather("save", "written")

    found = each(3, act)
    assert [str(error) for error in found] == ["No space left on device"] * 2 + ["own"]


def test_a_failure_after_the_first_word_is_heard_too(shelf):
    Peers(0, 2).tell("save", "written")
    Peers(0, 2).fail("save", "the rename failed")
    with pytest.raises(PeerFailed, match="the rename failed"):
        Peers(1, 2).hear("save", 0)


def test_one_process_talks_to_nobody(monkeypatch):
    monkeypatch.setattr(peers_file, "_client", None)
    assert ALONE.gather("topic", "text") == ["text"]
    ALONE.tell("topic", "text")
    ALONE.fail("topic", "text")
    assert ALONE.leads


class Writing:
    """What Orbax gives of a save: it ends with this error, or never."""

    def __init__(self, error=None):
        self.error, self.asked = error, 0
        self.never = threading.Event()

    def result(self, timeout=None):
        self.asked += 1
        assert self.asked < 50, "asked again and again"
        if self.error is None and not self.never.wait(timeout):
            raise TimeoutError
        raise self.error or AssertionError("it never ends")


@pytest.mark.parametrize("late", [0, 1])
def test_orbaxs_own_deadline_fails_the_save_on_all(shelf, monkeypatch, tmp_path, late):
    """It raises the TimeoutError that a wait with a limit raises too."""
    writing = [Writing(), Writing()]
    writing[late].error = TimeoutError("Overall save timeout exceeded.")
    waiting = list(writing)
    monkeypatch.setattr(shared_store, "start_writing", lambda *_, **__: waiting.pop(0))
    monkeypatch.setattr(shared_store, "_TURN", itertools.repeat(0))  # both take the same turns
    stores = [None, None]

    def opens(peers):
        stores[peers.index] = SharedStore(tmp_path, peers, keep_last=1, keep_every=None)

    each(2, opens)
    for store in stores:
        store.save(3, {"w": np.ones(2)}, metrics={})
    for store in stores:
        with pytest.raises(NotSaved, match="3: not saved: Overall save timeout exceeded"):
            store.close()
    assert [response.asked for response in writing] == [1, 1]
    writing[1 - late].never.set()
