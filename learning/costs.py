"""What each record of the training log cost the model, for all who watch the log: worked out once, for many at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from learning.learn import LARGEST, is_scorable
from learning.quality import log_losses, loss_of
from learning.records import Example, LogRecord
from learning.vectors import matrix_of

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

_FEW = 8  # up to there, one by one is faster


def costs_of(pipeline: "Pipeline", records: Sequence[LogRecord]) -> list[float | None]:
    """The `loss_of` each record; None for one that does not tell how good the model is (see `is_scorable`)."""
    sure = _surely_scorable(pipeline, records) if len(records) > _FEW else {}
    costs: list[float | None] = [None] * len(records)
    if sure:
        told = log_losses([each.prediction for each in sure.values()], [each.outcome for each in sure.values()])  # type: ignore[misc]
        for place, cost in zip(sure, told, strict=True):
            costs[place] = cost
    for place, record in enumerate(records):
        if place not in sure and isinstance(record, Example) and is_scorable(pipeline, record):
            costs[place] = loss_of(pipeline.task, record.prediction, record.outcome)
    return costs


def _surely_scorable(pipeline: "Pipeline", records: Sequence[LogRecord]) -> dict[int, Example]:
    """Those of which it is clear at a glance, by place; the others are asked about by `is_scorable`."""
    n, schema = len(pipeline.feature_set.names), pipeline.feature_set.schema
    if pipeline.task != "binary" or not n:
        return {}
    plain = {
        i: record
        for i, record in enumerate(records)
        if type(record) is Example
        and record.source != "correction"
        and record.schema == schema
        and type(record.outcome) is bool
        and type(record.prediction) is float
        and len(record.features) == n
    }
    if not plain:
        return {}
    matrix = matrix_of([record.features for record in plain.values()], n)
    if matrix.min() >= -LARGEST and matrix.max() <= LARGEST:  # of what is no number neither is true
        return plain
    inside = (matrix.min(axis=1) >= -LARGEST) & (matrix.max(axis=1) <= LARGEST)
    return {place: record for (place, record), fits in zip(plain.items(), inside, strict=True) if fits}
