"""Why a prediction is what it is: what each feature added, whether it can be made again, what the log knows of it.

For models that are linear in their features the parts add up to the score; all others are asked again with one feature
at a time replaced (occlusion). `headwater explain` reads what this works on.
"""

import math
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from river import base, compose, linear_model, multiclass, optim
from river.utils.math import sigmoid, softmax

from learning.learn import ModelError
from learning.negatives import corrected
from learning.records import Example, LogRecord, Prediction, Value

# The parts are added without rounding, the model adds with: a rounding per feature, of the size of the largest sum.
TOLERANCE = 1e-12
KEPT = 1_000  # examples that the reference vector is the mean of

Method = Literal["linear", "occlusion"]
Predict = Callable[[Sequence[float]], Value]


class Term(msgspec.Struct, frozen=True):
    """One feature's share of one output.

    Attributes:
        feature: its name.
        value: what it was.
        contribution: linear: `weight * seen`, a part of the score. Occlusion: the prediction less the one with
            `reference` in the feature's place; None where the model could not make that one.
        seen: linear: the value after the model's transformers.
        weight: linear: its weight at that version.
        reference: occlusion: the feature's mean over the last examples before that version.
    """

    feature: str
    value: float
    contribution: float | None
    seen: float | None = None
    weight: float | None = None
    reference: float | None = None


class Part(msgspec.Struct, frozen=True):
    """One output of the model and what it is made of.

    Attributes:
        output: the class, or "" where the model has one output.
        score: linear: the correctly rounded sum of intercept and contributions, which the link makes a prediction of.
        intercept: linear: what there is without any feature.
        terms: one for each feature, in the order of the vector.
    """

    output: str
    score: float | None
    intercept: float | None
    terms: list[Term]


