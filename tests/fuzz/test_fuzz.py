"""The short version of the fuzzer, and a test for each fault that it has found, named for it."""

import asyncio
import json
import logging
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.tail import as_line
from learning.intake import YEAR_10000, Invalid, read_outcome
from learning.learn import Learner, ModelError
from learning.records import Control, decode_log, encode
from learning.reports import Summary
from learning.watch import Watch
from tests.fuzz.__main__ import one_life
from tests.fuzz.inputs import Maker, record
from tests.fuzz.pipelines import PIPELINES
from tests.fuzz.run import Figures, batches, live
from tests.fuzz.worker import Broken, Worker

NAMES = list(PIPELINES)
TIMES = (YEAR_10000 - 1, YEAR_10000, 2**63 - 1, 2**63)  # the first is one


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each refused record is said in the worker's log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(900)  # twenty-five runs of hundreds of records each, on a machine that may be busy
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(NAMES), st.randoms(use_true_random=False))
def test_every_record_is_accounted_for(name: str, chance: Random) -> None:
    """Hypothesis makes all choices, so a failure is shrunk to a few records."""
    fed = batches(Maker(chance, PIPELINES[name], largest=2_000), 6, 6)
    asyncio.run(live(PIPELINES[name], fed))


@pytest.mark.parametrize("name", NAMES)
def test_a_life_of_a_worker_is_accounted_for(name: str) -> None:
    """What `python -m tests.fuzz` does, a few times; a failure says how to do it again."""
    figures = Figures()
    one_life(name, 1, 0, figures)
    assert figures.total > 500
    assert figures.became["predictions_total"] > 50
    assert figures.became["training_examples_total"] > 10
    assert figures.became["dead letter: malformed"] > 50
    assert figures.became["snapshot: unreadable"] > 3


def test_the_account_notices_a_record_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account itself: a record that is neither predicted, nor refused, nor counted, breaks it."""
    fed = batches(Maker(Random(1), PIPELINES["flights"]), 3, 20)
    monkeypatch.setattr("agents.score.score", lambda *_: (_ for _ in ()).throw(LookupError("forgotten")))
    with pytest.raises(Broken, match="the worker would end"):
        asyncio.run(live(PIPELINES["flights"], fed))
    monkeypatch.setattr("agents.loop.Loop.refuse", lambda *_: None)
    with pytest.raises(Broken, match="came to"):
        asyncio.run(live(PIPELINES["card_fraud"], fed))


# -- what the fuzzer found


def lived(name: str, *lessons: bytes) -> Worker:
    """A worker that met these records in its log."""
    parts = [(None, value, 0, ()) for value in lessons]
    return asyncio.run(live(PIPELINES[name], [("lessons", parts)]))


def test_a_log_record_that_is_no_utf8_is_passed_over_and_does_not_end_every_worker() -> None:
    """UnicodeDecodeError is no DecodeError of msgspec's, so workers ended, each time they got there."""
    worker = lived("flights", b'{"type":"\xff"}', b"[" * 100_000, encode(Control("freeze", 0, "ann")))
    assert worker.metrics.value("model_errors_total") == 2
    assert worker.metrics.value("dead_letters_total", reason="malformed") == 2
    assert not worker.loop.learner.learning
    for data in (b'{"type":"\xff"}', b"[" * 100_000, b"\xed\xa0\x80"):
        with pytest.raises(msgspec.DecodeError):
            decode_log(data)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("flights", {"features": []}, "got 0 features"),
        ("flights", {"features": [1e308] * 27}, "expected"),
        ("flights", {"outcome": "yes"}, "expected a bool"),
        ("regression", {"outcome": "text"}, "expected a float"),
        ("regression", {"outcome": 1e308}, "expected a number within"),
        ("multiclass", {"outcome": True}, "expected a str"),
        ("anomaly", {"outcome": 1.5}, "expected a bool"),
    ],
)
def test_an_example_that_no_worker_wrote_is_reported_and_neither_learned_nor_watched(
    name: str, changes: dict[str, Any], words: str
) -> None:
    """The watch raised IndexError or ValueError on such ones, which ended the owner of the log, again and again."""
    pipeline = PIPELINES[name]
    width = len(pipeline.feature_set.names)
    good = {"regression": 1.0, "multiclass": "a"}.get(pipeline.task, True)
    prediction: Any = {"a": 0.5} if pipeline.task == "multiclass" else 0.5
    maker = Maker(Random(1), pipeline)
    schema = pipeline.feature_set.schema
    common = {"features": [1.0] * width, "schema": schema, "source": "label"}
    fine = msgspec.structs.replace(maker.example(), outcome=good, prediction=prediction, **common)
    wrong = msgspec.structs.replace(fine, **{k: v[:width] if isinstance(v, list) else v for k, v in changes.items()})
    with pytest.raises(ModelError, match=words):
        Learner(pipeline).apply(0, wrong)
    watch = Watch(pipeline)
    watch.observe(0, wrong, None)
    assert watch.report() == {}
    worker = lived(name, encode(wrong), encode(fine))
    assert worker.loop.learner.examples == 1
    assert worker.metrics.value("dead_letters_total", reason="model_error") == 1


