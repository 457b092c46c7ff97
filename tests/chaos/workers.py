"""What is done to workers: killed at any instant, stopped and let go on, replaced, added and taken away."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiokafka import TopicPartition

from bench.worker import children
from streaming.app import EXIT_FAILED
from streaming.config import Role
from streaming.recovery import committed_offsets, end_offsets
from tests.chaos.checker import Verdict, check, truth
from tests.chaos.run import PARTITIONS, Run, Worker
from tests.chaos.scenario import scenario
from tests.chaos.worker import CHECKPOINT, RECOVERY

RATE = 120.0  # items a second: some hundred thousand in two hundred kills, which can still be checked one by one
PATIENCE = 60.0  # seconds for a worker to do what it has to


@scenario("kills", short=22, share=1.0)
async def kills(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """Two workers are killed again and again: at fault points, at random instants, starting and recovering too."""
    return await killed_in_places(run, items, chance, size, ("all", "all"))


@scenario("roles", short=6, share=0.2)
async def roles(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """The same to two workers that serve and one that watches."""
    return await killed_in_places(run, items, chance, size, ("serve", "serve", "watch"))


@scenario("pairs", short=6, share=0.2)
async def pairs(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """The same to two workers of two processes each, of which one or the other is killed."""
    return await killed_in_places(run, items, chance, size, ("pair", "pair"))


async def killed_in_places(
    run: Run, items: Iterator[Any], chance: random.Random, size: int, places: Sequence[Role]
) -> Verdict:
    """As many workers at a time as there are places, each of its place's role, until so many have come to their end."""
    load = run.load(items, RATE)
    points = fault_points(chance)
    ends = run.rounds(size)

    async def place(role: Role) -> None:
        """One worker after the other, until all together have come to so many ends."""
        for number in ends:
            if number % 3 == 2:
                await killed_at_random(run, chance, role)
            else:
                await killed_at(run, next(points), role)

    await asyncio.gather(*map(place, places))
    for role in dict.fromkeys(places):
        run.start(HEADWATER_ROLE=role)
    expected = truth(run.pipeline, await load.stop())
    return check(run.pipeline, expected, await run.settled(expected))


async def killed_at_random(run: Run, chance: random.Random, role: Role) -> None:
    """A worker's life, up to an instant of its start, its recovery or its work."""
    worker = run.start(HEADWATER_ROLE=role)
    if chance.random() < 0.7:
        await within(lambda: worker.poll() is not None or "opened" in run.said(worker), PATIENCE)
    await asyncio.sleep(chance.uniform(0.0, 4.0))
    if role == "pair" and chance.random() < 0.5 and (seconds := children(worker.pid)):
        os.kill(seconds[0], signal.SIGKILL)
        if await within(lambda: worker.poll() is not None, 30.0) and second_was_killed(run, worker):
            run.history.note("ended with its second process", worker=run.workers.index(worker))
            return
    end(run, worker)


def second_was_killed(run: Run, worker: Worker) -> bool:
    """Whether a worker has ended because the process that watched beside it was killed."""
    return worker.returncode == EXIT_FAILED and f"ended with code {-signal.SIGKILL}" in run.said(worker)


async def killed_at(run: Run, point: str, role: Role) -> None:
    """A worker's life, up to a fault point."""
    worker = run.start(fault=point, HEADWATER_ROLE=role)
    if not await within(lambda: worker.poll() is not None, 30.0):
        run.history.note("never came to its fault point", worker=run.workers.index(worker))
    elif worker.returncode == -signal.SIGKILL or second_was_killed(run, worker):
        run.history.note("killed at a fault point", worker=run.workers.index(worker), point=point)
        return
    end(run, worker)


def end(run: Run, worker: Worker) -> None:
    """Kill a worker, unless it has ended by itself."""
    if worker.poll() is None:
        run.send(worker, signal.SIGKILL)
    else:
        note_fall(run, worker)


def fault_points(chance: random.Random) -> Iterator[str]:
    """Every fault point, in one order after the other, each with how often it is passed before."""
    while True:
        points = [*CHECKPOINT, *RECOVERY]
        chance.shuffle(points)
        for point in points:
            yield f"{point}@{chance.randint(1, 9) if point in CHECKPOINT else 1}"


