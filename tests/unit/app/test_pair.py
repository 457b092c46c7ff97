"""Two processes and the socket between them: what is told, and that each sees the end of the other."""

import asyncio
import os
import signal
import socket
import sys
import time

import pytest

from app import pair
from app.metrics import PrometheusMetrics, parse
from app.pair import Hearing, Other, Telling
from app.settings import Settings
from streaming.checkpoint import Step, no_step
from streaming.errors import EngineError
from tests.chaos.workers import within

CODE = 7


def ends_as_told(settings: Settings, step: Step, other: Other) -> None:
    """A second process that ends with a code that says how it was started and what it was told."""
    partitions = other.told()
    assert (settings.app_id, step.__name__) == ("pairs", "no_step")
    assert os.nice(0) >= pair.GIVES_WAY
    sys.exit(CODE if partitions is None else partitions)


def tells_until_told_to_stop(_settings: Settings, _step: Step, other: Other) -> None:
    """A second process that measures something."""

    async def main() -> None:
        metrics = PrometheusMetrics()
        metrics.gauge("quality", 0.5, metric="log_loss")
        telling = Telling(other, metrics)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await telling.start()
        await stop.wait()
        await telling.stop()

    asyncio.run(main())


def fails(_settings: Settings, _step: Step, other: Other) -> None:
    """A second process that begins, and cannot go on."""
    other.told()
    sys.exit(CODE)


def code_of(other: Other) -> int | None:
    assert other.process is not None
    other.process.join(30)
    return other.process.exitcode


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_second_process_begins_when_it_is_told_to(start: str) -> None:
    with pair.begun(ends_as_told, Settings(app_id="pairs"), no_step, start=start) as other:
        assert other.process is not None
        time.sleep(0.2)
        assert other.process.is_alive()
        other.go(4)
        assert code_of(other) == 4


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_second_process_ends_when_the_first_never_lets_it_begin(start: str) -> None:
    """Whatever keeps a worker from starting is said once, by the first."""
    with pair.begun(ends_as_told, Settings(app_id="pairs"), no_step, start=start) as other:
        pass
    assert code_of(other) == CODE


def test_ctrl_c_while_the_second_waits_is_for_the_first_to_act_on() -> None:
    """A terminal sends it to both, and a traceback of the one that waits says nothing."""
    with pair.begun(ends_as_told, Settings(app_id="pairs"), no_step, start="fork") as other:
        assert other.process is not None
        assert other.process.pid is not None
        time.sleep(0.5)
        os.kill(other.process.pid, signal.SIGINT)
        other.go(4)
        assert code_of(other) == 4


def test_to_let_one_begin_that_is_gone_is_no_error() -> None:
    with pair.begun(ends_as_told, Settings(app_id="another"), no_step) as other:
        assert other.process is not None
        other.process.kill()
        other.process.join()
        other.go(4)


def test_a_role_is_put_in_the_place_of_the_pair() -> None:
    settings = Settings(app_id="pairs")
    assert (settings.role, pair.role_of(settings, "watch").role) == ("pair", "watch")
    assert pair.role_of(settings, "watch").app_id == "pairs"


class First:
    """The first process of a pair: this one."""

    def __init__(self, other: Other) -> None:
        self.metrics = PrometheusMetrics()
        self.failures: list[BaseException] = []
        self.hearing = Hearing(other, self.metrics, self._fail)

    async def _fail(self, failure: BaseException) -> None:
        self.failures.append(failure)

    def shown(self) -> dict[str, float]:
        return dict(parse(self.metrics.exposition().decode()))


def test_the_first_shows_what_the_second_measures_and_ends_it_in_good_order() -> None:
    async def scenario(other: Other) -> None:
        first = First(other)
        await first.hearing.start()
        assert await within(lambda: first.shown().get('quality{metric="log_loss"}') == 0.5, 10)
        await first.hearing.stop()
        assert code_of(other) == 0
        assert not first.failures

    with pair.begun(tells_until_told_to_stop, Settings(), no_step) as other:
        asyncio.run(scenario(other))


@pytest.mark.parametrize("code", [CODE, -signal.SIGKILL])
def test_the_first_fails_when_the_second_does(code: int) -> None:
    async def scenario(other: Other) -> None:
        first = First(other)
        await first.hearing.start()
        assert other.process is not None
        if code < 0:
            other.process.kill()
        else:
            other.go(4)
        assert await within(lambda: bool(first.failures), 10)
        assert isinstance(first.failures[0], EngineError)
        assert f"ended with code {code}; what it said last is above" in str(first.failures[0])
        await first.hearing.stop()

    with pair.begun(fails, Settings(), no_step) as other:
        asyncio.run(scenario(other))


def test_the_first_stops_when_the_second_was_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []

    async def scenario(other: Other) -> None:
        first = First(other)
        await first.hearing.start()
        assert await within(lambda: 'quality{metric="log_loss"}' in first.shown(), 10)
        assert other.process is not None
        other.process.terminate()
        monkeypatch.setattr(os, "kill", lambda *of: sent.append(of))
        assert await within(lambda: bool(sent), 10)
        monkeypatch.undo()
        assert not first.failures
        await first.hearing.stop()

    with pair.begun(tells_until_told_to_stop, Settings(), no_step) as other:
        asyncio.run(scenario(other))
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_the_second_stops_when_the_first_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *of: sent.append(of))

    async def scenario() -> None:
        mine, its = socket.socketpair()
        telling = Telling(Other(its), PrometheusMetrics())
        await telling.start()
        await asyncio.sleep(0.1)
        assert not sent
        mine.close()
        assert await within(lambda: bool(sent), 10)
        await telling.stop()

    asyncio.run(scenario())
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_one_that_does_not_listen_is_waited_for_and_nothing_piles_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the first, when it is stopped by a signal. The second goes on meanwhile."""
    monkeypatch.setattr(pair, "SECONDS", 0.001)
    asked: list[float] = []

    class Counting(PrometheusMetrics):
        def said(self, names: object) -> object:  # type: ignore[override]
            asked.append(time.monotonic())
            return super().said(names)  # type: ignore[arg-type]

    async def scenario() -> None:
        mine, its = socket.socketpair()
        telling = Telling(Other(its), Counting())
        await telling.start()
        await asyncio.sleep(1.0)
        before = len(asked)
        await asyncio.sleep(0.5)
        assert before > 10
        assert len(asked) == before
        mine.close()
        await telling.stop()

    monkeypatch.setattr(os, "kill", lambda *_: None)
    asyncio.run(scenario())
