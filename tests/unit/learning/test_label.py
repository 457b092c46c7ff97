"""The label join, case by case. tests/laws/test_label_lifecycle.py has the laws that hold for all of them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.label import LATEST, WATERMARKS, HeapQueue, PendingLabels, Resolution
from learning.records import Correction, Example, Prediction

HOUR = 3_600_000


def pending(entries: dict[str, bytes] | None = None, **settings: Any) -> PendingLabels:
    defaults: dict[str, Any] = {"horizon_ms": HOUR, "expired": "drop", "corrected": "log"}
    return PendingLabels({} if entries is None else entries, **{**defaults, **settings})


def prediction(name: str = "a", time_ms: int = 0) -> Prediction:
    return Prediction(name, "k", time_ms, 0.25, 7, [1.0, 2.0], "s")


def example(outcome: bool, label_time_ms: int, source: str, time_ms: int = 0) -> Example:
    return Example("a", "k", time_ms, label_time_ms, 0.25, 7, [1.0, 2.0], "s", outcome, source)


def expire(join: PendingLabels, **settings: Any) -> list[Resolution]:
    return join.expire(**{"labels_to": LATEST, "events_to": LATEST, **settings})


def test_label_matches_its_event_with_the_vector_of_the_prediction() -> None:
    join = pending()
    assert join.open(prediction()) is None
    assert join.resolve("a", "k", True, 5) == Resolution("matched", example(True, 5, "label"), "a")


def test_early_label_waits_and_matches_when_its_event_comes() -> None:
    join = pending()
    assert join.resolve("a", "k", True, 5) == Resolution("early", None, "a")
    assert not join.seen("a")
    assert join.open(prediction()) == Resolution("matched", example(True, 5, "label"), "a")
    assert join.seen("a")


def test_early_label_that_changes_replaces_the_first() -> None:
    join = pending()
    join.resolve("a", "k", True, 5)
    assert join.resolve("a", "k", True, 6).kind == "duplicate"
    assert join.resolve("a", "k", False, 7) == Resolution("corrected", None, "a")
    assert join.open(prediction()) == Resolution("matched", example(False, 7, "label"), "a")


def test_same_label_again_is_a_duplicate() -> None:
    join = pending()
    join.open(prediction())
    join.resolve("a", "k", True, 5)
    assert join.resolve("a", "k", True, 9) == Resolution("duplicate", None, "a")


def test_changed_label_is_logged_as_a_correction_each_time() -> None:
    join = pending()
    join.open(prediction())
    join.resolve("a", "k", True, 5)
    assert join.resolve("a", "k", False, 6).record == Correction("a", "k", 0, 6, False, True)
    assert join.resolve("a", "k", True, 7).record == Correction("a", "k", 0, 7, True, False)


def test_changed_label_is_an_example_with_the_first_vector_where_corrections_are_learned() -> None:
    join = pending(corrected="learn")
    join.open(prediction())
    join.resolve("a", "k", True, 5)
    assert join.resolve("a", "k", False, 6) == Resolution("corrected", example(False, 6, "correction"), "a")


def test_label_after_the_horizon_is_late_before_and_after_the_expiry_ran() -> None:
    join = pending()
    join.open(prediction())
    assert join.resolve("a", "k", True, HOUR + 1).kind == "late"
    assert expire(join) == [Resolution("expired", None, "a")]
    assert join.resolve("a", "k", True, HOUR + 1).kind == "late"
    assert join.seen("a")


def test_label_at_the_horizon_matches() -> None:
    join = pending()
    join.open(prediction())
    assert join.resolve("a", "k", True, HOUR).kind == "matched"


def test_expiry_is_a_negative_example_where_the_pipeline_says_so() -> None:
    join = pending(expired="negative")
    join.open(prediction())
    join.open(prediction("b", HOUR + 1))
    assert expire(join) == [Resolution("expired", example(False, HOUR, "expiry"), "a")]


def test_event_does_not_expire_while_labels_are_unread() -> None:
    join = pending()
    join.open(prediction())
    join.open(prediction("b", 50 * HOUR))
    assert expire(join, labels_to=join.label_ms) == []
    assert join.resolve("a", "k", True, 5).kind == "matched"


def test_event_expires_by_labels_read_past_its_horizon() -> None:
    join = pending()
    join.open(prediction())
    join.resolve("x", "k", True, HOUR)
    assert expire(join, labels_to=join.label_ms) == []
    join.resolve("y", "k", True, HOUR + 1)
    assert [r.kind for r in expire(join, labels_to=join.label_ms, events_to=join.event_ms)] == ["expired"]


def test_early_label_does_not_end_while_events_are_unread() -> None:
    join = pending()
    join.resolve("a", "k", True, 5)
    join.resolve("b", "k", True, 50 * HOUR)
    assert expire(join, events_to=join.event_ms) == []
    assert [(r.kind, r.id) for r in expire(join)] == [("orphan", "a")]


@pytest.mark.parametrize(("time_ms", "kind"), [(-HOUR - 1, "late"), (HOUR + 1, "orphan")])
def test_event_out_of_reach_of_its_early_label_waits(time_ms: int, kind: str) -> None:
    join = pending()
    join.resolve("a", "k", True, 0)
    resolution = join.open(prediction(time_ms=time_ms))
    assert resolution is not None
    assert (resolution.kind, resolution.record) == (kind, None)
    assert join.resolve("a", "k", True, time_ms + 1).kind == "matched"


def test_memory_ends_one_horizon_after_the_label() -> None:
    entries: dict[str, bytes] = {}
    join = pending(entries)
    join.open(prediction())
    join.resolve("a", "k", True, 10)
    join.open(prediction("b", HOUR + 10))
    expire(join)
    assert join.seen("a")
    join.resolve("b", "k", True, HOUR + 11)
    expire(join)
    assert not join.seen("a")
    assert set(entries) == {"b", WATERMARKS}


def test_limit_bounds_one_call_and_the_next_goes_on() -> None:
    join = pending()
    for i in range(10):
        join.open(prediction(str(i), i))
    join.open(prediction("last", 100 * HOUR))
    assert [len(expire(join, limit=4)) for _ in range(4)] == [4, 4, 2, 0]


def test_event_that_is_known_or_reserved_is_refused() -> None:
    join = pending()
    join.open(prediction())
    with pytest.raises(ValueError, match="seen"):
        join.open(prediction())
    with pytest.raises(ValueError, match="x00"):
        join.open(prediction(WATERMARKS))
    with pytest.raises(ValueError, match="NUL"):
        join.resolve(WATERMARKS, "k", True, 0)


def test_entry_of_another_layout_is_refused() -> None:
    entries: dict[str, bytes] = {}
    pending(entries).open(prediction())
    entries["a"] = b"\x09" + entries["a"][1:]
    with pytest.raises(ValueError, match="layout 9"):
        pending(entries)


def test_watermarks_survive() -> None:
    entries: dict[str, bytes] = {}
    join = pending(entries)
    join.open(prediction(time_ms=5))
    join.resolve("x", "k", True, 3)
    again = pending(entries)
    assert (again.event_ms, again.label_ms) == (5, 3)


def body(entry: bytes) -> Any:
    return msgspec.msgpack.decode(entry[10:])


@pytest.mark.parametrize(("corrected", "kept"), [("log", [0.0, 0, [], ""]), ("learn", [0.25, 7, [1.0, 2.0], "s"])])
def test_entries_are_written_as_layout_1_has_them(corrected: str, kept: list[Any]) -> None:
    """What a worker of an earlier version has written is read by this one, and the other way round."""
    entries: dict[str, bytes] = {}
    join = pending(entries, corrected=corrected)
    join.open(prediction(time_ms=5))
    assert entries["a"][:10] == b"\x01w" + (HOUR + 5).to_bytes(8, "little")
    assert body(entries["a"]) == ["k", 5, 0.25, 7, [1.0, 2.0], "s"]
    assert msgspec.msgpack.decode(entries[WATERMARKS]) == [5, -(1 << 62)]
    join.resolve("a", "k", True, 9)
    assert entries["a"][:10] == b"\x01r" + (HOUR + 9).to_bytes(8, "little")
    assert body(entries["a"]) == [True, ["k", 5, *kept]]
    assert msgspec.msgpack.decode(entries[WATERMARKS]) == [5, 9]
    join.resolve("b", "k", False, 9)
    assert body(entries["b"]) == ["k", 9, False]


ITEMS = st.tuples(st.integers(0, 9), st.sampled_from("abc"))


@given(st.lists(ITEMS), st.lists(ITEMS | st.integers(0, 11), max_size=60))
def test_a_queue_gives_what_a_sorted_list_gives(first: list[tuple[int, str]], moves: list[Any]) -> None:
    queue, left = HeapQueue(first), sorted(first)
    for move in [*moves, 11]:
        if isinstance(move, tuple):
            queue.push(move)
            left = sorted([*left, move])
        else:
            assert list(queue.due(move)) == [item for item in left if item[0] < move]
            left = [item for item in left if item[0] >= move]
            assert len(queue) == len(left)


def test_a_queue_keeps_what_was_due_and_not_asked_for() -> None:
    queue = HeapQueue([(1, "a"), (3, "c")])
    queue.push((2, "b"))
    assert [next(queue.due(9)) for _ in range(2)] == [(1, "a"), (2, "b")]
    assert list(queue.due(9)) == [(3, "c")]
