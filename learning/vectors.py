"""Many vectors as one array, by MessagePack: its encoder takes half the time, or less, of what else reads lists.

It writes every float in one length, a mark and then the number, so what it has written is an array already.
"""

from collections.abc import Iterable
from itertools import chain

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_FLOAT = np.dtype([("mark", "u1"), ("number", ">f8")])
_MARK = 0xCB

_encode = msgspec.msgpack.Encoder().encode


def matrix(vectors: Iterable[list[float]], width: int) -> Floats | None:
    """The vectors as rows, of shape (vectors, width), which is not 0; None where not all of their numbers are floats.

    Whoever calls sees to it that there are so many in each.

    >>> matrix([[1.0, 2.0], [3.0, 4.0]], 2)
    array([[1., 2.],
           [3., 4.]])
    """
    numbers = list(chain.from_iterable(vectors))
    written = _encode(numbers)
    begin = len(written) - _FLOAT.itemsize * len(numbers)  # behind how many there are
    if begin <= 0:
        return None
    floats = np.frombuffer(written, _FLOAT, offset=begin)
    if not (floats["mark"] == _MARK).all():
        return None
    return floats["number"].astype(np.float64).reshape(-1, width)
