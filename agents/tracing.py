"""Traces of the journeys of some events, with OpenTelemetry; imported only where HEADWATER_TRACE_SHARE is above 0.

An event is predicted now, labelled days later and learned by every worker, so no trace context can be handed on. Trace
and first span have ids that follow from the prediction's id, and so does whether it is traced at all: whoever sees the
prediction knows them.

    event ── read, features, predict, checkpoint
      ├───── label, checkpoint                 when the outcome comes
      └───── learn                             in each worker
"""

import hashlib
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import ConsumerRecord
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, TraceFlags, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from learning.label import Kind
from learning.learn import Learner
from learning.records import Example, Prediction, Value
from streaming.unit import Unit

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

now = time.time_ns

_W3C = TraceContextTextMapPropagator()


class Ids(NamedTuple):
    """Ids of a journey: of its trace, and of its first span."""

    trace: int
    span: int

    @property
    def context(self) -> SpanContext:
        """The first span, as one that another process may have begun."""
        return SpanContext(self.trace, self.span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class JourneyIds(RandomIdGenerator):
    """Gives the first span of a journey its ids, and all others random ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Ids | None = None

    def generate_trace_id(self) -> int:
        """The trace's id."""
        return super().generate_trace_id() if self.first is None else self.first.trace

    def generate_span_id(self) -> int:
        """The span's id."""
        return super().generate_span_id() if self.first is None else self.first.span


class TimedLearner:
    """A learner for one prediction, which remembers when it was asked and when it had answered."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.version = learner.version
        self.asked_ns = self.answered_ns = 0

    def predict(self, vector: Sequence[float]) -> Value:
        """What the learner says. Raises `ModelError`."""
        self.asked_ns = now()
        value = self._learner.predict(vector)
        self.answered_ns = now()
        return value


class Journey:
    """An event that is traced, while it is scored.

    Attributes:
        learner: what it is to be scored with.
    """

    def __init__(self, tracer: "Tracer", ids: Ids, started_ns: int, learner: Learner) -> None:
        self._tracer = tracer
        self._ids = ids
        self._started_ns = started_ns
        self._read_ns = now()
        self._timed = TimedLearner(learner)
        self.learner: Any = self._timed

    def scored(self, unit: Unit, record: "ConsumerRecord[Any, Any]", prediction: Prediction) -> None:
        """Its prediction was made, and waits for the unit's checkpoint."""
        tracer, timed = self._tracer, self._timed
        tracer.first(self._ids, self._started_ns, record, prediction)
        tracer.span(self._ids, "read", self._started_ns, self._read_ns)
        tracer.span(self._ids, "features", self._read_ns, timed.asked_ns)
        tracer.span(self._ids, "predict", timed.asked_ns, timed.answered_ns, version=prediction.version)
        tracer.await_checkpoint(unit, self._ids)


class Tracer:
    """Makes the spans of one worker.

    Args:
        pipeline: its name, since ids are unique within a pipeline only.
        share: of the predictions that are traced, from 0 to 1.
        resource: what OpenTelemetry is told of this worker.

    Attributes:
        provider: takes span processors, which export.
    """

    def __init__(self, pipeline: str, share: float, resource: "Resource | None" = None) -> None:
        self._pipeline = pipeline
        self._below = int(share * 2**64)
        self._generator = JourneyIds()
        # All that are begun here are wanted: which these are does not depend on this process, so no sampler may ask.
        self.provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, id_generator=self._generator)
        self._tracer = self.provider.get_tracer("headwater")
        self._waiting: weakref.WeakKeyDictionary[Unit, list[Ids]] = weakref.WeakKeyDictionary()
        self._saving: weakref.WeakKeyDictionary[Unit, tuple[int, list[Ids]]] = weakref.WeakKeyDictionary()

    def ids(self, id: str) -> Ids | None:  # noqa: A002  # the record's own word
        """The ids of a prediction's journey; None where it is not traced."""
        digest = hashlib.blake2b(f"{self._pipeline}\0{id}".encode(), digest_size=32).digest()
        if int.from_bytes(digest[24:]) >= self._below:
            return None
        return Ids(int.from_bytes(digest[:16]), int.from_bytes(digest[16:24]))

    def begin(self, id: str, started_ns: int, learner: Learner) -> Journey | None:  # noqa: A002
        """The journey of an event that has been read; None where it is not traced."""
        ids = self.ids(id)
        return None if ids is None else Journey(self, ids, started_ns, learner)

    def labelled(
        self,
        unit: Unit,
        record: "ConsumerRecord[Any, Any]",
        id: str,  # noqa: A002
        kind: Kind,
        started_ns: int,
    ) -> None:
        """A label was joined, or found nothing to be joined with."""
        ids = self.ids(id)
        if ids is not None:
            place = {"partition": record.partition, "offset": record.offset}
            self.span(ids, "label", started_ns, now(), outcome=kind, **place)
            self.await_checkpoint(unit, ids)

    def learned(self, offset: int, example: Example, started_ns: int, *, learning: bool) -> None:
        """This worker's model has gone past an example."""
        ids = self.ids(example.id)
        if ids is not None:
            self.span(ids, "learn", started_ns, now(), offset=offset, learned=learning)

    def first(self, ids: Ids, started_ns: int, record: "ConsumerRecord[Any, Any]", prediction: Prediction) -> None:
        """The span that all others of a journey hang from; linked to the trace that its producer said it is of."""
        carrier = {name: (value or b"").decode("ascii", "replace") for name, value in record.headers or ()}
        producer = get_current_span(_W3C.extract(carrier, Context())).get_span_context()
        self._generator.first = ids
        try:
            span = self._tracer.start_span(
                "event",
                context=Context(),
                links=[Link(producer)] if producer.is_valid else [],
                start_time=started_ns,
                attributes=self._named(
                    id=prediction.id, topic=record.topic, partition=record.partition, offset=record.offset
                ),
            )
        finally:
            self._generator.first = None
        span.end(now())

    def span(self, ids: Ids, name: str, started_ns: int, ended_ns: int, **attributes: str | int) -> None:
        """One part of a journey."""
        parent = set_span_in_context(NonRecordingSpan(ids.context), Context())
        span = self._tracer.start_span(name, parent, attributes=self._named(**attributes), start_time=started_ns)
        span.end(ended_ns)

    def await_checkpoint(self, unit: Unit, ids: Ids) -> None:
        """Tell of the checkpoint that will make it durable."""
        self._waiting.setdefault(unit, []).append(ids)

    def cut(self, unit: Unit) -> None:
        """What waits is in the checkpoint that begins; the unit's next one waits for its end."""
        if waiting := self._waiting.pop(unit, None):
            self._saving[unit] = (now(), waiting)

    def saved(self, unit: Unit) -> None:
        """The checkpoint is committed."""
        started_ns, saved = self._saving.pop(unit, (0, []))
        for ids in saved:
            self.span(ids, "checkpoint", started_ns, now(), partition=unit.partition)

    def _named(self, **attributes: str | int) -> dict[str, str | int]:
        return {f"headwater.{name}": value for name, value in {"pipeline": self._pipeline, **attributes}.items()}
