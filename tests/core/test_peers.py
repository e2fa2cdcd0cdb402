"""Texts between processes, on a store that stands in for jax's."""

import threading

import pytest

from lab.core import peers as peers_file
from lab.core.peers import PeerFailed, Peers

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
