"""Reads pickles that hold nothing but drift detectors, River's statistics and plain containers.

A pickle may name any function and have it called. This reader resolves names from a short list only, and from River's
modules only what they define themselves: an `os` that one of them imports is not theirs.
"""

import io
import pickle
import random
from typing import Any

_ROOMS = ("river.drift", "river.stats", "river.metrics", "river._river_rust")
_PLAIN = {
    ("builtins", name)
    for name in (
        "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range",
        "set", "slice", "str", "tuple",
    )
} | {
    ("collections", "deque"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
    ("random", "Random"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "scalar"),
}  # fmt: skip


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _method  # detectors hold bound methods of their own statistics, pickled as a getattr
        if (module, name) in _PLAIN:
            return super().find_class(module, name)
        if "." not in name and _is_room(module):
            found = super().find_class(module, name)
            if isinstance(found, type) and _is_room(found.__module__):
                return found
        message = f"got a pickle that names {module}.{name}, expected River's drift, stats or metrics only"
        raise pickle.UnpicklingError(message)


def loads(data: bytes) -> Any:
    r"""The object. Raises `pickle.UnpicklingError` for what it may not hold, and for what is no pickle.

    >>> loads(pickle.dumps({"a": [1, 2.0]}))
    {'a': [1, 2.0]}
    >>> loads(b"cos\nsystem\n(S'echo'\ntR.")
    Traceback (most recent call last):
    _pickle.UnpicklingError: got a pickle that names os.system, expected River's drift, stats or metrics only
    """
    try:
        return _Reader(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as exc:
        message = f"got {len(data)} bytes that are no readable pickle: {exc}"
        raise pickle.UnpicklingError(message) from exc


def _is_room(module: str) -> bool:
    return any(module == room or module.startswith(room + ".") for room in _ROOMS)


def _method(owner: object, name: str) -> Any:
    """`getattr` for methods of objects this reader may make, and of nothing else."""
    known = isinstance(owner, random.Random) or _is_room(type(owner).__module__)
    found = getattr(owner, name) if known and not name.startswith("__") else None
    if isinstance(owner, type) or getattr(found, "__self__", None) is not owner:
        message = f"got a pickle that takes {name!r} of a {type(owner).__name__}, expected a detector's method"
        raise pickle.UnpicklingError(message)
    return found
