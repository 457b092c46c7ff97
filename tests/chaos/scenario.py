"""Scenarios by name: what is done to a run, and how one is played and reported."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos.checker import Verdict
from tests.chaos.history import History
from tests.chaos.items import flights
from tests.chaos.nursery import Nursery
from tests.chaos.run import SLOTS, Run

Play = Callable[[Run, Iterator[Any], random.Random, int], Awaitable[Verdict]]
OwnBroker = Callable[[Path], AbstractContextManager[Any]]

SETTINGS = {
    "HEADWATER_SESSION_TIMEOUT": "3",
    "HEADWATER_CHECKPOINT_INTERVAL": "0.2",
    "HEADWATER_SNAPSHOT_EXAMPLES": "1000",
    "HEADWATER_SNAPSHOT_INTERVAL": "1",
    "HEADWATER_SNAPSHOT_SLOTS": str(SLOTS),
}


class Scenario(msgspec.Struct, frozen=True):
    """One way to harm a run.

    Attributes:
        name: what the command line calls it.
        play: does it, and says what was true afterwards. Its size is how often it does its harm.
        short: the size in `make test`; 0 where it is in `make chaos` only.
        share: the size in `make chaos`, as a share of its kills.
        broker: makes, in a folder, a broker that it may harm, with its `bootstrap`; None: a shared one serves.
    """

    name: str
    play: Play
    short: int
    share: float
    broker: OwnBroker | None = None

    @property
    def about(self) -> str:
        """The first line of its documentation."""
        return (self.play.__doc__ or "").partition("\n")[0]

    def size(self, kills: int) -> int:
        """How often it does its harm in a long run."""
        return max(self.short, 1, round(self.share * kills))


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, *, short: int, share: float, broker: OwnBroker | None = None) -> Callable[[Play], Play]:
    """Register a scenario."""

    def register(play: Play) -> Play:
        SCENARIOS[name] = Scenario(name, play, short, share, broker)
        return play

    return register


class Report(msgspec.Struct):
    """What came of one scenario.

    Attributes:
        scenario: its name.
        seed: what chose its acts.
        size: how often it did its harm.
        seconds: how long it took.
        verdict: what was true afterwards.
        acts: how often each act was done.
        history: the acts, for people.
        words: the end of what the last workers said, where something was wrong.
    """

    scenario: str
    seed: int
    size: int
    seconds: float
    verdict: Verdict
    acts: dict[str, int]
    history: str
    words: str = ""

    @property
    def failure(self) -> str:
        """What was wrong and what had been done, for people; empty where all was well."""
        wrong = self.verdict.wrong()
        if not wrong:
            return ""
        return "\n".join([f"{self.scenario}: {wrong}", *self.verdict.cases, self.history, self.words])


def play(
    chosen: Scenario,
    bootstrap: str | None,
    folder: Path,
    *,
    seed: int,
    size: int,
    items: Iterable[Any] | None = None,
    seconds: float = math.inf,
    store: str = "memory",
) -> Report:
    """Play a scenario.

    Args:
        chosen: the scenario.
        bootstrap: address of the broker, for a scenario that has none of its own.
        folder: for what the workers, and a broker of its own, write.
        seed: chooses the acts.
        size: how often it does its harm at most.
        items: what the run is fed with; flights without end, if they are not given.
        seconds: after which it does no more harm, and checks what there is.
        store: where workers have their state.
    """
    began = time.monotonic()
    nursery = Nursery()
    own: AbstractContextManager[Any] = nullcontext() if chosen.broker is None else chosen.broker(folder)
    with own as broker:
        address = bootstrap if broker is None else broker.bootstrap
        assert address is not None, f"{chosen.name} needs a broker"
        run = Run(address, folder, history=History(seed), broker=broker, nursery=nursery, seconds=seconds)
        run.settings.update(SETTINGS, HEADWATER_STORE=store, HEADWATER_STORE_CACHE_MB="8")
        try:
            verdict = asyncio.run(_played(chosen, run, random.Random(f"{chosen.name} {seed}"), size, items))
            words = run.last_words() if verdict.wrong() else ""
        finally:
            run.end()
            nursery.close()
    seconds = time.monotonic() - began
    return Report(chosen.name, seed, size, seconds, verdict, run.history.counts(), str(run.history), words)


async def _played(chosen: Scenario, run: Run, chance: random.Random, size: int, items: Iterable[Any] | None) -> Verdict:
    await run.prepare()
    try:
        return await chosen.play(run, flights() if items is None else iter(items), chance, size)
    except Exception as error:
        error.add_note(f"{run.history}\n{run.last_words()}")
        raise
