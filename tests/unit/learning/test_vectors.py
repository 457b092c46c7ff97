"""Vectors as one array: the same bits, or none."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.vectors import matrix


@given(st.integers(1, 20).flatmap(lambda width: st.lists(st.lists(st.floats(), min_size=width, max_size=width))))
def test_every_number_keeps_its_bits(vectors: list[list[float]]) -> None:
    width = len(vectors[0]) if vectors else 3
    made = matrix(vectors, width)
    assert made is not None
    assert made.shape == (len(vectors), width)
    assert made.tobytes() == b"".join(struct.pack(f"{width}d", *vector) for vector in vectors)


@pytest.mark.parametrize("odd", [1, True, None, "text", 2**40, -(2**62)])
@pytest.mark.parametrize("place", [0, 3, 4_000])
def test_numbers_that_are_no_floats_are_not_taken_for_some(odd: Any, place: int) -> None:
    """Some of them are written as long as a float is."""
    vectors: Any = [[1.0] for _ in range(4_001)]
    vectors[place][0] = odd
    assert matrix(vectors, 1) is None
