"""What is refused at the door, and under which reason."""

from typing import Any, get_args

import pytest

from learning.intake import DeadLetterReason, Invalid, read, read_outcome
from tests.doubles import Ping, Pong, TinyStream, tiny_pipeline

STREAM: Any = TinyStream(Ping, "pings")
GOOD = b'{"id":"a","key":"k","at":1000,"x":2.5}'


def take(key: bytes | None, value: bytes | None, timestamp_ms: int = 1000) -> Any:
    return read(STREAM, key, value, timestamp_ms, max_ahead_ms=100, max_bytes=60)


def test_good_record_is_read() -> None:
    assert take(b"k", GOOD) == (Ping(id="a", key="k", at=1000, x=2.5), "k", "a", 1000)


def test_record_without_id_is_read_with_none() -> None:
    assert take(b"k", b'{"key":"k","at":1}')[2] is None


def test_time_may_be_ahead_by_as_much_as_allowed() -> None:
    assert take(b"k", GOOD, 900)[3] == 1000


REFUSED: list[tuple[str, bytes | None, bytes | None]] = [
    ("empty_value", b"k", None),
    ("empty_value", b"k", b""),
    ("too_large", b"k", GOOD + b" " * 60),
    ("malformed", b"k", b"{"),
    ("malformed", b"k", b'{"key":"\xff","at":1}'),
    ("malformed", b"k", b"\x00\x01"),
    ("invalid", b"k", b'{"key":"k","at":"soon"}'),
    ("invalid", b"k", b'{"key":"k"}'),
    ("invalid", b"k", b"[]"),
    ("invalid", b"k", b'{"id":"","key":"k","at":1}'),
    ("invalid", b"k", b'{"id":"\\u0000watermarks","key":"k","at":1}'),
    ("missing_key", None, GOOD),
    ("missing_key", b"", GOOD),
    ("key_mismatch", b"other", GOOD),
    ("key_mismatch", b"\xff", GOOD),
    ("time_too_old", b"k", b'{"key":"k","at":-1}'),
    ("time_ahead", b"k", b'{"key":"k","at":1101}'),
]


@pytest.mark.parametrize(("reason", "key", "value"), REFUSED)
def test_bad_record_is_refused_with_its_reason(reason: str, key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(Invalid) as caught:
        take(key, value)
    assert caught.value.reason == reason
    assert caught.value.message


def test_every_reason_of_the_door_is_tried_above() -> None:
    by_score = {"feature_error", "model_error"}
    assert {reason for reason, _, _ in REFUSED} == set(get_args(DeadLetterReason)) - by_score


@pytest.mark.parametrize(
    ("task", "got", "outcome"),
    [
        ("binary", True, True),
        ("anomaly", False, False),
        ("regression", 3, 3.0),
        ("regression", 2.5, 2.5),
        ("multiclass", "cat", "cat"),
    ],
)
def test_outcome_of_the_right_type_is_read(task: str, got: object, outcome: object) -> None:
    value = read_outcome(tiny_pipeline(task=task), Pong(id="a", at=0, y=got))
    assert value == outcome
    assert type(value) is type(outcome)


@pytest.mark.parametrize(
    ("task", "got"),
    [
        ("binary", 1),
        ("binary", None),
        ("regression", float("nan")),
        ("regression", float("inf")),
        ("regression", True),
        ("regression", "3"),
        ("multiclass", 3),
        ("anomaly", 0.2),
        ("binary", "raise"),
    ],
)
def test_outcome_that_cannot_be_learned_is_refused(task: str, got: object) -> None:
    with pytest.raises(Invalid) as caught:
        read_outcome(tiny_pipeline(task=task), Pong(id="a", at=0, y=got))
    assert caught.value.reason == "invalid"
