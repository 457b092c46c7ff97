"""Which event loop a worker runs on."""

import asyncio
import importlib.util
from collections.abc import Iterator

import pytest

from app import event_loop
from streaming.errors import StartupError

uvloop = pytest.importorskip("uvloop")


@pytest.fixture(autouse=True)
def _asyncio_s_own_first_and_as_before_at_the_end() -> Iterator[None]:
    """Whatever tests before these have left in this process."""
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(None)
    yield
    asyncio.set_event_loop_policy(before)


async def running() -> object:
    return asyncio.get_running_loop()


@pytest.mark.parametrize(("wanted", "why"), [("auto", "installed"), ("uvloop", "wanted")])
def test_uvloop_runs_where_it_is_installed(wanted: event_loop.Wanted, why: str) -> None:
    assert event_loop.choose(wanted) == f"event loop: uvloop ({why})"
    assert isinstance(asyncio.run(running()), uvloop.Loop)


def test_asyncio_s_own_runs_where_it_is_wanted() -> None:
    assert event_loop.choose("asyncio") == "event loop: asyncio (wanted)"
    assert not isinstance(asyncio.run(running()), uvloop.Loop)


def test_without_uvloop_a_worker_runs_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert event_loop.choose("auto") == "event loop: asyncio (the extra [fast] is not installed)"
    assert not isinstance(asyncio.run(running()), uvloop.Loop)
    with pytest.raises(StartupError, match=r"HEADWATER_EVENT_LOOP=uvloop needs uvloop.*headwater\[fast\]"):
        event_loop.choose("uvloop")
