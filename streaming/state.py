"""Keyed state of one partition: a dictionary that knows which keys changed, and its changelog form.

Values are only ever re-assigned by their writers; that assignment is what marks a key as changed.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from streaming.unit import Output

V = TypeVar("V")


class StatePartition(dict[str, V], Generic[V]):
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
        self._dirty: dict[str, None] = {}  # ordered, so that a changelog is the same for the same input

    def __setitem__(self, key: str, value: V) -> None:
        super().__setitem__(key, value)
        self._dirty[key] = None

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._dirty[key] = None

    def pop(self, key: str, *default: V) -> V:  # type: ignore[override]  # only the forms MutableMapping's users call
        """Remove the key and return its value, else the default."""
        if key in self:
            self._dirty[key] = None
        return super().pop(key, *default)

    def take_changes(self) -> "list[Output]":
        """The changelog records of the keys changed since the last call; a removed key is a tombstone."""
        from streaming.unit import Output  # noqa: PLC0415  # unit imports state

        changes = [Output(key.encode(), self._dump(self[key]) if key in self else None) for key in self._dirty]
        self._dirty = {}
        return changes

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Apply one changelog record without marking the key as changed."""
        name = key.decode()
        if value is None:
            super().pop(name, None)
        else:
            super().__setitem__(name, self._load(name, value))
