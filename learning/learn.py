"""The model as a fold over the training log: predicts at a version, and takes one record to the next.

Every worker holds one `Learner` and feeds it every record of the log in order. It must never learn anything else.
"""

import math
import pickle
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from learning.fused import FusedModel, fused
from learning.records import Control, Example, LogRecord, Value

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

Predictor = Callable[[Any, dict[str, float]], Value]


class ModelError(Exception):
    """The model raised, or answered something that is no prediction."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Turn(NamedTuple):
    """What a control record changed.

    Attributes:
        offset: where the record lies in the log.
        to: the version that the model went back to; None where it stayed.
        learning: whether examples after the record are learned.
    """

    offset: int
    to: int | None
    learning: bool


class State(NamedTuple):
    """What a learner is made of by the log, under the names that it has in `Learner`; turns are plain tuples."""

    model: Any
    version: int
    examples: int
    frozen: Any
    frozen_version: int
    turns: tuple[tuple[int, int | None, bool], ...] = ()
    past: tuple[tuple[int, Any], ...] = ()


class Learner:
    """One model and its place in the training log.

    Attributes:
        model: the River model as it is now. It may be read and copied; ask for it again after the next example.
        version: offset of the last record applied, plus one.
        examples: how many examples it has learned.
        frozen: the model as it was after the pipeline's first `baseline_examples` examples; None before that.
        frozen_version: the version since which that is the frozen copy: where it was frozen, or where a rollback to
            another one lies.
        turns: what the control records behind the version have changed, in the order of the log.
        past: what `frozen` was before, each with its `frozen_version`, where rollbacks have changed it.
    """

    def __init__(self, pipeline: "Pipeline") -> None:
        self.version = 0
        self.examples = 0
        self.frozen: Any = None
        self.frozen_version = 0
        self.turns: tuple[Turn, ...] = ()
        self.past: tuple[tuple[int, Any], ...] = ()
        self._names: tuple[str, ...] = tuple(pipeline.feature_set.names)
        self._schema: str = pipeline.feature_set.schema
        self._baseline: int = pipeline.baseline_examples
        self._task: str = pipeline.task
        self._unsupervised = pipeline.task == "anomaly"
        self._still: tuple[Any, FusedModel | None] = (None, None)  # the frozen copy, and what stands for it
        self.model = pipeline.model()
        self._predict = _predictor(pipeline.task, self._model)
        copy_of(self.model)  # a model that cannot be copied must be refused now, not after 5,000 examples

    @property
    def model(self) -> Any:
        """The River model as of the version."""
        return self._model if self._fused is None else self._fused.to_river()

    @model.setter
    def model(self, model: Any) -> None:
        self._model = model
        self._fused = self._stand_in(model)

    def _stand_in(self, model: Any) -> FusedModel | None:
        """What does the same as the model, faster; None where there is nothing."""
        return fused(model, self._names) if self._task in ("binary", "regression") else None

    def state(self) -> State:
        """All that the log has made of it; what `restored` continues from. It is no copy."""
        turns = tuple((turn.offset, turn.to, turn.learning) for turn in self.turns)
        return State(self.model, self.version, self.examples, self.frozen, self.frozen_version, turns, self.past)

    @classmethod
    def restored(cls, pipeline: "Pipeline", state: State) -> "Learner":
        """The learner of this pipeline that had that state."""
        learner = cls(pipeline)
        learner.model, learner.version, learner.examples = state.model, state.version, state.examples
        learner.frozen, learner.frozen_version, learner.past = state.frozen, state.frozen_version, state.past
        learner.turns = tuple(Turn(*turn) for turn in state.turns)
        return learner

    @property
    def learning(self) -> bool:
        """Whether the next example is learned, which the last control record decides."""
        return not self.turns or self.turns[-1].learning

    def predict(self, vector: Sequence[float]) -> Value:
        """What the model says about a vector now. Raises `ModelError`.

        A model that answers with no finite number before its first example, as River's `MinMaxScaler` makes one do, is
        taken to know nothing yet: if that were an error, no event would ever get to teach it.
        """
        value = self._ask(self._model, vector) if self._fused is None else self._ask_fused(self._fused, vector)
        if not _finite(value) and not self.examples:
            return _NOTHING_KNOWN[self._task]
        return _checked(value)

    def predict_frozen(self, vector: Sequence[float]) -> Value | None:
        """What the frozen copy says; None while there is none. Ask before `apply`, as for the model itself."""
        return None if self.frozen is None else self.predict_with(self.frozen, vector)

    def frozen_at(self, offset: int) -> Any:
        """The frozen copy as it was just before this offset of the log; None while there was none.

        Whoever watches the log comes after the learner, which may have gone back to another copy meanwhile.
        """
        if offset >= self.frozen_version:
            return self.frozen
        return next((model for since, model in reversed(self.past) if since <= offset), None)

    def predict_with(self, model: Any, vector: Sequence[float]) -> Value:
        """What another state of the same model says about a vector. Raises `ModelError`."""
        if model is None or model is not self.frozen:
            return _checked(self._ask(model, vector))
        if self._still[0] is not model:
            # Of a copy, since whoever has the frozen one in hand may look into it at any time.
            self._still = (model, self._stand_in(copy_of(model)))
        still = self._still[1]
        return _checked(self._ask(model, vector) if still is None else self._ask_fused(still, vector))

    def _ask(self, model: Any, vector: Sequence[float]) -> Value:
        try:
            return self._predict(model, dict(zip(self._names, vector, strict=True)))
        except Exception as exc:
            raise ModelError(traceback.format_exc()) from exc

    def _ask_fused(self, stand_in: FusedModel, vector: Sequence[float]) -> Value:
        try:
            return stand_in.predict_vector(vector) or 0.0  # which is 0.0 for -0.0, as `_predictor` has it
        except Exception as exc:
            raise ModelError(traceback.format_exc()) from exc

    def apply(self, offset: int, record: LogRecord) -> None:
        """Take the record at this offset of the log. Raises `ModelError`, with the version moved on all the same.

        A record already behind the version is passed over, so a log may be read again from any earlier place. While
        learning is frozen an example moves the version on and nothing else. A rollback that `rollback_to` tells of
        is for `roll_back`, since only whoever can read the log again can make the model of then.
        """
        if offset < self.version:
            return
        if self.rollback_to(offset, record) is not None:
            message = f"the rollback at offset {offset} cannot be applied without the model that it goes back to"
            raise ValueError(message)
        self.version = offset + 1
        if isinstance(record, Control):
            self._turn(offset, record)
        elif isinstance(record, Example) and self.learning:
            self._learn(record)

    def rollback_to(self, offset: int, record: LogRecord) -> int | None:
        """The version that the record at this offset takes the model back to; None where it does no such thing."""
        if offset < self.version or not isinstance(record, Control) or record.action != "rollback":
            return None
        return record.to if record.to is not None and record.to <= offset else None

    def roll_back(self, offset: int, to: int, then: "Learner") -> None:
        """Take the rollback at this offset: the model becomes that of the fold at version `to`.

        The version goes on, so that a version still names one model; and whether examples are learned stays as it is.

        Args:
            offset: where the rollback lies.
            to: the version to go back to.
            then: the fold of the log at that version, to be used by nobody else.
        """
        self.model, self.examples = then.model, then.examples
        if self.frozen_version > to:  # or else the frozen copy of then is the one of now
            self._keep_frozen(then.frozen, offset + 1)
        self.turns = (*self.turns, Turn(offset, to, self.learning))
        self.version = offset + 1

    def _turn(self, offset: int, control: Control) -> None:
        if control.action == "rollback":
            message = (
                f"the rollback at offset {offset} by {control.by} goes to version {control.to}, expected one from 0 to"
                f" {offset}; write controls with `headwater rollback`, which checks that"
            )
            raise ModelError(message)
        self.turns = (*self.turns, Turn(offset, None, control.action == "thaw"))

    def _learn(self, example: Example) -> None:
        if example.schema != self._schema:
            message = (
                f"example {example.id!r} has feature schema {example.schema}, the pipeline has {self._schema};"
                " keep the feature definitions or start a new pipeline name"
            )
            raise ModelError(message)
        try:
            self._teach(example)
        except Exception as exc:
            raise ModelError(traceback.format_exc()) from exc
        self.examples += 1
        if self.examples == self._baseline:
            self._keep_frozen(copy_of(self.model), self.version)

    def _teach(self, example: Example) -> None:
        if self._fused is not None:
            self._fused.learn_vector(example.features, example.outcome)
            return
        x = dict(zip(self._names, example.features, strict=True))
        if self._unsupervised:
            self._model.learn_one(x)
        else:
            self._model.learn_one(x, example.outcome)

    def _keep_frozen(self, frozen: Any, since: int) -> None:
        """Have another frozen copy, or none, from a version on."""
        if self.frozen_version:  # or else there has been none, which needs no keeping
            self.past = (*self.past, (self.frozen_version, self.frozen))
        self.frozen, self.frozen_version = frozen, since


_NOTHING_KNOWN: dict[str, Value] = {"binary": 0.5, "multiclass": {}, "regression": 0.0, "anomaly": 0.0}


def _finite(value: Value) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    return all(map(math.isfinite, value.values() if isinstance(value, dict) else (value,)))


def _checked(value: Value) -> Value:
    if not _finite(value):
        message = f"the model predicted {value!r}, expected a finite number"
        raise ModelError(message)
    return value


def copy_of(model: Any) -> Any:
    """A copy that shares nothing, made as a snapshot would make it. Raises `ModelError`."""
    try:
        return pickle.loads(pickle.dumps(model, pickle.HIGHEST_PROTOCOL))
    except Exception as exc:
        message = f"the model cannot be pickled ({exc}); use named functions of a module instead of lambdas in it"
        raise ModelError(message) from exc


def _predictor(task: str, model: Any) -> Predictor:
    if task == "anomaly":
        return lambda model, x: float(model.score_one(x))
    if task == "regression":
        return lambda model, x: float(model.predict_one(x) or 0.0)
    if not _has_probabilities(model):
        return _class_only if task == "multiclass" else _true_only
    return _class_probabilities if task == "multiclass" else _probability


def _has_probabilities(model: Any) -> bool:
    """Whether to ask for probabilities. A River pipeline has the method whatever its last step is."""
    steps = getattr(model, "steps", None)
    last = list(steps.values())[-1] if isinstance(steps, dict) and steps else model
    if last is not model:
        return _has_probabilities(last)
    return hasattr(model, "predict_proba_one")


def _probability(model: Any, x: dict[str, float]) -> float:
    try:
        probabilities = model.predict_proba_one(x)
    except NotImplementedError:
        return _true_only(model, x)
    return float(probabilities.get(True, 0.0)) if probabilities else 0.5


def _true_only(model: Any, x: dict[str, float]) -> float:
    return 1.0 if model.predict_one(x) else 0.0


def _class_probabilities(model: Any, x: dict[str, float]) -> dict[str, float]:
    try:
        probabilities = model.predict_proba_one(x)
    except NotImplementedError:
        return _class_only(model, x)
    return {str(name): float(p) for name, p in probabilities.items()}


def _class_only(model: Any, x: dict[str, float]) -> dict[str, float]:
    name = model.predict_one(x)
    return {} if name is None else {str(name): 1.0}
