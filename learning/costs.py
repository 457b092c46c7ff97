"""What each record of the training log cost the model, for all who watch the log: worked out once, for many at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from learning.learn import LARGEST, is_scorable
from learning.quality import loss_of
from learning.records import Example, LogRecord

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

_FEW = 8  # up to there, one by one is faster


def costs_of(pipeline: "Pipeline", records: Sequence[LogRecord]) -> list[float | None]:
    """The `loss_of` each record; None for one that does not tell how good the model is (see `is_scorable`)."""
    fits = _surely_scorable(pipeline, records) if len(records) > _FEW else [False] * len(records)
    return [
        loss_of(pipeline.task, record.prediction, record.outcome)
        if isinstance(record, Example) and (fit or is_scorable(pipeline, record))
        else None
        for record, fit in zip(records, fits, strict=True)
    ]


def _surely_scorable(pipeline: "Pipeline", records: Sequence[LogRecord]) -> list[bool]:
    """Those of which it is clear at a glance; the others are asked about by `is_scorable`, which says why not."""
    n, schema = len(pipeline.feature_set.names), pipeline.feature_set.schema
    if pipeline.task != "binary" or not n:
        return [False] * len(records)
    plain = [
        (i, record.features)
        for i, record in enumerate(records)
        if isinstance(record, Example)
        and record.source != "correction"
        and record.schema == schema
        and type(record.outcome) is bool
        and type(record.prediction) is float
        and len(record.features) == n
    ]
    sure = np.zeros(len(records), dtype=bool)
    if plain:
        places, vectors = zip(*plain, strict=True)
        matrix = np.array(vectors, dtype=float)
        # Of what is no number neither is true.
        sure[list(places)] = (matrix.min(axis=1) >= -LARGEST) & (matrix.max(axis=1) <= LARGEST)
    return sure.tolist()
