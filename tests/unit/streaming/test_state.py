"""Keyed state and its changelog form: what is restored is what was there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.state import StatePartition

Op = tuple[str, str, bytes]


def partition() -> StatePartition[bytes]:
    return StatePartition("t", load=lambda _, data: data, dump=bytes)


operations = st.lists(
    st.tuples(st.sampled_from(["set", "del", "pop", "cut"]), st.sampled_from("abc"), st.binary(max_size=3)),
    max_size=40,
)


@given(operations)
def test_a_changelog_read_back_gives_the_same_state(steps: list[Op]) -> None:
    live, restored = partition(), partition()
    for what, key, value in steps:
        if what == "set":
            live[key] = value
        elif what == "del" and key in live:
            del live[key]
        elif what == "pop":
            live.pop(key, b"")
        elif what == "cut":
            for change in live.take_changes():
                assert change.key is not None
                restored.restore(change.key, change.value)
            assert restored == live
    assert partition().take_changes() == []


def test_restoring_marks_nothing_as_changed() -> None:
    part = partition()
    part.restore(b"a", b"1")
    part.restore(b"b", b"2")
    part.restore(b"b", None)
    assert part == {"a": b"1"}
    assert part.take_changes() == []


def test_a_key_written_and_removed_between_cuts_leaves_a_tombstone() -> None:
    part = partition()
    part["a"] = b"1"
    del part["a"]
    assert [(c.key, c.value) for c in part.take_changes()] == [(b"a", None)]


def test_a_key_is_written_as_it_was_assigned_last_and_where_it_changed_first() -> None:
    part = partition()
    part["a"] = b"1"
    part["b"] = b"2"
    del part["a"]
    part["a"] = b"3"
    part.pop("b")
    assert [(c.key, c.value) for c in part.take_changes()] == [(b"a", b"3"), (b"b", None)]


def test_changes_that_cannot_be_written_are_not_forgotten() -> None:
    part = StatePartition[str]("t", load=lambda _, data: data.decode(), dump=str.encode)
    part["a"] = "\ud800"
    with pytest.raises(UnicodeEncodeError):
        part.take_changes()
    part["a"] = "b"
    assert [(c.key, c.value) for c in part.take_changes()] == [(b"a", b"b")]
