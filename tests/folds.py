"""The training log folded by the book, however long that takes: what every faster way is held against."""

from collections.abc import Sequence
from contextlib import suppress

from learning.learn import Learner, ModelError, Turn, unfit
from learning.records import Control, Example, LogRecord
from learning.scored import Rows, Scored
from pipelines.definition import Pipeline

Log = Sequence[tuple[int, LogRecord]]


def fold(pipeline: Pipeline, log: Log, version: int) -> Learner:
    """The model at a version: all records before it, one after the other; a rollback is the fold at its version."""
    learner = Learner(pipeline)
    for offset, record in log:
        if offset < version:
            advance(pipeline, learner, log, offset, record)
    return learner


def is_scorable(pipeline: Pipeline, record: Example) -> bool:
    """Whether the example tells how good this pipeline's model is.

    A correction is a second outcome of a prediction that has been scored; an example of another feature list, task or
    kind of prediction is none of this model's, and the learner says so.
    """
    feature_set, task = pipeline.feature_set, pipeline.task
    return (
        record.source != "correction"
        and record.schema == feature_set.schema
        and unfit(task, len(feature_set.names), record) is None
        and isinstance(record.prediction, dict) == (task == "multiclass")
    )


def columns_of(pipeline: Pipeline, log: Log, *, wall_ms: int = 0) -> Scored:
    """Its examples as columns, as the watch gets them."""
    rows = Rows(pipeline)
    heard = [rows.heard(offset, wall_ms, record) for offset, record in log]
    return rows.columns([each for each in heard if isinstance(each, bytes)])


def advance(pipeline: Pipeline, learner: Learner, log: Log, offset: int, record: LogRecord) -> None:
    """One record further."""
    turn = learner.turn_at(offset, record)
    if turn is not None:
        learner.take_turn(turn, led_to(pipeline, log, turn))
        return
    with suppress(ModelError):
        learner.apply(offset, record)


def led_to(pipeline: Pipeline, log: Log, turn: Turn) -> Learner:
    """The model that a turn leads to."""
    if turn.to is not None:
        return fold(pipeline, log, turn.to)
    learner, records = Learner(pipeline), dict(log)
    for offset in sorted(living(log, turn.offset)):
        record = records[offset]
        assert turn.since is not None
        if offset >= turn.since and (boosts(record) or (isinstance(record, Example) and learned_at(log, offset))):
            with suppress(ModelError):
                learner.apply(offset, record)
    return learner


def living(log: Log, version: int) -> set[int]:
    """Offsets of the records that the model at a version is made of."""
    alive: set[int] = set()
    for offset, record in log:
        if offset >= version:
            break
        to, since = places(record)
        if to is not None and to <= offset:
            alive = living(log, to)
        elif since is not None and since <= offset:
            alive = {one for one in alive if one >= since}
        else:
            alive.add(offset)
    return alive


def places(record: LogRecord) -> tuple[int | None, int | None]:
    """Where a rollback goes back to, and where a relearn begins."""
    if not isinstance(record, Control):
        return None, None
    return (
        record.to if record.action == "rollback" else None,
        record.since if record.action == "relearn" else None,
    )


def learned_at(log: Log, version: int) -> bool:
    """Whether examples are learned at this place of the log."""
    said = [r.action for o, r in log if o < version and isinstance(r, Control) and r.action in ("freeze", "thaw")]
    return not said or said[-1] == "thaw"


def boosts(record: LogRecord) -> bool:
    """Whether the record changes the learning rate."""
    return isinstance(record, Control) and record.action == "boost"
