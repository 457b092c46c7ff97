"""The model as a fold over the training log: predicts at a version, and takes one record to the next.

Every worker holds one `Learner` and feeds it every record of the log in order. It must never learn anything else.
"""

import pickle
import traceback
from collections.abc import Callable, Sequence
from math import hypot, isfinite, nan
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learning.fused import FusedModel, fused
from learning.negatives import corrected, is_learned, learned_of
from learning.records import Control, Example, LogRecord, Value
from learning.vectors import Floats, matrix
from pipelines.models import last_step, learning_rate_of

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
        since: the offset from which on a new model has learned the log up to the record; None where it stayed.
    """

    offset: int
    to: int | None
    learning: bool
    since: int | None = None

    @property
    def remakes(self) -> bool:
        """Whether the model after it is another one than that before it."""
        return self.to is not None or self.since is not None


class Boost(NamedTuple):
    """A learning rate that is changed for a while.

    Attributes:
        left: examples still to be learned with it.
        usual: the rate to go back to.
    """

    left: int
    usual: float


class State(NamedTuple):
    """What a learner is made of by the log, under the names that it has in `Learner`; turns are plain tuples."""

    model: Any
    version: int
    examples: int
    frozen: Any
    frozen_version: int
    turns: tuple[tuple[int, int | None, bool, int | None], ...] = ()
    past: tuple[tuple[int, Any], ...] = ()
    boost: tuple[int, float] | None = None


class Learner:
    """One model and its place in the training log.

    Where the pipeline learns a share of the negatives, the model's probabilities are of the stream that it has learned,
    and whatever is asked here answers for the whole one (`learning.negatives`).

    Attributes:
        model: the River model as it is now. It may be read and copied; ask for it again after the next example.
        version: offset of the last record applied, plus one.
        examples: how many examples it has learned.
        frozen: the model as it was after the pipeline's first `baseline_examples` examples, or at the version
            `frozen_at` where the pipeline names one; None before that.
        frozen_version: the version since which that is the frozen copy: where it was frozen, or where a rollback to
            another one lies.
        turns: what the control records behind the version have changed, in the order of the log.
        past: what `frozen` was before, each with its `frozen_version`, where rollbacks have changed it.
        boost: the learning rate's change that is in force; None where there is none.
    """

    def __init__(self, pipeline: "Pipeline") -> None:
        self.version = 0
        self.examples = 0
        self.frozen: Any = None
        self.frozen_version = 0
        self.turns: tuple[Turn, ...] = ()
        self.past: tuple[tuple[int, Any], ...] = ()
        self.boost: Boost | None = None
        self._names: tuple[str, ...] = tuple(pipeline.feature_set.names)
        self._width = len(self._names)
        self._schema: str = pipeline.feature_set.schema
        self._baseline: int = pipeline.baseline_examples
        self._frozen_at: int | None = pipeline.frozen_at
        self._task: str = pipeline.task
        self._share: float = pipeline.negatives
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
        turns = tuple((turn.offset, turn.to, turn.learning, turn.since) for turn in self.turns)
        boost = None if self.boost is None else (self.boost.left, self.boost.usual)
        return State(self.model, self.version, self.examples, self.frozen, self.frozen_version, turns, self.past, boost)

    @classmethod
    def restored(cls, pipeline: "Pipeline", state: State) -> "Learner":
        """The learner of this pipeline that had that state."""
        learner = cls(pipeline)
        learner.model, learner.version, learner.examples = state.model, state.version, state.examples
        learner.frozen, learner.frozen_version, learner.past = state.frozen, state.frozen_version, state.past
        learner.turns = tuple(Turn(*turn) for turn in state.turns)
        learner.boost = None if state.boost is None else Boost(*state.boost)
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
        stand_in = self._fused
        value = self._ask(self._model, vector) if stand_in is None else self._ask_fused(stand_in, vector)
        if type(value) is float and isfinite(value):  # as nearly all are
            return value if self._share >= 1.0 else corrected(value, self._share)
        if not _finite(value) and not self.examples:
            value = _NOTHING_KNOWN[self._task]
        return self._of_all(_checked(value))

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
        still = self._still_of(model)
        return self._of_all(_checked(self._ask(model, vector) if still is None else self._ask_fused(still, vector)))

    def predict_all_with(self, model: Any, vectors: Floats) -> list[Value | ModelError]:
        """The same about many vectors, to the last bit, with the error in its place where one would be raised.

        Args:
            model: as in `predict_with`.
            vectors: of shape (vectors, features).
        """
        still = self._still_of(model)
        if still is not None:
            try:
                numbers = still.predict_vectors(vectors)
            except Exception:  # noqa: BLE001  # of one of them, which will say so when it is asked about alone
                numbers = [nan]
            if all(map(isfinite, numbers)):
                if self._share >= 1.0:
                    return [number or 0.0 for number in numbers]  # as in `_ask_fused`
                return [corrected(number or 0.0, self._share) for number in numbers]
        return [self._said_or_error(model, vector) for vector in vectors.tolist()]

    def _of_all(self, value: Value) -> Value:
        """What the model says, as of a stream of which all negatives are learned."""
        return value if self._share >= 1.0 or isinstance(value, dict) else corrected(value, self._share)

    def _said_or_error(self, model: Any, vector: Sequence[float]) -> Value | ModelError:
        try:
            return self.predict_with(model, vector)
        except ModelError as error:
            return error

    def _still_of(self, model: Any) -> FusedModel | None:
        """What stands for the frozen copy; None for another model, or where nothing does."""
        if model is None or model is not self.frozen:
            return None
        if self._still[0] is not model:
            # Of a copy, since whoever has the frozen one in hand may look into it at any time.
            self._still = (model, self._stand_in(copy_of(model)))
        return self._still[1]

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
        learning is frozen an example moves the version on and nothing else. A turn that `turn_at` tells of is for
        `take_turn`, since only whoever can read the log again can make the model that it leads to.
        """
        if offset < self.version:
            return
        if isinstance(record, Control) and self.turn_at(offset, record) is not None:
            message = f"the turn at offset {offset} cannot be applied without the model that it leads to"
            raise ValueError(message)
        self.version = offset + 1
        try:
            if isinstance(record, Example):
                if self.learning and self.learns(record):
                    self._learn(record)
            elif isinstance(record, Control):
                self._turn(offset, record)
        finally:  # a record that the model cannot learn makes a version all the same
            if self._frozen_at is not None:
                self._freeze_at_version()

    def apply_all(self, offsets: Sequence[int], examples: Sequence[Example]) -> dict[int, ModelError]:
        """`apply` to each of these examples, to the last bit; the errors that it would raise, by offset.

        Args:
            offsets: where they lie in the log, ascending.
            examples: as many.
        """
        if offsets[0] >= self.version and self._learn_at_once(offsets[-1], examples):
            return {}
        errors: dict[int, ModelError] = {}
        for offset, example in zip(offsets, examples, strict=True):
            try:
                self.apply(offset, example)
            except ModelError as error:
                errors[offset] = error
        return errors

    def learns(self, example: Example) -> bool:
        """Whether the example is learned while learning is on, and is no negative that the pipeline leaves out."""
        return is_learned(example, self._share)

    def turn_at(self, offset: int, record: LogRecord) -> Turn | None:
        """The turn that the record at this offset is, where it leads to another model; None where it does not."""
        if not isinstance(record, Control) or offset < self.version:
            return None
        if record.action == "rollback" and record.to is not None and record.to <= offset:
            return Turn(offset, record.to, self.learning)
        if record.action == "relearn" and record.since is not None and record.since <= offset:
            return Turn(offset, None, self.learning, record.since)
        return None

    def take_turn(self, turn: Turn, then: "Learner") -> None:
        """Take a turn: the model becomes the one that it leads to.

        The version goes on, so that a version still names one model; and whether examples are learned stays as it is.
        A rollback brings the frozen copy of then back; a relearn leaves it, as the one to be compared with.

        Args:
            turn: what `turn_at` told of.
            then: the fold that it leads to (`learning.rollback`), to be used by nobody else.
        """
        self.model, self.examples, self.boost = then.model, then.examples, then.boost
        # The frozen copy of then is the one of now, or there was none yet; and a version names one model for ever.
        if turn.to is not None and self.frozen_version > turn.to and self._frozen_at is None:
            self._keep_frozen(self.frozen_at(turn.to), turn.offset + 1)
        self.turns = (*self.turns, turn)
        self.version = turn.offset + 1
        self._freeze_at_version()

    def _turn(self, offset: int, control: Control) -> None:
        """Follow a control record that leaves the model as it is. Raises `ModelError` for one that says nonsense."""
        if control.action == "rollback":
            message = (
                f"the rollback at offset {offset} by {control.by} goes to version {control.to}, expected one from 0 to"
                f" {offset}; write controls with `headwater rollback`, which checks that"
            )
            raise ModelError(message)
        if control.action == "relearn":
            message = (
                f"the relearn at offset {offset} by {control.by} begins at {control.since}, expected an offset from 0"
                f" to {offset}; write controls with `headwater relearn`, which checks that"
            )
            raise ModelError(message)
        if control.action == "boost":
            self._begin_boost(offset, control)
        learning = self.learning if control.action == "boost" else control.action == "thaw"
        self.turns = (*self.turns, Turn(offset, None, learning))

    def _begin_boost(self, offset: int, control: Control) -> None:
        rate = learning_rate_of(self.model)
        if rate is None or control.factor is None or control.examples is None:
            message = (
                f"the boost at offset {offset} by {control.by} has factor {control.factor} for {control.examples}"
                " examples, expected both, and a model whose last step has an optimizer with a constant learning rate"
            )
            raise ModelError(message)
        usual = rate.learning_rate if self.boost is None else self.boost.usual
        rate.learning_rate = usual * control.factor
        self.boost = Boost(control.examples, usual)

    def _go_on_with_boost(self, boost: Boost) -> None:
        self.boost = boost._replace(left=boost.left - 1) if boost.left > 1 else None
        if self.boost is None:
            learning_rate_of(self.model).learning_rate = boost.usual

    def _learn(self, example: Example) -> None:
        if example.schema != self._schema:
            message = (
                f"example {example.id!r} has feature schema {example.schema}, the pipeline has {self._schema};"
                " keep the feature definitions or start a new pipeline name"
            )
            raise ModelError(message)
        if (wrong := unfit(self._task, self._width, example)) is not None:
            message = f"example {example.id!r} is none that a worker of this pipeline writes: {wrong}"
            raise ModelError(message)
        stand_in = self._fused
        try:
            if stand_in is not None:
                stand_in.learn_vector(example.features, example.outcome)
            else:
                self._teach(example)
        except Exception as exc:
            raise ModelError(traceback.format_exc()) from exc
        self.examples += 1
        if self.boost is not None:
            self._go_on_with_boost(self.boost)
        # After a relearn it may come to so many once more, and the copy to be compared with is there.
        if self.examples == self._baseline and self.frozen is None and self._frozen_at is None:
            self._keep_frozen(copy_of(self.model), self.version)

    def _learn_at_once(self, last: int, examples: Sequence[Example]) -> bool:
        """Take examples up to this offset in one call of the model, where nothing but the model changes with them.

        Whether it was done; where it was not, everything is as before.
        """
        stand_in = self._fused
        if stand_in is None or self.boost is not None or not self.learning:
            return False
        learned = learned_of(examples, self._share)
        arrays = self._arrays_of(learned) if self._leaves_frozen(len(learned), last) else None
        if arrays is None or not stand_in.learn_vectors(*arrays):
            return False
        self.examples += len(learned)
        self.version = last + 1
        return True

    def _leaves_frozen(self, learned: int, last: int) -> bool:
        """Whether no copy is to be frozen while so many are learned, up to this offset."""
        if self.frozen is not None:
            return True
        if self._frozen_at is not None:
            return last + 1 < self._frozen_at
        return not self.examples < self._baseline <= self.examples + learned

    def _arrays_of(self, examples: Sequence[Example]) -> tuple[Floats, Floats] | None:
        """Their vectors and outcomes; None where one of them is `unfit`, or of another schema."""
        expected, width, schema = OUTCOMES[self._task], self._width, self._schema
        for one in examples:
            if type(one.outcome) is not expected or len(one.features) != width or one.schema != schema:
                return None
        vectors = matrix([one.features for one in examples], width)
        outcomes: Floats = np.array([one.outcome for one in examples], dtype=np.float64)
        # Of what is no number it is not true that it is small enough.
        if vectors is None or not all(np.abs(each).max(initial=0.0) <= LARGEST for each in (vectors, outcomes)):
            return None
        return vectors, outcomes

    def _freeze_at_version(self) -> None:
        if self._frozen_at is not None and self.frozen is None and self.version >= self._frozen_at:
            self._keep_frozen(copy_of(self.model), self.version)

    def _teach(self, example: Example) -> None:
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