@scenario("zombies", short=2, share=0.1)
async def zombies(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """A worker is stopped for longer than its session, at a random instant or within a checkpoint, and goes on."""
    load = run.load(items, RATE)
    workers = [run.start(), run.start()]
    cases: list[str] = []
    for number in run.rounds(size):
        within_checkpoint = number % 2 == 0
        zombie = run.start(fault=stop_point(chance)) if within_checkpoint else workers.pop(chance.randrange(2))
        if within_checkpoint:
            leaver = workers.pop(chance.randrange(2))
            run.send(leaver, signal.SIGTERM)
            assert await said(run, zombie, "SIGSTOP at"), run.last_words()
            run.history.note("stopped at a fault point", worker=run.workers.index(zombie))
        else:
            await opened(run, zombie)
            await asyncio.sleep(chance.uniform(0.0, 3.0))
            run.send(zombie, signal.SIGSTOP)
        workers.append(run.start())
        cases += await outlived(run, zombie, chance, must_exit=within_checkpoint)
        replace_fallen(run, workers)
    expected = truth(run.pipeline, await load.stop())
    verdict = check(run.pipeline, expected, await run.settled(expected))
    verdict.found("misbehaved", cases)
    return verdict


def stop_point(chance: random.Random) -> str:
    """A fault point with work in hand: a worker that is stopped there has something that must not be written."""
    # A cut may be empty, and after the commit nothing is left: such a worker may join the group again unharmed.
    point = chance.choice([p for p in CHECKPOINT if not p.startswith("cut") and p != "commit:after"])
    return f"{point}@{chance.randint(3, 9)}:STOP"


async def outlived(run: Run, zombie: Worker, chance: random.Random, *, must_exit: bool) -> list[str]:
    """Let a stopped worker go on when others have done what it left; what it did wrong."""
    cases = []
    if not await served(run):
        cases.append("what a stopped worker owned was not served")
    await asyncio.sleep(chance.uniform(0.0, 2.0))
    run.send(zombie, signal.SIGCONT)
    if not await within(lambda: zombie.poll() is not None, 30.0 if must_exit else 8.0):
        run.send(zombie, signal.SIGTERM)  # it had nothing in hand, and has joined the group again
        code = await run.ended(zombie)
        if must_exit or (code and not says_fenced(run, zombie)):
            cases.append(f"a zombie did not exit; told to stop, it ended with {code} and: {last_words(run, zombie)}")
        return cases
    run.history.note("fenced", worker=run.workers.index(zombie), code=zombie.returncode)
    if (zombie.returncode or 0) <= 0 or not says_fenced(run, zombie):
        cases.append(f"a zombie exited with {zombie.returncode} and: {last_words(run, zombie)}")
    return cases


def says_fenced(run: Run, worker: Worker) -> bool:
    """Whether the last that it said is that another worker owns what it had."""
    return "another worker owns the unit" in last_words(run, worker)


def last_words(run: Run, worker: Worker) -> str:
    """The last line that a worker said."""
    return "".join(run.said(worker).strip().splitlines()[-1:])


async def served(run: Run) -> bool:
    """Wait until all that the topics hold by now has been done, by whomever; whether it has."""
    topics = run.pipeline.events.topic, run.pipeline.labels.topic
    tps = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
    ends = await end_offsets(run.config, tps)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done = await committed_offsets(run.config, tps)
        if all(done[tp] >= ends[tp] for tp in tps):
            return True
        await asyncio.sleep(0.5)
    return False


@scenario("scaling", short=1, share=0.05)
async def scaling(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """One worker, three, each of them restarted in turn, two, three, one, without a pause for what goes on in them."""
    load = run.load(items, RATE)
    workers: list[Worker] = []
    cases: list[str] = []

    async def to(number: int) -> None:
        run.history.note("scale", workers=number)
        while len(workers) < number:
            workers.append(run.start())
        while len(workers) > number:
            cases.extend(await told_to_stop(run, workers.pop(0)))

    await to(1)
    await opened(run, workers[0])
    for _ in run.rounds(size):
        await to(3)
        await opened(run, workers[-1])
        for _ in range(3):
            await asyncio.sleep(chance.uniform(0.0, 3.0))
            workers.append(run.start())
            cases += await told_to_stop(run, workers.pop(0))
        for number in (2, 3, 1):
            await asyncio.sleep(chance.uniform(0.0, 5.0))
            await to(number)
    expected = truth(run.pipeline, await load.stop())
    verdict = check(run.pipeline, expected, await run.settled(expected))
    cases += [f"worker {run.workers.index(worker)} ended by itself" for worker in run.fallen()]
    verdict.found("misbehaved", cases)
    return verdict


async def told_to_stop(run: Run, worker: Worker) -> list[str]:
    """Have a worker stop in good order; what it did wrong."""
    run.send(worker, signal.SIGTERM)
    code = await run.ended(worker)
    # Before the worker's loop runs there is nothing to stop, and the signal ends the process as it ends any.
    if code == 0 or (code == -signal.SIGTERM and "opened" not in run.said(worker)):
        return []
    return [f"worker {run.workers.index(worker)} was told to stop and ended with {code}: {last_words(run, worker)}"]


async def opened(run: Run, worker: Worker) -> None:
    """Wait until a worker has opened what it owns for the first time."""
    assert await said(run, worker, "opened"), run.last_words()


async def said(run: Run, worker: Worker, words: str) -> bool:
    """Wait until a worker has said something; whether it has."""
    return await within(lambda: words in run.said(worker), PATIENCE)


async def within(condition: Callable[[], bool], patience: float) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.05)
    return True


def replace_fallen(run: Run, workers: list[Worker]) -> None:
    """Start workers anew that ended by themselves, as whoever runs them in earnest would."""
    for number, worker in enumerate(workers):
        if worker in run.fallen():
            note_fall(run, worker)
            workers[number] = run.start()


def note_fall(run: Run, worker: Worker) -> None:
    """Note that a worker has ended by itself, and its last words."""
    run.history.note("fell", worker=run.workers.index(worker), code=worker.returncode, words=last_words(run, worker))