@pytest.mark.parametrize("field", ["time_ms", "label_time_ms", "version"])
def test_a_number_beyond_64_bits_in_the_log_is_no_record(field: str) -> None:
    """JSON has them, MessagePack and numpy do not: an alarm's state with one in it ended the owner of the log."""
    maker = Maker(Random(1), PIPELINES["anomaly"])
    fields = msgspec.to_builtins(maker.example()) | {"type": "example"}
    for number in (10**25, 1 << 64, -(1 << 63)):
        with pytest.raises(msgspec.DecodeError, match=f"Expected.*{field}"):
            decode_log(json.dumps(fields | {field: number}).encode())


def test_a_summary_with_a_number_beyond_64_bits_is_no_summary() -> None:
    """They are added up, and kept in the same way."""
    for fields in ({"events": 1 << 70}, {"until_ms": 1 << 62}, {"cohorts": {"0": 1 << 60}}, {"features": [[1 << 60]]}):
        told = {"partition": 0, "worker": "w", "wall_ms": 0}
        msgspec.json.decode(json.dumps(told), type=Summary)
        with pytest.raises(msgspec.ValidationError, match="Expected"):
            msgspec.json.decode(json.dumps(told | fields), type=Summary)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("regression", 1e101), ("regression", -1e308), ("multiclass", "x" * 1_001), ("multiclass", "é" * 501)],
)
def test_an_outcome_that_would_spoil_the_model_or_every_prediction_is_refused(name: str, outcome: Any) -> None:
    """A class is named in every prediction from then on, and a number too large makes weights that are none."""
    with pytest.raises(Invalid, match="expected") as caught:
        read_outcome(PIPELINES[name], type("Given", (), {"outcome": outcome})())
    assert len(caught.value.message) < 400


def test_a_time_beyond_all_clocks_is_refused_whatever_the_timestamp_says() -> None:
    """Its due time is no 64-bit number: struct.error ended the worker, each time it got there."""
    fed = [(b"JFK", b'{"name": 1, "sensor": "JFK", "at": %d, "outcome": 1.0}' % at, 2**63 - 1, ()) for at in TIMES]
    worker = asyncio.run(live(PIPELINES["regression"], [("labels", fed)]))
    assert worker.metrics.value("dead_letters_total", reason="time_ahead") == 3
    assert worker.metrics.value("labels_total", outcome="early") == 1


def test_tail_shows_headers_without_a_value() -> None:
    one = record("t", 0, (None, b"\xff{", 0, [("a", None), ("b", b"\xff")]))
    assert as_line(one)["headers"] == {"a": None, "b": "\ufffd"}
