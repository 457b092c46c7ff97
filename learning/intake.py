"""Reads one record of the wire into an event or a label, or says why it cannot be used.

The score and label agents call it first; whatever it refuses goes to the dead letters with the reason.
"""

import traceback
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from features.compile import LIMIT
from learning.records import Outcome

if TYPE_CHECKING:
    from pipelines.definition import Pipeline, Stream

DeadLetterReason = Literal[
    "empty_value",
    "too_large",
    "malformed",
    "invalid",
    "missing_key",
    "key_mismatch",
    "time_too_old",
    "time_ahead",
    "feature_error",
    "model_error",
]

MAX_NAME = 1_000  # bytes of an id or key; they are written again and again, as keys and inside values
SHORT = MAX_NAME // 4  # characters that are no more bytes than that in any case
YEAR_10000 = 253_402_300_800_000  # ms, where datetimes end
RESERVED = "\x00"  # first character of the ids that the pending table keeps for itself


class Invalid(Exception):
    """This record cannot be used; the stream goes on.

    Attributes:
        reason: which kind of trouble, a bounded set of words.
        message: what was got, what was expected.
    """

    def __init__(self, reason: DeadLetterReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason: DeadLetterReason = reason
        self.message = message


def read(
    stream: "Stream",
    key: bytes | None,
    value: bytes | None,
    timestamp_ms: int,
    *,
    max_ahead_ms: int,
    max_bytes: int,
) -> tuple[Any, str, str | None, int]:
    """The object, its key, its id (None: it has none) and its time. Raises `Invalid`.

    The time may be ahead of the record's timestamp by `max_ahead_ms`: one clock set to next year would otherwise
    move the watermark and expire everything that waits.
    """
    if not value:
        raise Invalid(reason="empty_value", message="got no value, expected JSON")
    if len(value) > max_bytes:
        raise Invalid(reason="too_large", message=f"got {len(value)} bytes, expected {max_bytes} at most")
    try:
        obj = stream.decode(value)
    except msgspec.ValidationError as exc:
        raise Invalid(reason="invalid", message=str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Invalid(reason="malformed", message=str(exc)) from exc
    try:
        name, identity, time_ms = stream.parts_of(obj)
    except (ValueError, TypeError, OverflowError) as exc:
        raise Invalid(reason="invalid", message=f"key, id or time cannot be read: {exc}") from exc
    # The record's key decides its partition, so it must be the one the profile and the label are kept under.
    if key != name.encode():
        raise _wrong_key(key, name)
    if len(name) > SHORT:
        _check_length("key", name)
    if identity is not None and (not identity or identity[0] == RESERVED or len(identity) > SHORT):
        _check_id(identity)
    if not 0 <= time_ms < YEAR_10000 or time_ms > timestamp_ms + max_ahead_ms:
        raise _wrong_time(time_ms, timestamp_ms, max_ahead_ms)
    return obj, name, identity, time_ms


def read_outcome(pipeline: "Pipeline", label: Any) -> Outcome:
    """The outcome of a label, in the type the pipeline's task learns. Raises `Invalid`; `outcome` is user code."""
    try:
        outcome = label.outcome
    except Exception as exc:
        raise Invalid(reason="invalid", message=f"the label's outcome raised:\n{traceback.format_exc()}") from exc
    task = pipeline.task
    if isinstance(outcome, bool):  # before the numbers, which a bool is in Python
        if task in ("binary", "anomaly"):
            return outcome
    elif task == "regression" and isinstance(outcome, int | float) and -LIMIT <= outcome <= LIMIT:
        return float(outcome)
    elif task == "multiclass" and isinstance(outcome, str) and _is_name(outcome):
        return str(outcome)
    expected = {"regression": f"a number within +-{LIMIT:g}", "multiclass": f"a str of {MAX_NAME} bytes at most"}
    shown = repr(outcome if not isinstance(outcome, str) else outcome[:200])
    raise Invalid(reason="invalid", message=f"got outcome {shown}, expected {expected.get(task, 'a bool')}")


def _is_name(text: str) -> bool:
    """Whether it can be the name of a class: that stands in every prediction, as JSON."""
    try:
        return len(text.encode()) <= MAX_NAME
    except UnicodeEncodeError:
        return False


def _wrong_key(key: bytes | None, name: str) -> Invalid:
    if not key:
        return Invalid(reason="missing_key", message=f"got a record without key, expected key {name!r}")
    message = f"got record key {key[:100]!r}, expected {name!r} as in the value"
    return Invalid(reason="key_mismatch", message=message)


def _check_length(what: str, text: str) -> None:
    if len(text.encode()) > MAX_NAME:
        message = f"got a {what} of {len(text.encode())} bytes, expected {MAX_NAME} at most"
        raise Invalid(reason="invalid", message=message)


def _check_id(identity: str) -> None:
    _check_length("id", identity)
    if not identity or identity[0] == RESERVED:
        message = f"got id {identity!r}, expected a non-empty id that does not start with NUL"
        raise Invalid(reason="invalid", message=message)


def _wrong_time(time_ms: int, timestamp_ms: int, max_ahead_ms: int) -> Invalid:
    """What is wrong with a time that is none from 1970 to the year 10000, or is too far ahead of its record's."""
    if time_ms < 0:
        return Invalid(reason="time_too_old", message=f"got time {time_ms} ms, expected one after 1970-01-01T00:00:00Z")
    if time_ms >= YEAR_10000:  # whatever the record's timestamp says: due times are kept as 64-bit numbers
        message = f"got time {time_ms} ms, expected one before the year 10000; are these microseconds?"
        return Invalid(reason="time_ahead", message=message)
    ahead = time_ms - timestamp_ms
    message = f"got a time {ahead} ms after the record's timestamp, expected {max_ahead_ms} at most"
    return Invalid(reason="time_ahead", message=message)
