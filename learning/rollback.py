"""Which records of the training log a version is made of, when some of the log has been taken out of it.

A rollback at offset o to version V takes what lies from V to o out of all later models; a relearn since s takes out
what lies before s. So a version is the fold of a few runs of records, and none is read twice, however turns are nested.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from typing import NamedTuple

from learning.learn import Learner, ModelError, Turn
from learning.records import LogRecord


class Run(NamedTuple):
    """Records at offsets from start to before stop."""

    start: int
    stop: int


Read = Callable[[int, int], AsyncGenerator[tuple[int, LogRecord], None]]
"""Records of the log with their offsets, from an offset to before another."""


def lineage(turns: Sequence[Turn], version: int, saved: Collection[int] = ()) -> tuple[int | None, list[Run]]:
    """The saved version to start from, None for a new model, and the runs of records to be learned after it.

    Args:
        turns: what the log's control records did, all those before the version at least.
        version: the version to be made.
        saved: versions that are to be had without the log.

    >>> rollback = Turn(20, 5, learning=True)
    >>> lineage([rollback], 30)
    (None, [Run(start=0, stop=5), Run(start=21, stop=30)])
    >>> lineage([rollback], 30, saved=[3, 18])  # 18 is of the part that was taken out
    (3, [Run(start=3, stop=5), Run(start=21, stop=30)])
    >>> lineage([rollback], 30, saved=[25])
    (25, [Run(start=25, stop=30)])
    >>> relearn = Turn(40, None, learning=True, since=3)
    >>> lineage([rollback, relearn], 50, saved=[4, 25])  # what is saved has learned what comes before 3
    (None, [Run(start=3, stop=5), Run(start=21, stop=40), Run(start=41, stop=50)])
    """
    runs: list[Run] = []
    since = None  # a model that learns the log again has learned nothing before
    while True:
        last = next((turn for turn in reversed(turns) if turn.remakes and turn.offset < version), None)
        begin = 0 if last is None else last.offset + 1
        base = max((at for at in saved if since is None and begin <= at <= version), default=None)
        start = max(begin if base is None else base, since or 0)
        if start < version:
            runs.insert(0, Run(start, version))
        if base is not None or last is None:
            return base, runs
        if last.to is not None:
            version = last.to
        else:
            version, since = last.offset, max(since or 0, last.since or 0)


async def fold(learner: Learner, turns: Sequence[Turn], runs: Sequence[Run], read: Read) -> Learner:
    """The learner, which is new or at the first run's start, after these runs of the log.

    Whether examples are learned follows from the whole log, and not from the runs: a rollback thaws nothing.
    """
    for run in runs:
        learner.turns = tuple(turn for turn in turns if turn.offset < run.start)
        async with aclosing(read(run.start, run.stop)) as records:
            async for offset, record in records:
                with suppress(ModelError):  # every worker passed over it, so this is the same model
                    learner.apply(offset, record)
    return learner
