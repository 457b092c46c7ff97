"""Laws of models in the loop, for many of River's: replayed from its log, a model is the same to the last bit."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest
from river import (
    anomaly,
    dummy,
    ensemble,
    forest,
    linear_model,
    multiclass,
    naive_bayes,
    neighbors,
    optim,
    preprocessing,
    tree,
)

from features import count, field, mean, one_hot
from learning.backtest import backtest
from learning.learn import Learner
from learning.records import LogRecord, Prediction, encode
from pipelines.definition import DefinitionError, Event, Label, Pipeline

START = datetime(2024, 1, 1, tzinfo=UTC)


class Reading(Event, topic="readings", key="sensor", id="name", time="at"):
    """An event."""

    name: str
    sensor: str
    at: datetime
    x: float
    y: float
    mode: Literal["a", "b"]


class Outcome(Label, topic="outcomes", key="sensor", id="name", time="at"):
    """What came of it."""

    name: str
    sensor: str
    at: datetime


class Yes(Outcome):
    """True or False."""

    outcome: bool


class Number(Outcome):
    """A number."""

    outcome: float


class Colour(Outcome):
    """One of three."""

    outcome: str


def scaled(model: Any) -> Any:
    return preprocessing.StandardScaler() | model


MODELS: dict[str, tuple[type[Outcome], str, Callable[[], Any]]] = {
    "logistic": (Yes, "binary", lambda: scaled(linear_model.LogisticRegression())),
    "logistic-minmax": (Yes, "binary", lambda: preprocessing.MinMaxScaler() | linear_model.LogisticRegression()),
    "logistic-adam": (Yes, "binary", lambda: scaled(linear_model.LogisticRegression(optimizer=optim.Adam()))),
    "perceptron": (Yes, "binary", lambda: scaled(linear_model.Perceptron())),
    "alma": (Yes, "binary", lambda: scaled(linear_model.ALMAClassifier())),  # type: ignore[no-untyped-call]
    "passive-aggressive": (Yes, "binary", linear_model.PAClassifier),
    "bayes": (Yes, "binary", naive_bayes.GaussianNB),
    "hoeffding": (Yes, "binary", lambda: tree.HoeffdingTreeClassifier(grace_period=30)),
    "adaptive-tree": (Yes, "binary", lambda: tree.HoeffdingAdaptiveTreeClassifier(grace_period=30, seed=1)),
    "forest": (Yes, "binary", lambda: forest.ARFClassifier(n_models=3, seed=1)),
    "bagging": (Yes, "binary", lambda: ensemble.BaggingClassifier(linear_model.LogisticRegression(), 3, seed=1)),
    "neighbours": (Yes, "binary", lambda: scaled(neighbors.KNNClassifier(engine=neighbors.SWINN(seed=1)))),
    "last-label": (Yes, "binary", dummy.NoChangeClassifier),
    "softmax": (Colour, "multiclass", lambda: scaled(linear_model.SoftmaxRegression())),
    "one-vs-rest": (Colour, "multiclass", lambda: multiclass.OneVsRestClassifier(linear_model.LogisticRegression())),
    "multiclass-tree": (Colour, "multiclass", lambda: tree.HoeffdingTreeClassifier(grace_period=30)),
    "linear": (Number, "regression", lambda: scaled(linear_model.LinearRegression())),
    "tree-regressor": (Number, "regression", lambda: tree.HoeffdingTreeRegressor(grace_period=30)),
    "forest-regressor": (Number, "regression", lambda: forest.ARFRegressor(n_models=3, seed=1)),
    "half-space": (Yes, "anomaly", lambda: preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=1)),
}


def build(name: str) -> Pipeline:
    label, _, model = MODELS[name]
    return Pipeline(
        name=name,
        event=Reading,
        label=label,
        horizon=timedelta(hours=2),
        features=[field("x"), field("y"), one_hot("mode"), mean("x", "1h"), count("1h")],
        model=model,
    )


def stream(label: type[Outcome]) -> Iterator[Any]:
    chance, waiting = Random(5), list[Any]()
    for number in range(600):
        at = START + timedelta(minutes=number)
        while waiting and waiting[0].at <= at:
            yield waiting.pop(0)
        x, y = chance.gauss(0, 1), chance.gauss(0, 2)
        sensor, name = f"s{number % 3}", f"e{number}"
        mode: Literal["a", "b"] = "a" if chance.random() < 0.5 else "b"
        yield Reading(name=name, sensor=sensor, at=at, x=x, y=y, mode=mode)
        outcome = {
            Yes: x + 0.3 * y + chance.gauss(0, 0.5) > 0,
            Number: 2 * x - y + chance.gauss(0, 0.1),
            Colour: "red" if x > 0.5 else "blue" if y > 0 else "green",
        }[label]
        waiting.append(label(name=name, sensor=sensor, at=at + timedelta(minutes=20), outcome=outcome))  # type: ignore[call-arg]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("default")  # River's own
def test_a_model_replayed_from_its_log_makes_the_same_predictions(name: str) -> None:
    pipeline = build(name)
    label, task, _ = MODELS[name]
    assert pipeline.task == task
    predictions: list[Prediction] = []
    log: list[tuple[int, LogRecord]] = []
    result = backtest(
        pipeline, stream(label), on_prediction=predictions.append, on_record=lambda o, r: log.append((o, r))
    )
    assert result.dead_letters == result.model_errors == 0
    assert len(predictions) == 600
    assert len(log) > 500
    learner, ahead = Learner(pipeline), 0
    for prediction in predictions:
        while ahead < len(log) and log[ahead][0] < prediction.version:
            learner.apply(*log[ahead])
            ahead += 1
        assert learner.version == prediction.version
        assert learner.predict(prediction.features) == prediction.prediction


@pytest.mark.parametrize("name", ["logistic", "hoeffding", "forest", "softmax", "linear"])
@pytest.mark.filterwarnings("default")
def test_a_model_that_can_learn_beats_not_learning(name: str) -> None:
    pipeline = build(name)
    metrics = backtest(pipeline, stream(MODELS[name][0])).metrics
    if pipeline.task == "regression":
        assert metrics["rmse"] < 2.0  # the outcome's own deviation is about 2.2
    elif pipeline.task == "multiclass":
        assert metrics["accuracy"] > 0.6  # the most frequent class is a little over a third
    else:
        assert metrics["roc_auc"] > 0.75


UNSEEDED: dict[str, Callable[[], Any]] = {
    "forest": lambda: forest.ARFClassifier(n_models=3),
    "neighbours": neighbors.KNNClassifier,
    "inside a pipeline": lambda: scaled(ensemble.BaggingClassifier(linear_model.LogisticRegression(), 3)),
    "adaptive-tree": tree.HoeffdingAdaptiveTreeClassifier,
}


@pytest.mark.parametrize("name", UNSEEDED)
def test_a_model_that_no_two_workers_would_learn_alike_is_refused(name: str) -> None:
    """Found by the law above: nearest neighbours draw random numbers, and without a seed every worker its own."""
    with pytest.raises(DefinitionError, match=r"has no seed.*seed=1"):
        Pipeline(
            name="unseeded",
            event=Reading,
            label=Yes,
            horizon=timedelta(hours=2),
            features=[field("x")],
            model=UNSEEDED[name],
        )


def digests() -> dict[str, str]:
    """For each model, a hash of all its predictions."""
    found = {}
    for name, (label, _, _) in MODELS.items():
        digest = hashlib.sha256()
        backtest(build(name), stream(label), on_prediction=lambda p, d=digest: d.update(encode(p)))  # type: ignore[misc]
        found[name] = digest.hexdigest()
    return found


def test_a_model_is_the_same_in_every_process() -> None:
    """Python orders sets of texts differently in each process; a model that follows that order is another in each."""
    command = "import json, tests.laws.test_models as laws; print(json.dumps(laws.digests()))"
    runs = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", command],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        runs.append(json.loads(done.stdout))
    assert runs[0] == runs[1]
