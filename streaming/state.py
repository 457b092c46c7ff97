"""Keyed state of one partition: a dictionary that knows which keys changed, and its changelog form.

Values are only ever re-assigned by their writers; that assignment is what marks a key as changed.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from learning.label import Queue

if TYPE_CHECKING:
    from streaming.unit import Output

V = TypeVar("V")
GONE: Final = object()  # what a removed key has changed to


class Span(msgspec.Struct, frozen=True):
    """Where the records of one partition have been written: the first one's offset, and the one after the last's."""

    first: int
    after: int


class Changelog(msgspec.Struct, frozen=True):
    """What a broker says of one changelog partition.

    Attributes:
        begin: its first offset.
        end: its end for readers of committed records.
        asked: when it was asked for its end, in seconds since 1970.
        topic_id: what tells the topic from one of the same name; empty where it was not asked for.
        tombstones: for how many seconds a removal stays in it at least; None where the broker does not say.
    """

    begin: int
    end: int
    asked: float
    topic_id: bytes = b""
    tombstones: float | None = None


class Partition(MutableMapping[str, V]):
    """What a unit needs of its state, wherever that is kept.

    Attributes:
        topic: the changelog.
        on_disk: whether it outlives the process.
        queues: by kind, keys in the order of their due times, where the partition keeps it; else None.
    """

    topic: str
    on_disk: bool = False
    queues: Mapping[int, Queue] | None = None

    @abstractmethod
    def take_changes(self) -> "list[Output]":
        """The changelog records of the keys changed since the last call; a removed key is a tombstone."""

    @abstractmethod
    def restore(self, key: bytes, value: bytes | None) -> None:
        """Apply one changelog record without marking the key as changed."""

    def start(self, log: Changelog) -> int:
        """The offset from which the changelog is to be read."""
        return log.begin

    def restored(self, position: int, log: Changelog) -> None:
        """Told that the changelog has been restored up to this position."""

    def committed(self, span: Span | None) -> None:
        """Told that what was taken last is durable, and where it is; None where nothing of this partition was."""

    def close(self) -> None:
        """Let go of what the partition holds. It is not used any more."""


class StatePartition(dict[str, V], Partition[V], Generic[V]):
    """A dictionary from key to value that remembers its changed keys until the next checkpoint.

    >>> part = StatePartition("app-t-changelog", load=lambda key, data: data, dump=bytes)
    >>> part["a"] = b"1"
    >>> [(o.key, o.value) for o in part.take_changes()], part.take_changes()
    ([(b'a', b'1')], [])
    >>> del part["a"]
    >>> [(o.key, o.value) for o in part.take_changes()]
    [(b'a', None)]
    """

    def __init__(self, topic: str, *, load: Callable[[str, bytes], V], dump: Callable[[V], bytes]) -> None:
        super().__init__()
        self.topic = topic
        self._load = load
        self._dump = dump
        # What was assigned last to each changed key, in the order of first changes: so the changelog is the same for
        # the same input.
        self._changed: dict[str, Any] = {}

    def __setitem__(self, key: str, value: V) -> None:
        dict.__setitem__(self, key, value)  # an event does it several times, and `super()` costs more than it
        self._changed[key] = value

    def __delitem__(self, key: str) -> None:
        dict.__delitem__(self, key)
        self._changed[key] = GONE

    def pop(self, key: str, *default: V) -> V:  # type: ignore[override]  # only the forms MutableMapping's users call
        """Remove the key and return its value, else the default."""
        if key in self:
            self._changed[key] = GONE
        return super().pop(key, *default)

    def take_changes(self) -> "list[Output]":
        """The changelog records of the keys changed since the last call; a removed key is a tombstone."""
        from streaming.unit import Output  # noqa: PLC0415  # unit imports state

        dump, changed = self._dump, self._changed.items()
        changes = [Output(key.encode(), None if value is GONE else dump(value)) for key, value in changed]
        self._changed = {}
        return changes

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Apply one changelog record without marking the key as changed."""
        name = key.decode()
        if value is None:
            super().pop(name, None)
        else:
            super().__setitem__(name, self._load(name, value))
