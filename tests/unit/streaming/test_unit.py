"""A unit's promises: marks are contiguous, a cut is one instant, closed is closed."""

from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from streaming.state import StatePartition
from streaming.unit import MAX_ASKED, Chunk, Unit

EVENTS, LABELS = TopicPartition("events", 2), TopicPartition("labels", 2)


def record(offset: int) -> Any:
    return ConsumerRecord("events", 2, offset, 0, 0, b"k", b"v", None, 1, 1, ())


def chunk(base: int, *offsets: int, tp: TopicPartition = EVENTS) -> Chunk:
    return Chunk(tp, base, [record(offset) for offset in offsets])


@pytest.fixture
def unit() -> Unit:
    part: StatePartition[bytes] = StatePartition("changelog", load=lambda _, data: data, dump=bytes)
    return Unit("group", 2, {"table": part}, {EVENTS: 10, LABELS: 0})


def offsets(records: Any) -> list[int] | None:
    return None if records is None else [r.offset for r in records]


def test_a_chunk_that_follows_is_taken_whole(unit: Unit) -> None:
    assert offsets(unit.take(chunk(10, 10, 11, 14))) == [10, 11, 14]


def test_records_before_the_mark_are_passed_over(unit: Unit) -> None:
    assert offsets(unit.take(chunk(7, 8, 9, 10, 11))) == [10, 11]


def test_a_chunk_that_would_skip_records_is_refused(unit: Unit) -> None:
    assert unit.take(chunk(11, 11, 12)) is None
    assert unit.take(chunk(0, 0, tp=TopicPartition("events", 3))) is None


def test_a_closed_unit_takes_nothing(unit: Unit) -> None:
    unit.close()
    assert unit.take(chunk(10, 10)) is None


def test_a_cut_has_what_belongs_to_the_marks_and_is_taken_once(unit: Unit) -> None:
    unit.state["table"]["a"] = b"1"
    unit.emit("out", 2, b"k", b"v")
    unit.mark(EVENTS, 10)
    cut = unit.cut()
    assert {tp: [(o.key, o.value) for o in outputs] for tp, outputs in cut.outputs.items()} == {
        TopicPartition("out", 2): [(b"k", b"v")],
        TopicPartition("changelog", 2): [(b"a", b"1")],
    }
    assert cut.offsets == {EVENTS: 11}
    assert unit.cut().empty


def test_what_comes_after_a_cut_is_for_the_next(unit: Unit) -> None:
    unit.mark(EVENTS, 10)
    unit.cut()
    unit.emit("out", 2, None, b"later")
    assert unit.cut().offsets == {}


def test_immediate_records_are_not_in_the_cut(unit: Unit) -> None:
    unit.emit_now("out", 2, b"k", b"v")
    assert unit.cut().empty
    assert [o.value for o in unit.take_immediate()[TopicPartition("out", 2)]] == [b"v"]
    assert unit.take_immediate() == {}


def test_progress_is_known_to_be_read_to_once_the_end_asked_for_then_is_reached(unit: Unit) -> None:
    reached = {LABELS: 0}

    def read_to() -> Any:
        return unit.read_to("labels", lambda tp, mark: max(mark, reached[tp]))

    assert read_to() is None
    unit.ends_at({EVENTS: 50, LABELS: 5}, "first")
    unit.ends_at({EVENTS: 60, LABELS: 7}, "second")
    assert read_to() is None
    unit.mark(LABELS, 4)
    assert read_to() == "first"
    reached[LABELS] = 7  # the last two are markers that are never delivered
    assert read_to() == "second"
    assert unit.read_to("events", lambda tp, mark: mark) is None


def test_a_long_backlog_does_not_pile_up_questions(unit: Unit) -> None:
    for number in range(10 * MAX_ASKED):
        unit.ends_at({LABELS: number + 1}, number)
    unit.mark(LABELS, 10 * MAX_ASKED)
    assert unit.read_to("labels", lambda tp, mark: mark) == MAX_ASKED - 1
    unit.ends_at({LABELS: 10 * MAX_ASKED}, "now")
    assert unit.read_to("labels", lambda tp, mark: mark) == "now"
