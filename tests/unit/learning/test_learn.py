"""The model as a fold over the training log."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from river import anomaly, linear_model, naive_bayes, preprocessing, tree

from learning.learn import LARGEST, Learner, ModelError, unfit
from learning.records import Control, Correction, Example, LogRecord, Outcome
from pipelines.models import learning_rate_of
from tests.doubles import FixedModel, FixedProbabilities, TinyFeatures, logistic, tiny_pipeline
from tests.folds import advance, fold

X = [1.0, 2.0]


def example(
    x: float = 1.0,
    outcome: Outcome = True,
    *,
    schema: str = TinyFeatures.schema,
    features: list[float] | None = None,
) -> Example:
    return Example("a", "k", 0, 1, 0.5, 0, features or [x, 0.0], schema, outcome, "label")


def learner(task: str, model: Callable[[], Any], **overrides: Any) -> Learner:
    return Learner(tiny_pipeline(task=task, model=model, **overrides))


@pytest.mark.parametrize(
    ("task", "model", "prediction"),
    [
        ("binary", FixedProbabilities({True: 0.25, False: 0.75}), 0.25),
        ("binary", FixedProbabilities({False: 1.0}), 0.0),
        ("binary", FixedProbabilities({}), 0.5),
        ("binary", FixedProbabilities(True, raises=["proba"]), 1.0),
        ("binary", FixedProbabilities(None, raises=["proba"]), 0.0),
        ("binary", FixedModel(True), 1.0),
        ("binary", FixedModel(False), 0.0),
        ("binary", FixedModel(None), 0.0),
        ("multiclass", FixedProbabilities({"a": 0.5, "b": 0.5}), {"a": 0.5, "b": 0.5}),
        ("multiclass", FixedProbabilities("a", raises=["proba"]), {"a": 1.0}),
        ("multiclass", FixedModel("a"), {"a": 1.0}),
        ("multiclass", FixedModel(None), {}),
        ("regression", FixedModel(3), 3.0),
        ("regression", FixedModel(None), 0.0),
    ],
)
def test_prediction_has_the_form_of_its_task(task: str, model: Any, prediction: object) -> None:
    got = learner(task, lambda: model).predict(X)
    assert got == prediction
    assert type(got) is type(prediction)


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("binary", lambda: preprocessing.StandardScaler() | linear_model.Perceptron()),
        ("binary", tree.HoeffdingTreeClassifier),
        ("multiclass", naive_bayes.GaussianNB),
        ("regression", lambda: preprocessing.StandardScaler() | linear_model.LinearRegression()),
        ("regression", tree.HoeffdingTreeRegressor),
        ("anomaly", lambda: preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=1)),
    ],
)
def test_river_model_predicts_and_learns(task: str, model: Callable[[], Any]) -> None:
    outcomes: dict[str, list[Outcome]] = {"regression": [1.0, 2.0], "multiclass": ["a", "b"]}
    both = outcomes.get(task, [True, False])
    one = learner(task, model)
    for offset in range(10):
        one.predict(X)
        one.apply(offset, example(float(offset), both[offset % 2]))
    assert one.examples == 10
    one.predict(X)


def test_version_is_the_offset_after_the_last_record() -> None:
    one = learner("binary", FixedModel)
    one.apply(0, example())
    one.apply(7, Correction("a", "k", 0, 1, True, False))  # offsets have gaps: transaction markers
    assert (one.version, one.examples) == (8, 1)


def test_record_read_again_is_not_learned_again() -> None:
    one = learner("binary", FixedModel)
    for offset in (0, 1, 0, 1, 2):
        one.apply(offset, example())
    assert (one.version, one.examples) == (3, 3)


def test_model_sees_names_in_fixed_order_and_the_outcome() -> None:
    one = learner("binary", FixedModel)
    one.apply(0, example(3.0, False))
    assert [(list(x.items()), y) for x, y in one.model.learned] == [([("x", 3.0), ("seen", 0.0)], False)]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (example(schema="another"), "schema another"),
        (example(features=[1.0]), "got 1 features"),
    ],
)
def test_example_of_another_vector_is_refused_and_the_version_moves(record: Example, words: str) -> None:
    one = learner("binary", FixedModel)
    with pytest.raises(ModelError, match=words):
        one.apply(4, record)
    assert (one.version, one.examples) == (5, 0)


def test_model_that_raises_moves_the_version_and_stays() -> None:
    model = FixedModel(True, raises=["learn"])
    one = learner("binary", lambda: model)
    with pytest.raises(ModelError, match="cannot learn"):
        one.apply(0, example())
    assert (one.version, one.examples, one.model) == (1, 0, model)


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("regression", FixedModel(None, raises=["predict"])),
        ("regression", FixedModel("text")),
    ],
)
def test_prediction_that_is_none_raises_model_error(task: str, model: Any) -> None:
    with pytest.raises(ModelError):
        learner(task, lambda: model).predict(X)


@pytest.mark.parametrize(
    ("task", "model", "known"),
    [
        ("regression", FixedModel(float("nan")), 0.0),
        ("multiclass", FixedProbabilities({"a": float("inf")}), {}),
        ("binary", FixedProbabilities({True: float("nan")}), 0.5),
    ],
)
def test_no_finite_number_before_the_first_example_is_nothing_known_and_after_it_an_error(
    task: str, model: Any, known: Any
) -> None:
    """MinMaxScaler makes a model answer NaN at first; when that was an error, no event ever got to teach it."""
    one = learner(task, lambda: model)
    assert one.predict(X) == known
    outcomes: dict[str, Outcome] = {"regression": 1.0, "multiclass": "a"}
    one.apply(0, example(outcome=outcomes.get(task, True)))
    one.model = model
    with pytest.raises(ModelError, match="expected a finite number"):
        one.predict(X)


def test_frozen_copy_is_the_fold_of_the_first_examples() -> None:
    one, short = Learner(tiny_pipeline(baseline_examples=3)), Learner(tiny_pipeline(baseline_examples=99))
    for offset in range(10):
        assert (one.predict_frozen(X) is None) == (offset < 3)
        one.apply(offset, example(offset % 4, offset % 4 > 1))
        if offset < 3:
            short.apply(offset, example(offset % 4, offset % 4 > 1))
    assert one.predict_frozen(X) == short.predict(X)
    assert one.predict_frozen(X) != one.predict(X)


def test_two_folds_of_the_same_log_are_the_same_model() -> None:
    log = [example(i % 7 - 3.0, i % 7 > 3) for i in range(200)]
    folds = [Learner(tiny_pipeline()) for _ in range(2)]
    for offset, record in enumerate(log):
        for one in folds:
            one.apply(offset, record)
    assert folds[0].predict(X) == folds[1].predict(X)


def test_model_that_cannot_be_pickled_is_refused_at_once() -> None:
    model = FixedModel()
    model.answer = lambda: None
    with pytest.raises(ModelError, match="pickled"):
        learner("binary", lambda: model)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_learner_is_the_river_model_to_the_last_bit(task: str, loops: str) -> None:
    """Whoever looks at its model, and when: it is River's, and the frozen copy is River's of then."""
    last = linear_model.LogisticRegression if task == "binary" else linear_model.LinearRegression

    def make() -> Any:
        return preprocessing.StandardScaler() | last()

    def says(model: Any, vector: list[float]) -> float:
        x = dict(zip(TinyFeatures.names, vector, strict=True))
        return float(model.predict_proba_one(x)[True] if task == "binary" else model.predict_one(x) or 0.0)

    one, river = learner(task, make, baseline_examples=30), make()
    frozen: Any = None
    for offset in range(60):
        vector = [offset % 7 / 3, offset % 11 - 5.0]
        outcome: Any = offset % 3 > 1 if task == "binary" else offset % 13 / 7
        assert one.predict(vector) == says(river, vector)
        assert one.predict_frozen(vector) == (None if frozen is None else says(frozen, vector))
        one.apply(offset, example(outcome=outcome, features=vector))
        river.learn_one(dict(zip(TinyFeatures.names, vector, strict=True)), outcome)
        if offset % 4 == 1:
            assert pickle.dumps(one.model) == pickle.dumps(river)
        if offset == 29:
            frozen = copy.deepcopy(river)
    assert one.model.steps[last.__name__].weights == river.steps[last.__name__].weights
    assert repr(one.frozen.steps[last.__name__].weights) == repr(frozen.steps[last.__name__].weights)


def test_what_is_taught_to_a_learners_model_is_not_forgotten(loops: str) -> None:
    one, other = Learner(tiny_pipeline()), Learner(tiny_pipeline())
    for offset in range(20):
        record = example(offset % 5, offset % 5 > 2)
        one.apply(offset, record)
        other.model.learn_one(dict(zip(TinyFeatures.names, record.features, strict=True)), record.outcome)
    assert one.predict(X) == other.predict(X)


def test_minus_zero_is_predicted_as_zero(loops: str) -> None:
    """As `predict_one(x) or 0.0` has always made it."""
    one = learner("regression", lambda: linear_model.LinearRegression(intercept_init=-0.0))
    assert math.copysign(1.0, cast("float", one.predict([0.0, 0.0]))) == 1.0


FREEZE, THAW = Control("freeze", 0, "ann"), Control("thaw", 0, "ann")


def back_to(version: int) -> Control:
    return Control("rollback", 0, "ann", to=version)


def following(*records: LogRecord, **overrides: Any) -> Learner:
    """The fold of these records, by the book."""
    log = list(enumerate(records))
    return fold(tiny_pipeline(**overrides), log, len(log))


def examples(*numbers: float) -> list[LogRecord]:
    return [example(number, number > 1) for number in numbers]


def test_frozen_learning_moves_the_version_and_nothing_else() -> None:
    held = following(*examples(1, 2), FREEZE, *examples(3, 4))
    assert (held.version, held.examples, held.learning) == (5, 2, False)
    assert held.predict(X) == following(*examples(1, 2)).predict(X)


def test_thawed_learning_goes_on_with_what_comes_then() -> None:
    thawed = following(*examples(1, 2), FREEZE, *examples(3, 4), THAW, *examples(0, 5))
    assert (thawed.version, thawed.examples, thawed.learning) == (8, 4, True)
    assert thawed.predict(X) == following(*examples(1, 2, 0, 5)).predict(X)


def test_example_of_another_vector_is_no_error_while_nothing_is_learned() -> None:
    one = following(FREEZE)
    one.apply(1, example(schema="another"))
    assert one.version == 2


def test_rollback_is_the_model_of_then_and_the_version_goes_on() -> None:
    back = following(*examples(1, 2, 3, 4), back_to(2), *examples(0))
    assert (back.version, back.examples, back.learning) == (6, 3, True)
    assert back.predict(X) == following(*examples(1, 2, 0)).predict(X)


def test_rollback_does_not_thaw() -> None:
    """Nor does it freeze: what is to come is as bad or as good as it was before somebody went back."""
    held = following(*examples(1, 2), FREEZE, back_to(1), *examples(3))
    assert (held.examples, held.learning) == (1, False)
    thawed = following(*examples(1), FREEZE, *examples(2), THAW, back_to(3), *examples(4))
    assert (thawed.examples, thawed.learning) == (2, True)


def test_rollback_into_what_was_rolled_back_and_over_a_rollback() -> None:
    into = following(*examples(1, 2, 3), back_to(1), *examples(4), back_to(3), *examples(5))
    assert into.predict(X) == following(*examples(1, 2, 3, 5)).predict(X)
    over = following(*examples(1, 2, 3), back_to(1), *examples(4), back_to(5), *examples(5))
    assert over.predict(X) == following(*examples(1, 4, 5)).predict(X)


def test_rollback_to_the_beginning_and_to_where_it_is() -> None:
    assert following(*examples(1, 2), back_to(0)).predict(X) == following().predict(X)
    assert following(*examples(1, 2), back_to(2)).predict(X) == following(*examples(1, 2)).predict(X)


def test_rollback_before_the_frozen_copy_takes_it_too_and_it_is_made_anew() -> None:
    log = [*examples(1, 2, 3, 4), back_to(1), *examples(0, 5, 5)]
    made = following(*log, baseline_examples=3)
    assert made.predict_frozen(X) == following(*examples(1, 0, 5)).predict(X)
    first = following(*examples(1, 2, 3)).predict(X)
    copies = [made.frozen_at(offset) for offset in range(9)]
    assert [copy is None for copy in copies] == [True] * 3 + [False, False] + [True] * 2 + [False, False]
    assert [made.predict_with(copy, X) for copy in copies[3:5]] == [first, first]


def test_rollback_after_the_frozen_copy_leaves_it() -> None:
    made = following(*examples(1, 2, 3, 4), back_to(3), baseline_examples=3)
    assert (made.frozen_version, made.past) == (3, ())
    just_before = following(*examples(1, 2, 3, 4), back_to(2), baseline_examples=3)
    assert (just_before.frozen, just_before.frozen_version) == (None, 5)


@pytest.mark.parametrize(
    "log",
    [
        [*examples(1, 2, 3, 4)],
        [*examples(1), FREEZE, *examples(2, 3)],
        [*examples(1, 2), Control("rollback", 0, "ann", to=99), *examples(3)],
        [*examples(1, 2), back_to(1), *examples(3)],
        [*examples(1, 2, 3, 4), back_to(1), *examples(5)],
    ],
    ids=["examples", "freeze", "no record of the model's", "rollback to it", "rollback before it"],
)
def test_frozen_copy_at_a_version_is_the_fold_at_it(log: list[LogRecord]) -> None:
    one = Learner(tiny_pipeline(frozen_at=3, baseline_examples=1))
    records = list(enumerate(log))
    for offset, record in records:
        assert (one.predict_frozen(X) is None) == (offset < 3)
        advance(tiny_pipeline(frozen_at=3, baseline_examples=1), one, records, offset, record)
    assert one.predict_frozen(X) == fold(tiny_pipeline(), records, 3).predict(X)
    assert (one.frozen_version, one.past) == (3, ())


@pytest.mark.parametrize("to", [None, 3, 99])
def test_rollback_to_no_earlier_version_is_passed_over(to: int | None) -> None:
    one = following(*examples(1, 2))
    with pytest.raises(ModelError, match="expected one from 0 to 2"):
        one.apply(2, Control("rollback", 0, "ann", to=to))
    assert (one.version, one.examples, one.turns) == (3, 2, ())


def test_rollback_read_again_is_passed_over() -> None:
    one = following(*examples(1, 2), back_to(1))
    assert one.turn_at(2, back_to(1)) is None
    one.apply(2, back_to(1))
    assert (one.version, one.examples) == (3, 1)


def test_rollback_is_not_applied_without_the_model_of_then() -> None:
    """A caller who forgets it must not go on with another model than the other workers."""
    with pytest.raises(ValueError, match="without the model"):
        following(*examples(1, 2)).apply(2, back_to(1))


def again(since: int) -> Control:
    return Control("relearn", 0, "ann", since=since)


def boost(factor: float, n: int) -> Control:
    return Control("boost", 0, "ann", factor=factor, examples=n)


def test_relearn_is_a_new_model_that_learns_the_log_from_there() -> None:
    made = following(*examples(1, 2, 3, 4), again(2), *examples(0))
    assert (made.version, made.examples, made.learning) == (6, 3, True)
    assert made.predict(X) == following(*examples(3, 4, 0)).predict(X)
    assert following(*examples(1, 2), again(2)).predict(X) == following().predict(X)


def test_relearn_learns_nothing_that_was_rolled_back_or_frozen_out() -> None:
    made = following(*examples(1, 2, 3), back_to(2), FREEZE, *examples(4), THAW, *examples(5), again(1))
    assert made.predict(X) == following(*examples(2, 5)).predict(X)


def test_rollback_to_a_version_after_a_relearn_and_to_one_before() -> None:
    log = [*examples(1, 2, 3), again(1), *examples(4), back_to(5), *examples(5)]
    assert following(*log).predict(X) == following(*examples(2, 3, 4, 5)).predict(X)
    log = [*examples(1, 2, 3), again(1), *examples(4), back_to(3), *examples(5)]
    assert following(*log).predict(X) == following(*examples(1, 2, 3, 5)).predict(X)


def test_relearn_leaves_the_frozen_copy_that_it_is_compared_with() -> None:
    made = following(*examples(1, 2, 3, 4), again(4), *examples(0, 5, 5, 1), baseline_examples=3)
    assert made.frozen_version == 3
    assert made.predict_frozen(X) == following(*examples(1, 2, 3)).predict(X)


@pytest.mark.parametrize("since", [None, 3, 99])
def test_relearn_from_no_earlier_offset_is_passed_over(since: int | None) -> None:
    one = following(*examples(1, 2))
    with pytest.raises(ModelError, match="an offset from 0 to 2"):
        one.apply(2, Control("relearn", 0, "ann", since=since))
    assert (one.version, one.examples, one.turns) == (3, 2, ())


def test_boost_multiplies_the_learning_rate_for_so_many_examples() -> None:
    rates = []
    one = following()
    for offset, record in enumerate([*examples(1), boost(4.0, 2), *examples(2, 3, 4), boost(2.0, 9), boost(3.0, 1)]):
        one.apply(offset, record)
        rates.append(learning_rate_of(one.model).learning_rate)
    assert rates == [0.01, 0.04, 0.04, 0.01, 0.01, 0.02, 0.03]
    assert one.boost == (1, 0.01)
    slow, fast = following(*examples(1, 2)), following(*examples(1), boost(4.0, 2), *examples(2))
    assert slow.predict(X) != fast.predict(X)


def test_boost_of_a_model_without_a_learning_rate_is_passed_over() -> None:
    one = following(*examples(1), model=tree.HoeffdingTreeClassifier)
    with pytest.raises(ModelError, match="constant learning rate"):
        one.apply(1, boost(2.0, 5))
    assert (one.version, one.boost) == (2, None)


def test_boosted_model_is_river_s_own_with_that_rate() -> None:
    """What stands for the model had been read from it before its rate was changed."""
    theirs = logistic()
    for x, rate in [(1, 0.01), (2, 0.01), (0, 0.01), (2, 0.04), (3, 0.04), (0, 0.04), (1, 0.01)]:
        theirs["LogisticRegression"].optimizer.lr.learning_rate = rate
        theirs.learn_one(dict(zip(TinyFeatures.names, [float(x), 0.0], strict=True)), x > 1)
    ours = following(*examples(1, 2, 0), boost(4.0, 3), *examples(2, 3, 0, 1))
    assert ours.predict(X) == theirs.predict_proba_one(dict(zip(TinyFeatures.names, X, strict=True)))[True]
    assert ours.predict(X) != following(*examples(1, 2, 0, 2, 3, 0, 1)).predict(X)


@pytest.mark.parametrize("width", [1, 2, 30])
@pytest.mark.parametrize("worst", [LARGEST, -LARGEST, LARGEST / 2, 1e100, 0.0, -0.0, 5e-324])
def test_an_example_fits_up_to_the_largest_number_and_with_it_in_every_place(worst: float, width: int) -> None:
    assert unfit("binary", width, example(features=[worst] * width)) is None


@pytest.mark.parametrize("place", [0, 1, 29])
@pytest.mark.parametrize(
    "wrong", [math.nextafter(LARGEST, math.inf), -1.1 * LARGEST, 1e200, math.inf, -math.inf, math.nan]
)
def test_one_number_beyond_the_largest_is_found_in_any_place(wrong: float, place: int) -> None:
    features = [1.0] * 30
    features[place] = wrong
    said = unfit("binary", 30, example(features=features))
    assert said == f"got feature {wrong!r}, expected a number within +-1e+120"


class Touchy(naive_bayes.GaussianNB):
    """Raises on what is no number."""

    def predict_proba_one(self, x: Any, **kwargs: Any) -> Any:
        """Probability of each class."""
        if any(map(math.isnan, x.values())):
            message = "no number"
            raise ValueError(message)
        base: Any = super()
        return base.predict_proba_one(x, **kwargs)


@pytest.mark.parametrize("make", [logistic, Touchy])
def test_frozen_copy_says_of_many_what_it_says_of_each_with_errors_in_their_places(make: Callable[[], Any]) -> None:
    own = learner("binary", make, baseline_examples=2)
    for offset in range(4):
        own.apply(offset, example(float(offset), outcome=offset % 2 == 0))
    vectors = np.array([[0.0, 1.0], [math.nan, 1.0], [3.0, 2.0]])
    said = own.predict_all_with(own.frozen, vectors)
    assert [said[0], said[2]] == [own.predict_with(own.frozen, vectors[at].tolist()) for at in (0, 2)]
    assert isinstance(said[1], ModelError)
    assert own.predict_all_with(own.frozen, vectors[[0, 2]]) == [said[0], said[2]]
