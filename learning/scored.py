"""Examples of the training log as columns, for all who watch it: each is packed once, and many are worked out at once.

    learner, watch --an example--> Rows.row --bytes--> Rows.columns --Scored--> losses, quality, drift

A row is packed by whoever has the example at hand, which is the learner as a rule. The watch comes some hundred records
later, when the objects would be far away in memory, and one look at each of their numbers took half its time.
"""

from collections.abc import Sequence
from struct import Struct, error
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from learning.learn import LARGEST, OUTCOMES
from learning.negatives import is_learned
from learning.quality import log_losses, marks_of
from learning.records import Example, LogRecord
from learning.vectors import Floats

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

Heard = bytes | LogRecord
"""What was read of the log: a row, or a record of which there is none."""


class Scored(NamedTuple):
    """Examples that tell how good a pipeline's model is, in the order of the log; arrays with an entry for each.

    Attributes:
        offsets: where they lie in the log.
        wall_ms: when they were written.
        times: event times in ms.
        label_times: likewise.
        versions: of the model that made the prediction.
        labelled: whether the outcome came as a label, not for want of one.
        kept: whether there is a vector.
        learned: whether the model learns it while it learns.
        outcomes: what came: bools, floats, or texts as objects, by the pipeline's task.
        points: of the predictions, as `learning.quality.Points` has them.
        vectors: of shape (examples, features); zeros where there is none.
        costs: the `learning.quality.loss_of` each.
    """

    offsets: Ints
    wall_ms: Ints
    times: Ints
    label_times: Ints
    versions: Ints
    labelled: Bools
    kept: Bools
    learned: Bools
    outcomes: npt.NDArray[Any]
    points: Floats
    vectors: Floats
    costs: Floats

    def since(self, place: int) -> "Scored":
        """Those from a place on."""
        return Scored._make(column[place:] for column in self) if place else self

    def behind(self, offset: int) -> "Scored":
        """Those that lie behind an offset."""
        return self.since(int(np.searchsorted(self.offsets, offset, side="right")))


class Rows:
    """Makes rows of examples, and columns of rows, for one pipeline."""

    def __init__(self, pipeline: "Pipeline") -> None:
        self._task: str = pipeline.task
        self._schema: str = pipeline.feature_set.schema
        self._share: float = pipeline.negatives
        width = len(pipeline.feature_set.names)
        self._of_classes = self._task == "multiclass"
        marks = 4 if self._of_classes else 1
        self._outcome = OUTCOMES[self._task]
        self._missing = [0.0] * width
        self._pack = Struct(f"<5q3?5x{1 + marks + width}d").pack
        self._row = np.dtype(
            [
                *((name, "<i8") for name in ("offset", "wall_ms", "time", "label_time", "version")),
                *((name, "?") for name in ("labelled", "kept", "learned")),
                ("", "V5"),
                ("outcome", "<f8"),
                ("marks", "<f8", (marks,)),
                ("vector", "<f8", (width,)),
            ]
        )
        self._classes: dict[str, int] = {}  # of several classes, the number that stands for each

    def row(self, offset: int, wall_ms: int, example: Example) -> bytes | None:
        """A row for `columns`; None for an example that does not tell how good the model is.

        A correction is a second outcome of a prediction that has been scored; an example of another feature list, task
        or kind of prediction is none of this model's, and the learner says so. Of numbers beyond all bounds only
        `columns` takes notice.

        Args:
            offset: where the example lies in the log.
            wall_ms: when it was written.
            example: of any kind.
        """
        outcome, said, source = example.outcome, example.prediction, example.source
        if source == "correction" or example.schema != self._schema or type(outcome) is not self._outcome:
            return None
        number: Any = outcome
        marks: tuple[Any, ...] = (said,)
        if isinstance(said, dict) is not self._of_classes:
            return None
        if isinstance(said, dict):
            number = self._classes.setdefault(str(outcome), len(self._classes))
            marks = marks_of(said, outcome)
        kept = example.kept
        try:
            return self._pack(
                offset,
                wall_ms,
                example.time_ms,
                example.label_time_ms,
                example.version,
                source != "expiry",
                kept,
                is_learned(example, self._share),
                number,
                *marks,
                *(example.features if kept else self._missing),
            )
        except error:  # too few features, or too many
            return None

    def heard(self, offset: int, wall_ms: int, record: LogRecord) -> Heard:
        """The row of a record, or the record itself where it has none."""
        row = self.row(offset, wall_ms, record) if isinstance(record, Example) else None
        return record if row is None else row

    def columns(self, rows: Sequence[bytes]) -> Scored:
        """The examples of these rows, but for those with an outcome or a feature beyond `learning.learn.LARGEST`."""
        table = np.frombuffer(b"".join(rows), dtype=self._row)
        # Of what is no number it is not true that it is small enough.
        fits = np.abs(table["vector"]).max(axis=1, initial=0.0) <= LARGEST
        if self._task == "regression":
            fits &= np.abs(table["outcome"]) <= LARGEST
        if not fits.all():
            table = table[fits]
        marks, outcomes = table["marks"], self._outcomes(table["outcome"])
        points = marks if self._of_classes else marks[:, 0]
        return Scored(
            table["offset"],
            table["wall_ms"],
            table["time"],
            table["label_time"],
            table["version"],
            table["labelled"],
            table["kept"],
            table["learned"],
            outcomes,
            points,
            table["vector"],
            self._costs(points, outcomes),
        )

    def of(self, offset: int, wall_ms: int, record: LogRecord) -> Scored:
        """One record by itself, or none where it has no row."""
        heard = self.heard(offset, wall_ms, record)
        return self.columns([heard] if isinstance(heard, bytes) else [])

    def _outcomes(self, numbers: Floats) -> npt.NDArray[Any]:
        if not self._of_classes:
            return numbers.astype(self._outcome)
        names = list(self._classes)
        return np.array([names[int(number)] for number in numbers.tolist()], dtype=object)

    def _costs(self, points: Floats, outcomes: npt.NDArray[Any]) -> Floats:
        if self._of_classes:
            return log_losses(points[:, 0])
        if self._task == "binary":
            return log_losses(np.where(outcomes, points, 1.0 - points))
        with np.errstate(over="ignore"):  # of a model that diverges
            costs: Floats = np.abs(points - outcomes)
            return costs
