"""What each record of the training log cost the model, for all who watch the log: worked out once, for many at once."""

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING

import numpy as np

from learning.learn import LARGEST, is_scorable
from learning.quality import SMALLEST, loss_of
from learning.records import Example, LogRecord

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

_FEW = 8  # up to there, one by one is faster


def costs_of(pipeline: "Pipeline", records: Sequence[LogRecord]) -> list[float | None]:
    """The `loss_of` each record; None for one that does not tell how good the model is (see `is_scorable`)."""
    fits = _surely_scorable(pipeline, records) if len(records) > _FEW else [False] * len(records)
    task = pipeline.task
    costs: list[float | None] = []
    for record, fit in zip(records, fits, strict=True):
        if not isinstance(record, Example) or not (fit or is_scorable(pipeline, record)):
            costs.append(None)
        elif task == "binary":  # as `log_loss` has it, without two calls
            value: float = record.prediction  # type: ignore[assignment]
            right = value if record.outcome else 1.0 - value
            costs.append(-log(min(max(right, SMALLEST), 1.0 - SMALLEST)))
        else:
            costs.append(loss_of(task, record.prediction, record.outcome))
    return costs


def _surely_scorable(pipeline: "Pipeline", records: Sequence[LogRecord]) -> list[bool]:
    """Those of which it is clear at a glance; the others are asked about by `is_scorable`, which says why not."""
    n, schema = len(pipeline.feature_set.names), pipeline.feature_set.schema
    if pipeline.task != "binary" or not n:
        return [False] * len(records)
    found = [(i, record) for i, record in enumerate(records) if type(record) is Example]
    plain = [
        (i, example.features)
        for i, example in found
        if example.source != "correction"
        and example.schema == schema
        and type(example.outcome) is bool
        and type(example.prediction) is float
        and len(example.features) == n
    ]
    sure = np.zeros(len(records), dtype=bool)
    if plain:
        places, vectors = zip(*plain, strict=True)
        matrix = np.array(vectors, dtype=float)
        # Of what is no number neither is true.
        sure[list(places)] = (matrix.min(axis=1) >= -LARGEST) & (matrix.max(axis=1) <= LARGEST)
    return sure.tolist()
