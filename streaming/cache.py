"""Decoded values of all of a worker's partitions on disk, the latest used ones, within a limit of bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final

OVERHEAD = 500  # bytes that an entry takes beyond its value's encoded form: two keys, their tuple, its link, the object
MISSING: Final = object()


class Cache:
    """Values by owner and key, each with a size; the one that was not used for longest goes first.

    >>> cache = Cache(limit=2 * OVERHEAD + 10)
    >>> for key in "abc":
    ...     cache.put("p", key, key.upper(), size=1)
    >>> cache.get("p", "a") is MISSING, cache.get("p", "b"), cache.get("p", "c")
    (True, 'B', 'C')
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._values: OrderedDict[tuple[Hashable, str], tuple[Any, int]] = OrderedDict()

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._used

    def get(self, owner: Hashable, key: str) -> Any:
        """The value, which counts as used now; else MISSING."""
        where = (owner, key)
        found = self._values.get(where)
        if found is None:
            return MISSING
        self._values.move_to_end(where)
        return found[0]

    def put(self, owner: Hashable, key: str, value: Any, size: int) -> None:
        """Keep a value in place of what was there; others go, so that the limit holds."""
        self.drop(owner, key)
        size += OVERHEAD
        self._values[owner, key] = (value, size)
        self._used += size
        while self._used > self._limit:
            _, (_, freed) = self._values.popitem(last=False)
            self._used -= freed

    def drop(self, owner: Hashable, key: str) -> None:
        """Forget a value, if it is there."""
        found = self._values.pop((owner, key), None)
        if found is not None:
            self._used -= found[1]

    def forget(self, owner: Hashable) -> None:
        """Forget all values of an owner."""
        for where in [where for where in self._values if where[0] == owner]:
            self.drop(*where)
