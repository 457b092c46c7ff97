"""The watch and the learner of one worker: what one has decoded the other takes, and decodes what it does not find."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agents import learn, watch
from learning.learn import ModelError
from tables import monitors
from tests.unit.agents.test_alarms import examples, record_of, unit_of
from tests.unit.agents.test_negatives import learned, pipeline_with, worker

NO_RECORD = b"{"


def both(pipeline: Any) -> tuple[Any, Any]:
    """A worker that watches the log that it learns, and the log's unit."""
    loop, unit = worker(pipeline), unit_of(pipeline)
    loop.opened(unit)
    return loop, unit


def test_a_record_is_decoded_once_for_learner_and_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_with(1.0)
    log = examples(pipeline, 3, 1)
    assert len(log) < learn.KEPT
    loop, unit = both(pipeline)
    learned(loop, log)
    monkeypatch.setattr(watch, "decode_log", lambda _: pytest.fail("decoded once more"))
    records = [record_of(offset, entry) for offset, entry in enumerate(log)]
    assert watch.step(loop, unit, records) == [None] * len(log)
    assert monitors.watch(unit, pipeline).offset == len(log) - 1
    assert loop.heard == {}


def test_what_the_learner_no_longer_has_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a start it is far ahead, and keeps but so many; the reports are the same."""
    monkeypatch.setattr(learn, "KEPT", 7)
    pipeline = pipeline_with(1.0)
    log = examples(pipeline, 20, 3)
    reports = []
    for loop, unit in (both(pipeline), (worker(pipeline), unit_of(pipeline))):
        learned(loop, log)
        assert loop.heard is None or 0 < len(loop.heard) <= 7
        watch.step(loop, unit, [record_of(offset, entry) for offset, entry in enumerate(log)])
        reports.append(monitors.watch(unit, pipeline).report())
    assert reports[0] == reports[1] != {}


def test_what_is_no_record_is_refused_where_the_learner_has_seen_it_too() -> None:
    pipeline = pipeline_with(1.0)
    loop, unit = both(pipeline)
    records = [record_of(offset, entry) for offset, entry in enumerate(examples(pipeline, 1, 2))]
    records[1].value = NO_RECORD
    for record in records:
        asyncio.run(learn.step(loop, [record]))
    first, second = watch.step(loop, unit, records)[:2]
    assert (first, second.reason if second else None) == (None, "malformed")


def test_a_record_that_the_model_did_not_learn_is_refused_when_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_with(1.0)
    log = examples(pipeline, 1, 2)
    loop, unit = both(pipeline)

    def refuses(offsets: Sequence[int], _: Any) -> dict[int, ModelError]:
        return {offset: ModelError("no") for offset in offsets}

    monkeypatch.setattr(loop.learner, "apply_all", refuses)
    learned(loop, log[:1])
    (refused,) = watch.step(loop, unit, [record_of(0, log[0])])
    assert refused is not None
    assert refused.reason == "model_error"


def test_nothing_is_kept_for_a_watch_that_has_gone_to_another_worker() -> None:
    pipeline = pipeline_with(1.0)
    loop, unit = both(pipeline)
    log = examples(pipeline, 1, 2)
    learned(loop, log[:5])
    assert loop.heard is not None
    assert len(loop.heard) == 5
    unit.close()
    assert loop.heard is None
    learned(loop, log[:10])
    assert loop.heard is None
