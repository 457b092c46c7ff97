"""What the learning room writes: predictions, the records of the training log, drift events. JSON on the wire.

Times are milliseconds since 1970 UTC. A reader must accept fields it does not know; a writer must not remove any.
"""

from typing import Annotated, Literal, TypeVar

import msgspec

T = TypeVar("T")

Time = Annotated[int, msgspec.Meta(ge=-(1 << 60), le=1 << 60)]
"""Milliseconds; the last event's by the longest horizon, and within 64 bits when one is taken from another."""
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
"""How many, or an offset; a thousand of them are within 64 bits when they are added up."""
Outcome = bool | float | str
Value = float | dict[str, float]


# `gc=False`: they hold numbers and texts, so no cycle can go through them, and each event makes one of each.
class Prediction(msgspec.Struct, frozen=True, gc=False):
    """One prediction, with everything needed to make it again.

    Attributes:
        id: the event's own id, or `topic-partition-offset` where it has none.
        key: the event's key.
        time_ms: event time.
        prediction: probability of True, anomaly score or value; for several classes, the probability of each.
        version: the model's version: the number of training-log positions it had behind it.
        features: the feature vector, in the order of the pipeline's feature names.
        schema: hash of the feature definitions that made the vector.
    """

    id: str
    key: str
    time_ms: Time
    prediction: Value
    version: Count
    features: list[float]
    schema: str


class Example(msgspec.Struct, frozen=True, tag="example", gc=False, omit_defaults=True):
    """A resolved prediction: what the model learns from. `source` says where the outcome came from.

    `kept` is false of a negative that no model learns, where the pipeline learns a share of them: it has no vector, and
    is there so that its prediction is scored. On the wire it is said only where it is false.
    """

    id: str
    key: str
    time_ms: Time
    label_time_ms: Time
    prediction: Value
    version: Count
    features: list[float]
    schema: str
    outcome: Outcome
    source: str
    kept: bool = True


class Correction(msgspec.Struct, frozen=True, tag="correction", gc=False):
    """An outcome that changed after it was learned. Models pass over it; whoever reads the log may not."""

    id: str
    key: str
    time_ms: Time
    label_time_ms: Time
    outcome: Outcome
    previous: Outcome


class Control(msgspec.Struct, frozen=True, tag="control"):
    """Somebody's word to all models at this place of the log; docs/control.md says what each action does.

    Attributes:
        action: what is to be done.
        time_ms: when it was said.
        by: who said it.
        why: for people.
        to: the version to go back to, for a rollback.
        since: the offset from which on a new model is to learn the log again, for a relearn.
        factor: what the learning rate is to be multiplied by, for a boost.
        examples: for how many examples, for a boost.
    """

    action: Literal["freeze", "thaw", "rollback", "relearn", "boost"]
    time_ms: Time
    by: str
    why: str = ""
    to: Count | None = None
    since: Count | None = None
    factor: Annotated[float, msgspec.Meta(gt=0, le=1000)] | None = None
    examples: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)] | None = None


Resolved = Example | Correction
LogRecord = Resolved | Control


class DriftEvent(msgspec.Struct, frozen=True):
    """A detector noticed that a signal changed.

    Attributes:
        pipeline: name of the pipeline.
        signal: "loss", "prediction" or "feature:<name>".
        detector: class name of the detector.
        time_ms: time of the label whose example made the detector fire.
        version: the model version that made that example's prediction.
        offset: the example's offset in the training log.
        value: the signal at that example.
        n_detections: how often this monitor has fired, this time included.
    """

    pipeline: str
    signal: str
    detector: str
    time_ms: int
    version: int
    offset: int
    value: float
    n_detections: int


CONTROL_KEY = b"control"
"""The key of control records, whoever writes them."""

_ENCODER = msgspec.json.Encoder()
_LOG: msgspec.json.Decoder[LogRecord] = msgspec.json.Decoder(LogRecord)


def encode(record: msgspec.Struct) -> bytes:
    """The record as it stands on the wire.

    >>> encode(Correction("f1", "JFK", 0, 5, True, previous=False))
    b'{"type":"correction","id":"f1","key":"JFK","time_ms":0,"label_time_ms":5,"outcome":true,"previous":false}'
    """
    return _ENCODER.encode(record)


def decode_log(data: bytes) -> LogRecord:
    r"""A record of the training log. Raises `msgspec.DecodeError` for anything else.

    >>> decode_log(b'{"type":"\xff"}')
    Traceback (most recent call last):
    msgspec.DecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte
    """
    try:
        return _LOG.decode(data)
    except (UnicodeDecodeError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc


def decoded(decoder: "msgspec.json.Decoder[T]", data: bytes) -> T:
    """The value. Raises `msgspec.DecodeError` whatever is wrong with the bytes; msgspec has three errors for it."""
    try:
        return decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc
