"""The spans of one event's journey, made at different times by different workers, are one trace."""

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agents import label, learn, score
from agents.loop import Loop
from agents.tracing import Tracer
from app import tracing
from pipelines.card_fraud import card_fraud as pipeline
from streaming.config import EngineConfig
from streaming.errors import StartupError
from streaming.state import StatePartition
from streaming.telemetry import RecordingMetrics
from streaming.unit import Unit
from tables import pending, profiles

PRODUCER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Worker:
    """The agents of a worker, with the spans that it makes."""

    def __init__(self, share: float = 1.0) -> None:
        self.spans = InMemorySpanExporter()
        config = EngineConfig(bootstrap="localhost:1", app_id="traced")
        engine = SimpleNamespace(metrics=RecordingMetrics(), config=config, ready=True)
        app: Any = SimpleNamespace(engine=engine)
        self.loop = Loop(app, pipeline)
        self.loop.tracer = Tracer(pipeline.name, share)
        self.loop.tracer.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        marks = {TopicPartition(stream.topic, 0): 0 for stream in (pipeline.events, pipeline.labels)}
        features = pipeline.feature_set
        state: dict[str, StatePartition[Any]] = {
            profiles.NAME: StatePartition("profiles", load=features.load, dump=features.dump),
            pending.NAME: StatePartition("pending", load=lambda _, data: data, dump=bytes),
        }
        self.unit = Unit("events", 0, state, marks)
        self.loop.opened(self.unit)

    def checkpoint(self) -> list[bytes]:
        """Cut and commit, as the engine does; the examples that were written."""
        cut = self.unit.cut()
        assert self.unit.after_save is not None
        self.unit.after_save(self.unit)
        return [output.value or b"" for output in cut.outputs.get(TopicPartition(pipeline.training_log_topic, 0), [])]

    def learn(self, example: bytes) -> None:
        """Apply an example at offset 0."""
        asyncio.run(learn.step(self.loop, [record(pipeline.training_log_topic, example)]))

    def finished(self) -> list[ReadableSpan]:
        """The spans so far, in the order in which they ended."""
        return list(self.spans.get_finished_spans())


def record(topic: str, value: bytes, key: bytes = b"c1", headers: Any = ()) -> Any:
    """A record as a consumer gives it."""
    return SimpleNamespace(
        topic=topic, partition=0, offset=0, key=key, value=value, timestamp=1_400_000_000_000, headers=headers
    )


EVENT = b"""{"purchase_id": "p1", "card": "c1", "terminal": "t", "online": false, "amount": 9.5,
    "bought_at": "2014-05-13T16:00:00Z"}"""
LABEL = b'{"purchase_id": "p1", "card": "c1", "fraud": true, "reported_at": "2014-05-13T16:30:00Z"}'


def test_spans_of_one_event_are_one_trace_whoever_makes_them() -> None:
    """The label comes to another worker than the event did, and a third one learns it."""
    first, other, third = Worker(), Worker(), Worker()
    score.step(first.loop, first.unit, record("purchases", EVENT))
    first.checkpoint()
    # what the partition's next owner recovers
    other.unit.state[pending.NAME].update(first.unit.state[pending.NAME])
    label.step(other.loop, other.unit, record("chargebacks", LABEL))
    (example,) = other.checkpoint()
    third.learn(example)
    spans = [*first.finished(), *other.finished(), *third.finished()]
    assert [span.name for span in spans] == [
        *("event", "read", "features", "predict", "checkpoint"),
        *("label", "checkpoint"),
        "learn",
    ]
    event, *others = spans
    assert event.parent is None
    assert event.context is not None
    for span in others:
        assert span.context is not None
        assert span.parent is not None
        assert (span.context.trace_id, span.parent.span_id) == (event.context.trace_id, event.context.span_id)
    assert len({span.context.span_id for span in spans if span.context is not None}) == len(spans)


def test_spans_of_a_prediction_follow_each_other() -> None:
    """Reading ends where features begin, and those where the model is asked; the checkpoint comes last."""
    worker = Worker()
    score.step(worker.loop, worker.unit, record("purchases", EVENT))
    worker.checkpoint()
    event, read, features, predict, checkpoint = worker.finished()
    assert event.start_time == read.start_time
    assert read.end_time == features.start_time
    assert features.end_time == predict.start_time
    ends = [span.end_time or 0 for span in (read, features, predict, event, checkpoint)]
    assert ends[0] > 0
    assert ends == sorted(ends)
    assert event.attributes == {
        "headwater.pipeline": "card_fraud",
        "headwater.id": "p1",
        "headwater.topic": "purchases",
        "headwater.partition": 0,
        "headwater.offset": 0,
    }
    assert predict.attributes == {"headwater.pipeline": "card_fraud", "headwater.version": 0}


@pytest.mark.parametrize(
    ("headers", "links"),
    [
        ((), 0),
        ([("traceparent", PRODUCER.encode())], 1),
        ([("traceparent", b"\xff nonsense")], 0),
        ([("traceparent", None)], 0),
    ],
)
def test_the_trace_of_the_producer_is_linked(headers: Any, links: int) -> None:
    """Where there is one; what is none ends nothing."""
    worker = Worker()
    score.step(worker.loop, worker.unit, record("purchases", EVENT, headers=headers))
    event = worker.finished()[0]
    assert len(event.links) == links
    for link in event.links:
        assert f"{link.context.trace_id:032x}" in PRODUCER
        assert f"{link.context.span_id:016x}" in PRODUCER
    assert event.parent is None


def test_a_share_of_the_predictions_is_traced_and_all_workers_choose_the_same() -> None:
    names = [f"p{number}" for number in range(4_000)]
    none, tenth, again, half, all_ = (Tracer("x", share) for share in (0.0, 0.1, 0.1, 0.5, 1.0))
    chosen = [name for name in names if tenth.ids(name)]
    assert 320 < len(chosen) < 480  # six standard deviations to each side would be 114
    assert chosen == [name for name in names if again.ids(name)]
    assert all(half.ids(name) == tenth.ids(name) for name in chosen)  # more are chosen, and these among them
    assert [name for name in names if none.ids(name)] == []
    assert all(map(all_.ids, names))
    assert Tracer("y", 1.0).ids("p1") != all_.ids("p1")


def test_predictions_that_are_not_traced_make_no_span_and_wait_for_nothing() -> None:
    worker = Worker(share=0.0)
    score.step(worker.loop, worker.unit, record("purchases", EVENT))
    label.step(worker.loop, worker.unit, record("chargebacks", LABEL))
    (example,) = worker.checkpoint()
    worker.learn(example)
    assert worker.finished() == []


def test_traced_predictions_are_the_same_as_others() -> None:
    """To the last bit, and so is what they leave behind."""
    made = []
    for share in (0.0, 1.0):
        worker = Worker(share)
        score.step(worker.loop, worker.unit, record("purchases", EVENT))
        cut = worker.unit.cut()
        made.append([output.value for output in cut.outputs[TopicPartition(pipeline.predictions_topic, 0)]])
        made[-1].append(worker.unit.state[pending.NAME]["p1"])
    assert made[0] == made[1]


def test_a_worker_that_starts_does_not_trace_what_it_learns_again() -> None:
    worker = Worker()
    score.step(worker.loop, worker.unit, record("purchases", EVENT))
    label.step(worker.loop, worker.unit, record("chargebacks", LABEL))
    (example,) = worker.checkpoint()
    before = len(worker.finished())
    engine: Any = worker.loop.engine
    engine.ready = False
    worker.learn(example)
    assert worker.loop.learner.examples == 1
    assert len(worker.finished()) == before


def test_opentelemetry_is_not_imported_unless_it_is_wanted() -> None:
    """The extra need not be there."""
    code = "import app.create, sys; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_traces_without_the_extra_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(StartupError, match=r"HEADWATER_TRACE_SHARE=0\.5.*pip install -e '\.\[otel\]'"):
        tracing.tracer("x", 0.5, "worker")