OUTCOMES: dict[str, type] = {"binary": bool, "anomaly": bool, "regression": float, "multiclass": str}
"""The type of what comes, by the task."""
LARGEST = 1e120  # features are sums of at most 1e100 each; what is learned beyond it makes numbers that are none


def unfit(task: str, features: int, example: Example) -> str | None:
    """Why an example, of the right schema, cannot be of a pipeline of this task and so many features; None if it can.

    The log is a topic that others may write to, and one example of another kind would spoil a model for good.

    >>> unfit("binary", 0, Example("a", "k", 0, 0, 0.5, 0, [], "", "yes", "label"))
    "got outcome 'yes', expected a bool"
    """
    expected, outcome, vector = OUTCOMES[task], example.outcome, example.features
    if type(outcome) is not expected:
        return f"got outcome {str(outcome)[:100]!r}, expected a {expected.__name__}"
    if expected is float and not -LARGEST <= outcome <= LARGEST:  # type: ignore[operator]  # it is a float
        return f"got outcome {outcome!r}, expected a number within +-{LARGEST:g}"
    if example.kept and len(vector) != features:
        return f"got {len(vector)} features, expected {features}"
    # No number is larger than the length of the vector, which takes a fifth of the time that looking for the largest
    # does. Half, so that it does not matter how the length is rounded; what is no number is no length either.
    if not example.kept or hypot(*vector) <= LARGEST / 2:
        return None
    # One by one, since the least and the largest of numbers among which one is none are any of them.
    wrong = next((number for number in vector if not -LARGEST <= number <= LARGEST), None)
    if wrong is not None:
        return f"got feature {wrong!r}, expected a number within +-{LARGEST:g}"
    return None


_NOTHING_KNOWN: dict[str, Value] = {"binary": 0.5, "multiclass": {}, "regression": 0.0, "anomaly": 0.0}


def _finite(value: Value) -> bool:
    if type(value) is float:
        return isfinite(value)
    return all(map(isfinite, value.values() if isinstance(value, dict) else (value,)))


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
    return hasattr(last_step(model), "predict_proba_one")


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
