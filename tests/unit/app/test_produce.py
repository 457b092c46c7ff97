"""`limited` keeps events and labels together, and ends although some labels never come."""

from collections.abc import Iterator
from typing import Any, cast

from app.produce import limited
from pipelines.definition import Pipeline
from tests.doubles import HOUR, Ping, Pong, tiny_pipeline

PIPELINE = cast("Pipeline", tiny_pipeline(horizon_ms=HOUR))


def kept(*items: Any, limit: int | None) -> list[str]:
    return [f"{type(item).__name__} {item.id}" for item in limited(PIPELINE, iter(items), limit)]


def test_without_limit_everything_is_kept() -> None:
    assert kept(Pong(id="x", at=0), Ping(id="a", at=1), limit=None) == ["Pong x", "Ping a"]


def test_labels_of_kept_events_are_kept_and_no_others() -> None:
    items = (Ping(id="a", at=0), Ping(id="b", at=1), Pong(id="b", at=2), Pong(id="a", at=3))
    assert kept(*items, limit=1) == ["Ping a", "Pong a"]


def test_a_corrected_label_is_kept_too() -> None:
    items = (Ping(id="a", at=0), Pong(id="a", at=1, y=True), Pong(id="a", at=2, y=False))
    assert kept(*items, limit=1) == ["Ping a", "Pong a", "Pong a"]


def test_reading_ends_at_the_horizon_of_the_last_kept_event() -> None:
    read: list[int] = []

    def endless() -> Iterator[Ping]:
        number = 0
        while True:
            read.append(number)
            yield Ping(id=str(number), at=number * HOUR // 2)
            number += 1

    assert [item.id for item in limited(PIPELINE, endless(), 3)] == ["0", "1", "2"]
    assert read == [0, 1, 2, 3, 4, 5]


def test_events_without_id_are_kept_and_have_no_labels() -> None:
    items = (Ping(at=0), Pong(id="a", at=1), Ping(id="b", at=2 * HOUR))
    assert kept(*items, limit=1) == ["Ping None"]
