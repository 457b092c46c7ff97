"""What must be the same: predictions of all peers to the last bit, and the vectors of Headwater's."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from bench.peers.work import Bare, Work, values_of
from learning.records import Prediction
from pipelines.definition import Pipeline

_decode = msgspec.json.Decoder(Prediction).decode


class Expected(NamedTuple):
    """What the bare loop says of each event, in order, in 8 bytes each.

    Attributes:
        predictions: of whole records.
        vectors: of records without what depends on the version of the model.
    """

    predictions: list[bytes]
    vectors: list[bytes]


def expected(pipeline: Pipeline, items: Iterable[Any]) -> Expected:
    """The bare loop's predictions."""
    step = Bare(Work(pipeline)).step
    found = Expected([], [])
    for _, value in values_of(pipeline, items):
        record = step(value)
        if record is not None:
            found.predictions.append(_digest(record))
            found.vectors.append(_digest(_vector_of(record)))
    return found


def compare(who: str, records: Sequence[bytes], must: Expected, *, versions: bool) -> None:
    """Raise RuntimeError where a system said something else than the first events' worth of what it must.

    Args:
        who: the system, for the message.
        records: what it said, in order.
        must: what the bare loop said of these events, and maybe of more.
        versions: whether its predictions must be of the same versions of the model.
    """
    wanted = must.predictions if versions else must.vectors
    for number, (record, digest) in enumerate(zip(records, wanted, strict=False)):
        if _digest(record if versions else _vector_of(record)) != digest:
            message = f"{who}: its prediction number {number} is not the bare loop's: {record.decode()}"
            raise RuntimeError(message)


def _vector_of(record: bytes) -> bytes:
    """The record without prediction and version."""
    return msgspec.json.encode(msgspec.structs.replace(_decode(record), prediction=0.0, version=0))


def _digest(record: bytes) -> bytes:
    return blake2b(record, digest_size=8).digest()
