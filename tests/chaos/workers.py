"""What is done to workers: killed at any instant, stopped and let go on, replaced, added and taken away."""

import asyncio
import random
import signal
from collections.abc import Iterator
from typing import Any

from tests.chaos.checker import Verdict, check, truth
from tests.chaos.run import Run
from tests.chaos.scenario import scenario
from tests.chaos.worker import CHECKPOINT, RECOVERY

RATE = 400.0  # items a second


@scenario("kills", short=6, share=1.0)
async def kills(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """Two workers under load; again and again one is killed at a random instant, or kills itself at a fault point."""
    load = run.load(items, RATE)
    points = fault_points(chance)
    workers = [run.start(), run.start()]
    await asyncio.sleep(5)
    for number in range(size):
        which = chance.randrange(len(workers))
        if number % 2:  # whoever takes its place dies at the next fault point
            run.send(workers[which], signal.SIGKILL)
            workers[which] = run.start(fault=next(points))
        else:
            await asyncio.sleep(chance.uniform(0.0, 5.0))
            run.send(workers[which], signal.SIGKILL)
            workers[which] = run.start()
    expected = truth(run.pipeline, await load.stop())
    return check(run.pipeline, expected, await run.settled(expected))


def fault_points(chance: random.Random) -> Iterator[str]:
    """Every fault point, in one order after the other, each with how often it is passed before."""
    while True:
        points = [*CHECKPOINT, *RECOVERY]
        chance.shuffle(points)
        for point in points:
            yield f"{point}@{chance.randint(1, 9) if point in CHECKPOINT else 1}"
