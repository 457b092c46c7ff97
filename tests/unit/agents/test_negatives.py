"""A share of the negatives in a worker's agents: what is counted, warned of, asked of the frozen copy, relearned."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agents import learn, watch
from agents.loop import Loop
from learning.incidents import EVERY
from learning.learn import Learner
from learning.negatives import is_kept
from learning.records import Example
from pipelines.definition import relearn
from streaming.config import EngineConfig
from streaming.telemetry import RecordingMetrics
from tables import monitors
from tests.integration import flights_run
from tests.unit.agents.test_alarms import examples, loop_of, record_of, unit_of

SHARE = 0.25


def pipeline_with(share: float, **overrides: Any) -> Any:
    features = flights_run.FEATURES[:2]
    return flights_run.named("negatives", negatives=share, features=features, drift=[], **overrides)


def log_of(pipeline: Any, share: float) -> list[Example]:
    """Twenty days of examples as the label join of a share writes them."""
    made = examples(pipeline, 20, 20)
    return [
        e if e.outcome or is_kept(e.id, share) else msgspec.structs.replace(e, features=[], kept=False) for e in made
    ]


def worker(pipeline: Any) -> Loop:
    engine = SimpleNamespace(metrics=RecordingMetrics(), config=EngineConfig(bootstrap="nowhere:1", app_id="a"))
    return Loop(SimpleNamespace(engine=engine), pipeline)  # type: ignore[arg-type]


def learned(loop: Loop, log: list[Example]) -> None:
    asyncio.run(learn.step(loop, [record_of(offset, entry) for offset, entry in enumerate(log)]))


def test_what_is_left_out_is_counted_apart_and_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_with(SHARE)
    log = log_of(pipeline, SHARE)
    loop = worker(pipeline)
    with caplog.at_level(logging.WARNING):
        learned(loop, log)
    kept = sum(e.kept for e in log)
    assert isinstance(loop.metrics, RecordingMetrics)
    counts = [loop.metrics.value(name) for name in ("training_examples_total", "negatives_left_out_total")]
    assert counts == [kept, len(log) - kept]
    assert (loop.learner.examples, loop.learner.version, loop.model_errors) == (kept, len(log), {})
    assert caplog.messages == []


@pytest.mark.parametrize(("now", "warned"), [(0.1, False), (0.5, True), (1.0, True)])
def test_a_share_that_has_grown_is_warned_of_once(now: float, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The log lacks vectors then; where the share is smaller than it was, all that is needed is there."""
    pipeline = pipeline_with(now)
    with caplog.at_level(logging.WARNING):
        learned(worker(pipeline), log_of(pipeline, SHARE))
    assert len(caplog.messages) == warned
    assert all(f"negatives={now:g} would have it learned" in message for message in caplog.messages)


@pytest.mark.parametrize("before", [SHARE, 1.0])
def test_quality_counts_all_and_the_frozen_copy_is_asked_about_those_that_are_learned(
    before: float, caplog: pytest.LogCaptureFixture
) -> None:
    """No more of them where the log has more vectors than that, since each stands for as many."""
    pipeline = pipeline_with(SHARE, baseline_examples=100)
    log = log_of(pipeline, before)
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    for offset, entry in enumerate(log):
        loop.learner.apply(offset, entry)
    records = [record_of(offset, entry) for offset, entry in enumerate(log)]
    with caplog.at_level(logging.ERROR):
        assert watch.step(loop, unit, records) == [None] * len(log)
    assert caplog.messages == [], "the frozen copy was asked about an empty vector"
    watched = monitors.watch(unit, pipeline)
    assert watched._so_far().total.n == len(log)
    since = loop.learner.frozen_version
    compared = watched._so_far()
    assert compared.since.n + compared._negatives[1].n == sum(map(loop.learner.learns, log[since:]))


@pytest.mark.parametrize("before", [SHARE, 1.0])
def test_a_reaction_learns_so_many_again_as_are_learned(before: float) -> None:
    """What is left out does not count among the newest that a new model learns."""
    pipeline = pipeline_with(SHARE, react=relearn(200))
    log = log_of(pipeline, before)
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    watch.step(loop, unit, [record_of(offset, entry) for offset, entry in enumerate(log)])
    since = monitors.incidents(unit, pipeline).since(len(log) - 1)
    learner = Learner(pipeline)
    for offset, entry in enumerate(log[since:], since):
        learner.apply(offset, entry)
    assert 200 <= learner.examples < 200 + EVERY
    assert len(log) - since > 300
