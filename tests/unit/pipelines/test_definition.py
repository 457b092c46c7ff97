"""Definitions: what a correct one gives, and that every mistake is named with its place and its remedy."""

import enum
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, Literal, NewType, cast
from uuid import UUID

import msgspec
import pytest
from river import anomaly, base, cluster, compose, drift, dummy, linear_model, multiclass, preprocessing, tree

from features import count, field, mean
from pipelines.definition import (
    DefinitionError,
    Event,
    Label,
    Monitor,
    Pipeline,
    Reaction,
    boost,
    on_feature,
    on_loss,
    on_prediction,
    relearn,
    reset,
)
from pipelines.streams import Stream

UserId = NewType("UserId", str)


class Click(Event, topic="clicks", key="user", id="click_id", time="at"):
    """An event."""

    click_id: str
    user: str
    at: datetime
    price: float


class Sale(Label, topic="sales", key="user", id="click_id", time="at"):
    """A label."""

    click_id: str
    user: str
    at: datetime
    sold: bool

    @property
    def outcome(self) -> bool:
        """Whether it sold."""
        return self.sold


class ClassOnly(base.Classifier):
    """A classifier that says a class and no probabilities."""

    def learn_one(self, x: Any, y: Any) -> None:
        """Learn nothing."""

    def predict_one(self, x: Any, **kwargs: Any) -> bool:
        """Always the same."""
        return False


class Revenue(Label, topic="sales", key="user", id="click_id", time="at"):
    """A label with a number."""

    click_id: str
    user: str
    at: datetime
    outcome: float


class Choice(Label, topic="sales", key="user", id="click_id", time="at"):
    """A label with one of several classes."""

    click_id: str
    user: str
    at: datetime
    outcome: Literal["a", "b", "c"]


class Colour(enum.Enum):
    """Values that can be keys."""

    RED = "red"


class Size(enum.IntEnum):
    """Values that can be keys."""

    SMALL = 1