class Explanation(msgspec.Struct, frozen=True):
    """What a prediction is made of.

    Attributes:
        method: "linear" is exact; "occlusion" is one feature at a time and adds up to nothing.
        link: what makes a prediction of the scores.
        parts: one for each output.
    """

    method: Method
    link: str
    parts: list[Part]


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not as it was when the prediction was made.

    Attributes:
        what: "schema", "feature count", "log truncated", "version beyond the log", "version not in the log",
            "model class", "model error" or "value".
        recorded: as it was.
        now: as it is.
        message: the two, and what follows.
    """

    what: str
    recorded: Any
    now: Any
    message: str


class Replayed(msgspec.Struct, frozen=True):
    """What was found when a prediction was made again.

    Attributes:
        value: the prediction made again; None where it could not be made.
        error: why not.
        names: the pipeline's features now.
        schema: hash of their definitions now.
        model: the pipeline's model now, for people.
        reached: version of the model that was rebuilt.
        passed_over: examples before it that are not in the model: not to be learned, or frozen out, or rolled back;
            None where the log's head is gone, so that nobody can tell.
        begin: first offset that the training log still has.
        end: offset after its last.
        base: version of the snapshot that the model was made from; 0 where it was made from the log alone.
        lost: why the model cannot be made at all, where the log has lost what it would be made from.
    """

    value: Value | None
    error: str
    names: tuple[str, ...]
    schema: str
    model: str
    reached: int
    passed_over: int | None
    begin: int
    end: int
    base: int = 0
    lost: str = ""


def ulps(one: float, other: float) -> int:
    """How many floating-point numbers lie from one to the other; 0 for equal ones.

    >>> ulps(0.5, 0.5), ulps(0.1 + 0.2, 0.3), ulps(-0.0, 0.0), ulps(5e-324, -5e-324)
    (0, 1, 0, 2)
    """
    return abs(_place(one) - _place(other))


def _place(number: float) -> int:
    bits: int = struct.unpack("<q", struct.pack("<d", number))[0]
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)


def explain(
    model: Any,
    predict: Predict,
    names: Sequence[str],
    vector: Sequence[float],
    reference: Sequence[float],
    *,
    negatives: float = 1.0,
) -> Explanation:
    """What the model's prediction for a vector is made of. Raises `ModelError` where it makes none.

    Args:
        model: a model that may be asked; give a copy where asking must leave no trace.
        predict: asks it.
        names: the features' names.
        vector: their values.
        reference: what stands for each feature when it is taken away.
        negatives: the share of the negatives that the model has learned, which what asks it corrects.
    """
    value = predict(vector)
    return _linear(model, names, vector, value, negatives) or _occluded(predict, names, vector, reference, value)


class _Score(NamedTuple):
    output: str
    intercept: float
    weights: Mapping[Any, float]
    seen: Mapping[Any, float]


class _Linear(NamedTuple):
    link: str
    scores: list[_Score]
    apply: Callable[[list[float]], list[float]]


def _linear(
    model: Any, names: Sequence[str], vector: Sequence[float], value: Value, negatives: float
) -> Explanation | None:
    """The exact parts; None where the model is not linear, or is one whose prediction they do not give back."""
    found = _scores(model, dict(zip(names, vector, strict=True)), frozenset(names))
    if found is None:
        return None
    if negatives < 1.0:
        found = _of_all(found, negatives)
    parts = [_part(score, names, vector) for score in found.scores]
    return Explanation("linear", found.link, parts) if _gives_back(found, parts, value, 1.0 / negatives) else None


def _of_all(found: _Linear, negatives: float) -> _Linear:
    """The same model with its answers corrected for a share of the negatives."""
    return found._replace(
        link=f"{found.link}, of the score + log({negatives:g}), since that share of the negatives is learned",
        apply=lambda scores: [corrected(made, negatives) for made in found.apply(scores)],
    )


def _part(score: _Score, names: Sequence[str], vector: Sequence[float]) -> Part:
    terms = []
    for name, number in zip(names, vector, strict=True):
        weight, seen = float(score.weights.get(name, 0.0)), float(score.seen.get(name, 0.0))
        terms.append(Term(name, number, weight * seen, seen=seen, weight=weight))
    total = math.fsum([score.intercept, *(term.contribution or 0.0 for term in terms)])
    return Part(score.output, total, score.intercept, terms)


def _gives_back(found: _Linear, parts: Sequence[Part], value: Value, steepest: float) -> bool:
    """Whether the scores make the prediction, up to rounding. A user's subclass may do more than its base.

    `steepest` is how much larger an error of the model's probability becomes by the correction, at most.
    """
    made = found.apply([part.score or 0.0 for part in parts])
    outputs = dict(zip((part.output for part in parts), made, strict=True))
    expected = value if isinstance(value, dict) else {"" if "" in outputs else "True": value}
    size = max([1.0, *(magnitude(part) for part in parts)])
    # Of what makes predictions of the scores, where it is more than 1.
    steepness = max(1.0, *map(abs, made)) if found.link == "exp" else steepest
    return expected.keys() <= outputs.keys() and all(
        abs(outputs[name] - number) <= TOLERANCE * size * steepness for name, number in expected.items()
    )


def magnitude(part: Part) -> float:
    """Sum of what the parts are without their signs: what rounding errors of their sum are measured by."""
    return math.fsum([abs(part.intercept or 0.0), *(abs(term.contribution or 0.0) for term in part.terms)])


def _scores(model: Any, x: Mapping[Any, float], names: frozenset[str]) -> _Linear | None:
    if isinstance(model, compose.Pipeline):
        *before, last = model.steps.values()
        for step in before:
            if not isinstance(step, base.Transformer):
                return None
            x = step.transform_one(dict(x))
            if not x.keys() <= names:  # it makes other features, so that none of ours has a weight of its own
                return None
        return _scores(last, x, names)
    if isinstance(model, multiclass.OneVsRestClassifier):
        return _one_vs_rest(model, x, names)
    if isinstance(model, linear_model.SoftmaxRegression):
        scores = [_Score(str(name), 0.0, weights, x) for name, weights in model.weights.items()]
        return _Linear("softmax", scores, _softmax)
    return _single(model, x)


def _single(model: Any, x: Mapping[Any, float]) -> _Linear | None:
    """Models of one score: generalised linear ones, passive-aggressive ones and ALMA."""
    if isinstance(model, linear_model.base.GLM):
        link = "logistic" if isinstance(model, base.Classifier) else "identity"
        link = "exp" if isinstance(model.loss, optim.losses.Poisson) else link
        score = _Score("", float(model.intercept), model.weights, x)
        return _Linear(link, [score], lambda scores: [float(model.loss.mean_func(scores[0]))])
    if isinstance(model, linear_model.PARegressor):
        return _Linear("identity", [_Score("", float(model.intercept), model.weights, x)], list)
    if isinstance(model, linear_model.PAClassifier):
        return _Linear("logistic", [_Score("", float(model.intercept), model.weights, x)], _sigmoid)
    if isinstance(model, linear_model.ALMAClassifier):
        return _Linear("logistic", [_Score("", 0.0, model.w, x)], _sigmoid)
    return None


def _one_vs_rest(model: Any, x: Mapping[Any, float], names: frozenset[str]) -> _Linear | None:
    """A linear model for each class, whose probabilities are divided by their sum."""
    inner = {str(name): _scores(one, x, names) for name, one in model.classifiers.items()}
    scores, links = [], []
    for name, found in inner.items():
        if found is None or len(found.scores) != 1:
            return None
        scores.append(found.scores[0]._replace(output=name))
        links.append(found.apply)

    def apply(numbers: list[float]) -> list[float]:
        each = [link([number])[0] for link, number in zip(links, numbers, strict=True)]
        total = sum(each)
        return [number / total if total else 1 / len(each) for number in each]

    return _Linear("logistic, then divided by the sum over the classes", scores, apply)


def _sigmoid(scores: list[float]) -> list[float]:
    return [float(sigmoid(score)) for score in scores]


def _softmax(scores: list[float]) -> list[float]:
    return list(softmax(dict(enumerate(scores))).values())


def _occluded(
    predict: Predict, names: Sequence[str], vector: Sequence[float], reference: Sequence[float], value: Value
) -> Explanation:
    """The prediction less the one without each feature; what two features do together counts for both or for none."""
    without = [_without(predict, vector, index, reference[index]) for index in range(len(vector))]
    parts = []
    for output, number in _outputs(value).items():
        terms = [
            Term(name, own, None if other is None else number - other.get(output, 0.0), reference=mean)
            for name, own, mean, other in zip(names, vector, reference, without, strict=True)
        ]
        parts.append(Part(output, None, None, terms))
    return Explanation("occlusion", "none: differences of predictions", parts)


def _without(predict: Predict, vector: Sequence[float], index: int, mean: float) -> dict[str, float] | None:
    try:
        return _outputs(predict([*vector[:index], mean, *vector[index + 1 :]]))
    except ModelError:
        return None


def _outputs(value: Value) -> dict[str, float]:
    return value if isinstance(value, dict) else {"": value}


def differences(recorded: Prediction, again: Replayed) -> list[Difference]:
    """Everything that is not as it was; empty where the prediction was made again to the last bit."""
    found = _of_the_vector(recorded, again)
    fits = len(recorded.features) == len(again.names)  # or else nothing could be made again, and why is said already
    value = _of_the_value(recorded.prediction, again) if fits and not again.lost else []
    return [*found, *_of_the_log(recorded.version, again, same=fits and not value), *value]


def _of_the_vector(recorded: Prediction, again: Replayed) -> list[Difference]:
    found = []
    if recorded.schema != again.schema:
        message = (
            f"the vector was made by feature schema {recorded.schema}, the pipeline now has {again.schema};"
            " take the pipeline's definition of then"
        )
        found.append(Difference("schema", recorded.schema, again.schema, message))
    if len(recorded.features) != len(again.names):
        count, now = len(recorded.features), len(again.names)
        message = f"the vector has {count} features, the pipeline now has {now}; take its definition of then"
        found.append(Difference("feature count", count, now, message))
    return found


def _of_the_log(version: int, again: Replayed, *, same: bool) -> list[Difference]:
    if version > again.end:
        message = (
            f"the prediction was made at version {version}, the training log ends at {again.end}; it is not the log"
            " that the model learned from: another topic of that name, or another broker"
        )
        return [Difference("version beyond the log", version, again.end, message)]
    if again.lost:
        return [Difference("log truncated", 0, again.begin, again.lost)]
    if again.reached != version and not same:
        message = (
            f"the prediction was made at version {version}, the training log has no record there, the one before it"
            f" makes version {again.reached}; it is not the log that the model learned from"
        )
        return [Difference("version not in the log", version, again.reached, message)]
    return []


def _of_the_value(recorded: Value, again: Replayed) -> list[Difference]:
    now = again.value
    if now is None:
        return [Difference("model error", recorded, None, f"the prediction cannot be made again: {again.error}")]
    if isinstance(recorded, dict) != isinstance(now, dict):
        message = f"the prediction has another form than those of the pipeline's model now, {again.model}"
        return [Difference("model class", _form(recorded), _form(now), message)]
    old, new = _outputs(recorded), _outputs(now)
    if old.keys() != new.keys():
        message = f"the prediction is of the classes {', '.join(old) or 'none'}, made again {', '.join(new) or 'none'}"
        return [Difference("model class", sorted(old), sorted(new), message)]
    found = []
    for output, number in old.items():
        if apart := ulps(number, new[output]):
            found.append(_of_a_number(output, number, new[output], apart, again))
    return found


def _of_a_number(output: str, recorded: float, now: float, apart: int, again: Replayed) -> Difference:
    place = f"for class {output} " if output else ""
    learned = f"; {again.passed_over} examples before it are not in the model" if again.passed_over else ""
    message = (
        f"the prediction {place}was {recorded!r} and is {now!r}, {apart} ulps apart{learned}. Where nothing else"
        f" differs, the model's class or parameters do (now {again.model}), or River's version"
    )
    return Difference("value", recorded, now, message)


def _form(value: Value) -> str:
    return "a probability for each class" if isinstance(value, dict) else "a number"


class History:
    """What the training log says around one version: feed it every record of the log, in order.

    Attributes:
        before: examples that the version has behind it, of those that the log still has.
        after: examples that came since.
        last: the last example behind it, and its offset.
    """

    def __init__(self, version: int, schema: str, kept: int = KEPT) -> None:
        self.before = 0
        self.after = 0
        self.last: tuple[int, Example] | None = None
        self._version = version
        self._schema = schema
        self._vectors: deque[list[float]] = deque(maxlen=kept)

    def see(self, offset: int, record: LogRecord) -> None:
        """The next record."""
        if not isinstance(record, Example):
            return
        if offset >= self._version:
            self.after += 1
            return
        self.before += 1
        self.last = (offset, record)
        if record.kept and record.schema == self._schema:
            self._vectors.append(record.features)

    @property
    def kept(self) -> int:
        """How many examples the reference is the mean of."""
        return len(self._vectors)

    def reference(self, width: int) -> list[float]:
        """Mean of each feature over the last examples before the version; zeros where there are none.

        >>> history = History(version=9, schema="s")
        >>> for offset, x in enumerate([1.0, 2.0, 6.0]):
        ...     history.see(offset, Example("a", "k", 0, 1, 0.5, 0, [x], "s", True, "label"))
        >>> history.reference(1)
        [3.0]
        """
        vectors = [vector for vector in self._vectors if len(vector) == width]
        return [math.fsum(column) / len(column) for column in zip(*vectors, strict=True)] if vectors else [0.0] * width
