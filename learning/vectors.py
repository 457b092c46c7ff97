"""Feature vectors of many examples as one matrix."""

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def matrix_of(vectors: Sequence[Sequence[float]], width: int) -> npt.NDArray[np.float64]:
    """The vectors as rows of a matrix that is not to be written to; shape (vectors, width).

    Through bytes, which takes less than half the time of `np.array`: that looks at each number twice. Raises
    `struct.error` where one has another width, or something else than numbers.

    >>> matrix_of([[1.0, 2.0], [3.0, 4.0]], 2).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    pack = struct.Struct(f"{width}d").pack
    return np.frombuffer(b"".join([pack(*vector) for vector in vectors])).reshape(-1, width)