def logistic() -> Any:
    """A binary classifier."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def build(**overrides: Any) -> Pipeline:
    """A pipeline, with what the test is about in place of the usual."""
    arguments: dict[str, Any] = {
        "name": "clicks",
        "event": Click,
        "label": Sale,
        "horizon": timedelta(hours=1),
        "features": [field("price"), count("1h")],
        "model": logistic,
    }
    return Pipeline(**{**arguments, **overrides})


made: Any = type(Event)


def event(name: str = "E", annotations: dict[str, Any] | None = None, **options: Any) -> Any:
    """An event type with one thing changed."""
    said = {"topic": "e", "key": "user", "time": "at", **options}
    fields = {"user": str, "at": datetime, "price": float, **(annotations or {})}
    return made(name, (Event,), {"__annotations__": fields, "__module__": __name__}, **said)


def label(annotations: dict[str, Any] | None = None, members: dict[str, Any] | None = None, **options: Any) -> Any:
    """A label type with one thing changed."""
    said = {"topic": "l", "key": "user", "id": "name", "time": "at", **options}
    fields = {"name": str, "user": str, "at": datetime, "outcome": bool, **(annotations or {})}
    fields = {name: kind for name, kind in fields.items() if kind is not None}
    space = {"__annotations__": fields, "__module__": __name__, **(members or {})}
    return made("L", (Label,), space, **said)


def refusal(**overrides: Any) -> str:
    """The message of the refusal."""
    with pytest.raises(DefinitionError) as caught:
        build(**overrides)
    return str(caught.value)


# -- a correct definition


def test_pipeline_has_what_the_rooms_read() -> None:
    pipeline = build(name="shop.clicks-2")
    assert (pipeline.predictions_topic, pipeline.training_log_topic) == (
        "shop.clicks-2.predictions",
        "shop.clicks-2.training-log",
    )
    assert (pipeline.drift_topic, pipeline.dead_letters_topic) == ("shop.clicks-2.drift", "shop.clicks-2.dead-letters")
    assert pipeline.horizon_ms == 3_600_000
    assert (pipeline.span_ms, pipeline.frozen_at) == (86_400_000, None)
    assert pipeline.feature_set.names == ("price", "count(1h)")
    assert (pipeline.expired, pipeline.corrected, pipeline.drift, pipeline.source) == ("drop", "log", (), None)
    assert (pipeline.threshold, pipeline.window, pipeline.baseline_examples) == (0.5, 1000, 5000)
    assert (pipeline.events.topic, pipeline.events.key, pipeline.events.id) == ("clicks", "user", "click_id")
    assert (pipeline.labels.struct, pipeline.labels.time) == (Sale, "at")


def test_pipeline_is_frozen() -> None:
    pipeline = build()
    with pytest.raises(AttributeError, match=r"threshold=0\.9"):
        pipeline.threshold = 0.9
    with pytest.raises(AttributeError, match="other"):
        pipeline.events.topic = "other"
    assert (pipeline.threshold, pipeline.events.topic) == (0.5, "clicks")


def test_messages_are_frozen_and_named_only() -> None:
    click = Click(click_id="c", user="u", at=datetime(2024, 1, 1, tzinfo=UTC), price=1.0)
    with pytest.raises(AttributeError):
        click.price = 2.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        Click("c", "u", datetime(2024, 1, 1, tzinfo=UTC), 1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("model", "label_", "task"),
    [
        (logistic, Sale, "binary"),
        (tree.HoeffdingTreeClassifier, Sale, "binary"),
        (lambda: anomaly.HalfSpaceTrees(seed=1), Sale, "anomaly"),
        (lambda: preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=1), Sale, "anomaly"),
        (linear_model.LinearRegression, Revenue, "regression"),
        (lambda: multiclass.OneVsRestClassifier(linear_model.LogisticRegression()), Choice, "multiclass"),
        (
            lambda: compose.Pipeline(preprocessing.StandardScaler(), tree.HoeffdingTreeClassifier()),
            Choice,
            "multiclass",
        ),
    ],
)
def test_task_comes_from_model_and_outcome(model: Callable[[], Any], label_: type[Label], task: str) -> None:
    assert build(model=model, label=label_).task == task


def test_subclass_of_an_event_keeps_its_address_and_may_change_a_part() -> None:
    class Tap(Click, topic="taps"):
        finger: int

    stream = Stream(Tap)
    assert (stream.topic, stream.key, stream.id, stream.time) == ("taps", "user", "click_id", "at")
    assert Stream(Click).topic == "clicks"


# -- reading a message


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (str, "u1", "u1"),
        (int, -7, "-7"),
        (bool, True, "true"),
        (Colour, Colour.RED, "red"),
        (Size, Size.SMALL, "1"),
        (Literal["a", "b"], "a", "a"),
        (Annotated[str, msgspec.Meta(min_length=1)], "u", "u"),
        (UserId, UserId("u"), "u"),
        (UUID, UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_key_is_text_and_survives_the_wire(kind: Any, value: Any, text: str) -> None:
    stream = Stream(event(annotations={"user": kind}))
    message = stream.struct(user=value, at=datetime(2024, 1, 1, tzinfo=UTC), price=0.0)
    assert stream.key_of(message) == text
    assert stream.parts_of(message) == (text, None, stream.time_of(message))
    assert stream.decode(stream.encode(message)) == message
    assert stream.id_of(message) is None


@pytest.mark.parametrize("key", ["", "\x1fterminal\x1f5"])
def test_key_that_names_no_entity_is_refused(key: str) -> None:
    stream = Stream(event())
    message = stream.struct(user=key, at=datetime(2024, 1, 1, tzinfo=UTC), price=0.0)
    for read in (stream.key_of, stream.parts_of):
        with pytest.raises(ValueError, match="field user is"):
            read(message)


def test_event_may_lack_its_id() -> None:
    stream = Stream(event(annotations={"name": str | None}, id="name"))
    text = '{"user": "u", "at": "2024-01-01T00:00:00Z", "price": 1, "name": %s}'
    for written, name in (("null", None), ('"n"', "n")):
        message = stream.decode((text % written).encode())
        assert stream.id_of(message) == name
        assert stream.parts_of(message) == ("u", name, 1_704_067_200_000)


@pytest.mark.parametrize(
    ("moment", "ms"),
    [
        (datetime(2013, 1, 1, 5, 15, tzinfo=UTC), 1_357_017_300_000),
        (datetime(2013, 1, 1, 5, 15), 1_357_017_300_000),  # noqa: DTZ001  # counts as UTC
        (datetime(2013, 1, 1, 0, 15, tzinfo=timezone(timedelta(hours=-5))), 1_357_017_300_000),
        (datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC), 1_709_251_199_999),
        # As a float of seconds times 1000, whole milliseconds are lost here.
        (datetime(2004, 5, 30, 18, 0, 36, 47_000, tzinfo=UTC), 1_085_940_036_047),
        (datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), -1),
    ],
)
def test_time_is_exact_milliseconds(moment: datetime, ms: int) -> None:
    click = Click(click_id="c", user="u", at=moment, price=1.0)
    assert Stream(Click).time_of(click) == ms


def test_time_may_be_milliseconds() -> None:
    stream = Stream(event(annotations={"at": int}))
    assert stream.time_of(stream.decode(b'{"user": "u", "at": 1357017300001, "price": 1}')) == 1_357_017_300_001


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e400", b'"1"', b"null"])
def test_number_that_is_none_cannot_enter(number: bytes) -> None:
    stream = Stream(Click)
    text = b'{"click_id": "c", "user": "u", "at": "2024-01-01T00:00:00Z", "price": %s}'
    assert stream.decode(text % b"1e308").price == 1e308
    with pytest.raises(msgspec.DecodeError):
        stream.decode(text % number)


def test_unknown_field_on_the_wire_is_passed_over() -> None:
    text = b'{"click_id": "c", "user": "u", "at": "2024-01-01T00:00:00Z", "price": 1, "new": {}}'
    assert Stream(Click).decode(text).price == 1.0


# -- mistakes in messages


@pytest.mark.parametrize(
    ("options", "annotations", "words"),
    [
        ({"key": "usr"}, {}, ("E:", "key='usr'", "did you mean 'user'?")),
        ({"id": "nmae"}, {"name": str}, ("E:", "id='nmae'", "did you mean 'name'?")),
        ({"time": "zzz"}, {}, ("E:", "time='zzz'", "known are at, price, user")),
        ({"key": None}, {}, ("E:", "no key", "key='...'")),
        ({"time": None}, {}, ("E:", "no time", "time='...'")),
        ({"topic": None}, {}, ("E:", "no topic", "topic='...'")),
        ({"topic": "a b"}, {}, ("E:", "'a b'", "A-Z a-z 0-9 . _ -")),
        ({"topic": ".."}, {}, ("E:", "'..'", "rename")),
        ({"topic": "x" * 250}, {}, ("E:", "1 to 249")),
        ({}, {"user": float}, ("E.user", "float", "expected a str, an int")),
        ({}, {"user": str | None}, ("E.user", "None", "annotation")),
        ({}, {"user": str | int}, ("E.user", "str | int")),
        ({}, {"user": list[str]}, ("E.user", "list")),
        ({"id": "name"}, {"name": bytes}, ("E.name", "id of type bytes")),
        ({}, {"at": float}, ("E.at", "float", "datetime", "milliseconds")),
        ({}, {"at": str}, ("E.at", "str", "datetime")),
        ({}, {"at": bool}, ("E.at", "bool")),
        ({}, {"at": datetime | None}, ("E.at", "None")),
        ({}, {"price": "Nowhere"}, ("E:", "Nowhere", "import it")),
        ({}, {"price": complex}, ("E:", "complex", "msgspec")),
    ],
)
def test_mistake_in_an_event_is_named(options: dict[str, Any], annotations: dict[str, Any], words: list[str]) -> None:
    message = refusal(event=event(annotations=annotations, **options))
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"topik": "x"}, ("topik='x'", "did you mean 'topic'?")),
        ({"key": 7}, ("key=7", "expected a str")),
        ({"frozen": False}, ("frozen=False", "leave it out")),
        ({"kw_only": False}, ("kw_only=False", "leave it out")),
    ],
)
def test_mistake_in_a_class_statement_is_named_there(options: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(DefinitionError) as caught:
        event("Odd", **options)
    assert [word for word in ("Odd:", *words) if word not in str(caught.value)] == []


def untyped(self):  # type: ignore[no-untyped-def]
    return True


def whole(self: Any) -> int:
    return 1


def listed(self: Any) -> list[str]:
    return []


def nowhere(self: Any) -> "Nowhere":  # type: ignore[name-defined]  # noqa: F821
    return None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (label(key=None), ("L:", "no key")),
        (label(id=None), ("L:", "no id")),
        (label(time=None), ("L:", "no time")),
        (label({"name": str | None}), ("L.name", "None")),
        (label({"outcome": None}), ("L.outcome", "got nothing", "@property")),
        (label({"outcome": None}, {"outcome": lambda _self: True}), ("L.outcome", "got function", "@property")),
        (label({"outcome": None}, {"outcome": property(untyped)}), ("L.outcome", "return annotation", "-> bool")),
        (label({"outcome": None}, {"outcome": property(whole)}), ("L.outcome", "int", "return float(...)")),
        (label({"outcome": None}, {"outcome": property(listed)}), ("L.outcome", "list", "bool, float or str")),
        (label({"outcome": None}, {"outcome": property(nowhere)}), ("L.outcome", "Nowhere", "import it")),
        (label({"outcome": bool | None}), ("L.outcome", "None")),
        (label({"user": int}), ("L.user", "key of type int", "expected str", "Click.user")),
        (label({"name": int}), ("L.name", "id of type int", "expected str", "Click.click_id")),
        (label(topic="clicks"), ("'clicks'", "expected two")),
        (label(topic="clicks.predictions"), ("L:", "'clicks.predictions'", "itself writes to")),
        (Click, ("label Click", "subclass of Label")),
        ("Sale", ("'Sale'", "subclass of Label")),
    ],
)
def test_mistake_in_a_label_is_named(given: Any, words: tuple[str, ...]) -> None:
    message = refusal(label=given)
    assert [word for word in words if word not in message] == []


def test_label_as_event_is_refused() -> None:
    assert "event Sale, expected a subclass of Event" in refusal(event=Sale)


def test_events_without_id_take_labels_of_any_id_type() -> None:
    assert build(event=event(), label=label({"name": str})).events.id is None


# -- mistakes in the rest


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", ".", "x" * 201, 7, None])
def test_name_that_cannot_begin_topics_is_refused(name: Any) -> None:
    assert repr(name) in refusal(name=name)


@pytest.mark.parametrize("role", ["horizon", "span"])
@pytest.mark.parametrize("value", [timedelta(0), timedelta(hours=-1), timedelta(microseconds=999), 3600, None])
def test_duration_that_is_no_time_to_wait_is_refused(role: str, value: Any) -> None:
    assert f"got {role} {value!r}, expected a positive timedelta" in refusal(**{role: value})


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([], ("features",)),
        (field("price"), ("features", "expected a list")),
        ([field("prize")], ("features", "prize", "price")),
        ([count("1 fortnight")], ("features", "1 fortnight")),
        ([mean("price", "0h")], ("features", "0h")),
        ([count("1h"), count("1h")], ("features", "count(1h)")),
        (["price"], ("features", "'price'")),
    ],
)
def test_mistake_in_features_is_a_definition_error(features: Any, words: tuple[str, ...]) -> None:
    message = refusal(features=features)
    assert [word for word in ("pipeline clicks", *words) if word not in message] == []


ADWIN: Any = drift.ADWIN()  # type: ignore[no-untyped-call]
SHARED = linear_model.LogisticRegression()


def broken() -> Any:
    raise RuntimeError("no such option")  # noqa: EM101  # stands for a user's mistake


def with_lambda() -> Any:
    return compose.FuncTransformer(lambda x: x) | linear_model.LogisticRegression()


@pytest.mark.parametrize(
    ("model", "label_", "words"),
    [
        (linear_model.LogisticRegression(), Sale, ("LogisticRegression", "expected a callable", "lambda: ...")),
        (dict, Sale, ("a dict", "River estimator")),
        (lambda: SHARED, Sale, ("same object twice",)),
        (broken, Sale, ("no such option", "without arguments")),
        (with_lambda, Sale, ("cannot be pickled", "named functions")),
        (linear_model.LinearRegression, Sale, ("LinearRegression", "type bool", "expected a classifier")),
        (logistic, Revenue, ("LogisticRegression", "type float", "expected a regressor")),
        (anomaly.HalfSpaceTrees, Revenue, ("HalfSpaceTrees", "expected a regressor")),
        (logistic, Choice, ("LogisticRegression", "two classes only", "OneVsRestClassifier")),
        (linear_model.LinearRegression, Choice, ("LinearRegression", "type str", "several classes")),
        (anomaly.GaussianScorer, Sale, ("GaussianScorer", "unsupervised")),
        (cluster.KMeans, Sale, ("KMeans", "expected a classifier")),
        (preprocessing.StandardScaler, Sale, ("StandardScaler", "expected a classifier")),
    ],
)
def test_model_that_cannot_do_it_is_refused(model: Any, label_: type[Label], words: tuple[str, ...]) -> None:
    message = refusal(model=model, label=label_)
    assert [word for word in ("pipeline clicks", *words) if word not in message] == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"expired": "negativ"}, ("expired='negativ'", "'drop', 'negative'")),
        ({"corrected": "relearn"}, ("corrected='relearn'", "'log', 'learn'")),
        (
            {"expired": "negative", "label": Revenue, "model": linear_model.LinearRegression},
            ("expired='negative'", "float", "expired='drop'"),
        ),
        ({"threshold": 1.5}, ("threshold 1.5", "0 to 1")),
        ({"threshold": float("nan")}, ("threshold nan",)),
        ({"threshold": True}, ("threshold True",)),
        ({"threshold": "0.5"}, ("threshold '0.5'",)),
        ({"window": 0}, ("window=0", "at least 1")),
        ({"window": 10.0}, ("window=10.0",)),
        ({"baseline_examples": -1}, ("baseline_examples=-1",)),
        ({"baseline_examples": True}, ("baseline_examples=True",)),
        ({"frozen_at": 0}, ("frozen_at=0", "at least 1")),
        ({"source": []}, ("source list", "callable")),
        ({"negatives": 0}, ("negatives=0", "above 0 and at most 1", "one in ten")),
        ({"negatives": 1.5}, ("negatives=1.5",)),
        ({"negatives": float("nan")}, ("negatives=nan",)),
        ({"negatives": True}, ("negatives=True",)),
        ({"negatives": "0.1"}, ("negatives='0.1'",)),
        (
            {"negatives": 0.1, "label": Revenue, "model": linear_model.LinearRegression},
            ("negatives=0.1", "regression", "leave it out"),
        ),
        ({"negatives": 0.1, "model": lambda: anomaly.HalfSpaceTrees(seed=1)}, ("negatives=0.1", "anomaly")),
        (
            {"negatives": 0.1, "model": lambda: preprocessing.StandardScaler() | ClassOnly()},
            ("negatives=0.1", "no probabilities", "predict_proba_one"),
        ),
        ({"budget": 0}, ("budget=0", "above 0 and at most 1")),
        ({"budget": 1.5}, ("budget=1.5",)),
        ({"budget": float("nan")}, ("budget=nan",)),
        ({"budget": True}, ("budget=True",)),
        ({"budget": "1"}, ("budget='1'",)),
        ({"cycle": timedelta(0)}, ("cycle", "positive timedelta")),
        ({"cycle": 86_400}, ("cycle 86400", "timedelta")),
        ({"react": "relearn"}, ("react='relearn'", "reset(), relearn(examples) or boost(factor, examples)")),
        ({"react": relearn}, ("react=<function relearn",)),
        ({"react": Reaction(cast("Any", "freeze"))}, ("reset(), relearn(examples) or boost",)),
        ({"react": relearn(-1)}, ("-1 examples", "at least 0")),
        ({"react": relearn(True)}, ("True examples",)),
        ({"react": relearn(cast("Any", 10.0))}, ("10.0 examples",)),
        ({"react": boost(4.0, 0)}, ("0 examples", "at least 1")),
        ({"react": boost(0.0, 100)}, ("factor 0.0", "at most 1000")),
        ({"react": boost(float("nan"), 100)}, ("factor nan",)),
        ({"react": boost(1001.0, 100)}, ("factor 1001.0",)),
        ({"react": boost(True, 100)}, ("factor True",)),
        ({"react": boost(4.0, 100), "model": tree.HoeffdingTreeClassifier}, ("constant learning rate", "relearn")),
    ],
)
def test_setting_out_of_range_is_refused(overrides: dict[str, Any], words: tuple[str, ...]) -> None:
    message = refusal(**overrides)
    assert [word for word in words if word not in message] == []


def test_threshold_of_an_anomaly_score_may_be_beyond_one() -> None:
    assert build(model=lambda: anomaly.HalfSpaceTrees(seed=1), threshold=3).threshold == 3.0


# -- reactions and the budget


def test_nothing_is_done_at_an_alarm_unless_the_pipeline_says_so() -> None:
    assert build().react is None


@pytest.mark.parametrize(
    ("react", "action", "examples", "factor"),
    [(reset(), "relearn", 0, None), (relearn(500), "relearn", 500, None), (boost(4.0, 100), "boost", 100, 4.0)],
)
def test_reaction_says_what_is_done(react: Reaction, action: str, examples: int, factor: float | None) -> None:
    made = build(react=react).react
    assert made == Reaction(action, examples, factor)  # type: ignore[arg-type]


def test_any_model_can_be_reset_and_taught_again() -> None:
    for react in (reset(), relearn(10)):
        assert build(react=react, model=tree.HoeffdingTreeClassifier).react == react


def test_all_negatives_are_learned_unless_told_otherwise() -> None:
    assert build().negatives == 1.0
    assert type(build(negatives=1).negatives) is float
    assert build(label=Revenue, model=linear_model.LinearRegression, negatives=1).negatives == 1.0
    for model in (tree.HoeffdingTreeClassifier, lambda: preprocessing.StandardScaler() | linear_model.Perceptron()):
        assert build(negatives=0.1, model=model).negatives == 0.1


def test_budget_is_one_false_alarm_a_month_and_the_cycle_a_day_unless_told_otherwise() -> None:
    assert (build().budget, build().cycle_ms) == (1 / 30, 86_400_000)
    assert (build(budget=1).budget, build(cycle=timedelta(hours=1)).cycle_ms) == (1.0, 3_600_000)


# -- monitors


def test_monitors_watch_with_adwin_unless_told_otherwise() -> None:
    monitors = [on_loss(), on_prediction(), on_feature("price"), on_loss(drift.binary.DDM)]
    pipeline = build(drift=monitors)
    assert [m.signal for m in pipeline.drift] == ["loss", "prediction", "feature:price", "loss"]
    assert [type(m.detector()) for m in pipeline.drift] == [drift.ADWIN] * 3 + [drift.binary.DDM]


@pytest.mark.parametrize(
    ("monitor", "words"),
    [
        (on_feature("prise"), ("'prise'", "did you mean 'price'?")),
        (Monitor("losses", drift.ADWIN), ("'losses'", "'loss', 'prediction'")),
        (ADWIN, ("expected a monitor", "on_loss()")),
        (on_loss(ADWIN), ("ADWIN", "callable")),
        (on_loss(dict), ("dict", "river.drift")),
        (on_loss(broken), ("no such option",)),
        (on_prediction(drift.binary.DDM), ("DDM", "ADWIN")),
        (on_feature("price", drift.binary.EDDM), ("EDDM", "ADWIN")),
    ],
)
def test_monitor_that_cannot_watch_is_refused(monitor: Any, words: tuple[str, ...]) -> None:
    message = refusal(drift=[monitor])
    assert [word for word in ("pipeline clicks: drift", *words) if word not in message] == []


def test_right_or_wrong_cannot_be_watched_in_regression() -> None:
    monitors = [on_loss(drift.binary.DDM)]
    assert "DDM" in refusal(drift=monitors, label=Revenue, model=linear_model.LinearRegression)


class HomeMade(drift.ADWIN):
    """A detector that no other process could read back."""


def test_detector_of_the_users_own_is_refused() -> None:
    assert "HomeMade, expected one of river.drift" in refusal(drift=[on_loss(HomeMade)])


def test_no_change_classifier_knows_several_classes() -> None:
    assert build(model=dummy.NoChangeClassifier, label=Choice).task == "multiclass"
