"""A record as a line of JSON, whatever is in it."""

from types import SimpleNamespace
from typing import Any

import pytest

from app.tail import WHAT, as_line
from pipelines.flights import flights


def record(value: bytes | None, **more: Any) -> Any:
    return SimpleNamespace(**{"partition": 2, "offset": 7, "value": value, "headers": (), **more})


@pytest.mark.parametrize(
    ("value", "shown"),
    [(b'{"id":"a"}', {"id": "a"}), (None, None), (b"", None), (b'{"id":', '{"id":'), (b"\xffa", "\ufffda")],
)
def test_value_is_json_or_else_text(value: bytes | None, shown: Any) -> None:
    assert as_line(record(value)) == {"partition": 2, "offset": 7, "value": shown}


def test_headers_of_a_dead_letter_are_text() -> None:
    line = as_line(record(b"1", headers=(("reason", b"invalid"), ("message", b"\xff"))))
    assert line["headers"] == {"reason": "invalid", "message": "\ufffd"}


def test_every_output_topic_can_be_followed() -> None:
    names = ("predictions", "training-log", "drift", "dead-letters", "summaries", "reports", "incidents")
    assert {what: topic(flights) for what, topic in WHAT.items()} == {name: f"flights.{name}" for name in names}
