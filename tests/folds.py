"""The training log folded by the book, however long that takes: what every faster way is held against."""

from collections.abc import Sequence
from contextlib import suppress

from learning.learn import Learner, ModelError
from learning.records import LogRecord
from pipelines.definition import Pipeline

Log = Sequence[tuple[int, LogRecord]]


def fold(pipeline: Pipeline, log: Log, version: int) -> Learner:
    """The model at a version: all records before it, one after the other; a rollback is the fold at its version."""
    learner = Learner(pipeline)
    for offset, record in log:
        if offset < version:
            advance(pipeline, learner, log, offset, record)
    return learner


def advance(pipeline: Pipeline, learner: Learner, log: Log, offset: int, record: LogRecord) -> None:
    """One record further."""
    to = learner.rollback_to(offset, record)
    if to is not None:
        learner.roll_back(offset, to, fold(pipeline, log, to))
        return
    with suppress(ModelError):
        learner.apply(offset, record)
