"""How the records of a chunk are taken, marked and refused: what a checkpoint finds at any await belongs together."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from agents.loop import TURN, Loop
from learning.intake import Invalid
from streaming.unit import Chunk, Unit
from tests.fuzz.inputs import record
from tests.integration import flights_run
from tests.unit.agents.test_alarms import loop_of

PIPELINE = flights_run.named("turns")
EVENTS = TopicPartition(PIPELINE.events.topic, 0)


class Run:
    """One chunk of so many events through a loop whose engine and clock are ours.

    Attributes:
        awaits: at each await between turns, how many records were done and how many were marked.
        failed: what ended the worker.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, records: int) -> None:
        self.unit = Unit("events", 0, {}, {EVENTS: 0})
        self.done, self.awaits, self.failed = 0, list[tuple[int, int]](), list[Exception]()
        self._now = 0.0
        self._records = [record(EVENTS.topic, at, (b"k", b"v", 0, ())) for at in range(records)]
        self.loop = loop_of(PIPELINE)
        monkeypatch.setattr(self.loop.engine, "unit_of", lambda _: self.unit)
        monkeypatch.setattr(self.loop.engine, "breathe", self._breathe)
        monkeypatch.setattr(self.loop.app, "fail", self._fail, raising=False)
        monkeypatch.setattr("agents.loop.time", SimpleNamespace(perf_counter=lambda: self._now))

    def each(self, step: Callable[[int], None], seconds: float) -> None:
        """Do them all by a step that gets the offset and takes so long."""

        def timed(_loop: Loop, _unit: Unit, one: Any) -> None:
            self._now += seconds
            step(one.offset)
            self.done += 1

        asyncio.run(self.loop.each(Chunk(EVENTS, 0, self._records), timed))

    async def _breathe(self) -> None:
        self.awaits.append((self.done, self.unit.marks[EVENTS]))

    async def _fail(self, error: Exception) -> None:
        self.failed.append(error)
        self.unit.close()


def test_what_is_done_is_marked_whenever_somebody_else_has_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, 10)
    run.each(lambda _: None, TURN / 2.5)
    assert run.awaits == [(3, 3), (6, 6), (9, 9)]
    assert (run.done, run.unit.marks[EVENTS], run.failed) == (10, 10, [])


def test_a_chunk_of_which_nothing_is_to_be_done_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of one that comes again after a seek."""
    run = Run(monkeypatch, 3)
    run.unit.mark(EVENTS, 9)
    run.each(lambda _: None, 0.0)
    assert (run.done, run.unit.marks[EVENTS], run.failed) == (0, 10, [])


def test_refused_records_are_dead_letters_and_are_marked_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(offset: int) -> None:
        if offset in (1, 4):
            raise Invalid(reason="malformed", message=f"number {offset}")

    run = Run(monkeypatch, 5)
    run.each(refuses, 0.0)
    letters = run.unit.cut().outputs[TopicPartition(PIPELINE.dead_letters_topic, 0)]
    assert [dict(letter.headers)["message"] for letter in letters] == [b"number 1", b"number 4"]
    assert [dict(letter.headers)["offset"] for letter in letters] == [b"1", b"4"]
    assert (run.done, run.unit.marks[EVENTS], run.failed) == (3, 5, [])
    assert list(run.loop._judged) == [False, True, False, False, True]


def test_a_step_that_raises_ends_the_worker_and_is_not_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is saved any more, so who comes after does it again, and all that was done since the last checkpoint."""

    def raises(offset: int) -> None:
        if offset == 4:
            raise ZeroDivisionError

    run = Run(monkeypatch, 10)
    run.each(raises, TURN / 2.5)
    assert [type(error) for error in run.failed] == [ZeroDivisionError]
    assert (run.unit.marks[EVENTS], run.unit.open) == (4, False)
