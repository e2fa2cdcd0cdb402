"""The processes of one job, and short texts between them beside the devices.

Texts go through the key-value store of jax's coordination service, which needs no device: a thread
that writes a checkpoint can use it while the main thread trains. A collective of the devices
could not be used there, for all processes must start those in one order.
"""

import dataclasses
import json
import threading
from typing import Any, Self

_LOOK_S = 0.05


class PeerFailed(Exception):
    """Another process said that its part failed; the message is its reason."""


@dataclasses.dataclass(frozen=True)
class Peers:
    """This process's number and how many there are. A job of one process talks to nobody."""

    index: int
    count: int

    @classmethod
    def of_jax(cls) -> Self:
        """Those of jax.distributed."""
        import jax

        return cls(index=jax.process_index(), count=jax.process_count())

    @property
    def leads(self) -> bool:
        """Whether this process writes what one process writes: record, config, manifests."""
        return self.index == 0

    def tell(self, topic: str, text: str) -> None:
        """Say something on a topic, once."""
        if self.count > 1:
            _client().key_value_set(_key(topic, self.index), json.dumps({"text": text}))

    def fail(self, topic: str, reason: str) -> None:
        """Say that this process's part failed, so that nobody waits for it."""
        if self.count > 1:
            failure = json.dumps({"failed": reason})
            _client().key_value_set(_key(topic, self.index), failure, allow_overwrite=True)

    def check(self, topic: str) -> dict[int, str]:
        """What was said so far, by process; raises PeerFailed where one failed."""
        return _texts(_client().key_value_dir_get(_key(topic)))

    def hear(self, topic: str, process: int) -> str:
        """Wait for what one process says; raises PeerFailed where any says that it failed.

        There is no limit of time: that a process is dead or hangs is for a watchdog to find.
        """
        while True:
            said = self.check(topic)
            if process in said:
                return said[process]
            threading.Event().wait(_LOOK_S)

    def gather(self, topic: str, text: str) -> list[str]:
        """Tell, and hear all, in their order. Every process must come by with the same topics."""
        if self.count == 1:
            return [text]
        self.tell(topic, text)
        return [self.hear(topic, process) for process in range(self.count)]

    def forget(self, topic: str) -> None:
        """Drop a topic that all have left; one process does that."""
        if self.count > 1:
            _client().key_value_delete(_key(topic))


def _key(topic: str, process: int | None = None) -> str:
    return f"lab/{topic}/" + ("" if process is None else str(process))


def _texts(found: list[tuple[str, str]]) -> dict[int, str]:
    said = {}
    for key, value in found:
        content = json.loads(value)
        if "failed" in content:
            raise PeerFailed(content["failed"])
        said[int(key.rsplit("/", 1)[1])] = content["text"]
    return said


def _client() -> Any:
    """jax.distributed's own client; jax names it in no public module, and Orbax uses it alike."""
    from jax._src import distributed

    return distributed.global_state.client
