"""Backtests reach what others published for the same data and models, to the printed digits.

Phishing and Elec2: River's own benchmark page. Flights: what keeping on learning is worth.
"""

import pytest

from learning.backtest import BacktestResult, backtest
from learning.records import Example, LogRecord
from pipelines.data import data_file
from pipelines.definition import DefinitionError
from pipelines.loading import load_pipeline


def run(name: str, freeze_at: int | None = None) -> BacktestResult:
    """The backtest over a pipeline's whole data set, with nothing lost on the way."""
    pipeline = load_pipeline(name)
    assert pipeline.source is not None
    result = backtest(pipeline, pipeline.source(), freeze_at=freeze_at)
    assert result.events == result.predictions
    assert result.labels == result.matched == result.examples
    assert result.dead_letters == result.model_errors == result.late_events == 0
    return result


@pytest.fixture
def elec2_file() -> None:
    """Skips where the file is missing."""
    try:
        data_file("elec2.csv.gz")
    except DefinitionError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "accuracy", "f1"),
    [("phishing", 0.8872, 0.871233), ("pipelines.phishing:phishing_alma", 0.8256, 0.810764)],
)
def test_phishing_reaches_the_published_digits(name: str, accuracy: float, f1: float) -> None:
    result = run(name)
    assert result.events == 1_250
    assert (round(result.metrics["accuracy"], 6), round(result.metrics["f1"], 6)) == (accuracy, f1)


@pytest.mark.data
@pytest.mark.usefixtures("elec2_file")
@pytest.mark.parametrize(
    ("name", "accuracy", "f1"),
    [("elec2", 0.822144, 0.777086), ("pipelines.elec2:elec2_alma", 0.906427, 0.889767)],
)
def test_elec2_reaches_the_published_digits(name: str, accuracy: float, f1: float) -> None:
    result = run(name)
    assert result.events == 45_312
    assert (round(result.metrics["accuracy"], 6), round(result.metrics["f1"], 6)) == (accuracy, f1)


@pytest.mark.data
@pytest.mark.usefixtures("elec2_file")
def test_elec2_last_label_reaches_the_published_digits() -> None:
    pipeline = load_pipeline("pipelines.elec2:elec2_last_label")
    hits: list[bool] = []
    positives: list[int] = []

    def keep(_: int, record: LogRecord) -> None:
        assert isinstance(record, Example)
        assert isinstance(record.prediction, float)
        said = record.prediction >= pipeline.threshold
        hits.append(said == record.outcome)
        positives.append(said + bool(record.outcome))

    assert pipeline.source is not None
    backtest(pipeline, pipeline.source(), on_record=keep)
    # The published numbers leave out the first row, for which there is no last label to repeat.
    right, both = sum(hits[1:]), sum(hit and n == 2 for hit, n in zip(hits[1:], positives[1:], strict=True))
    assert round(right / len(hits[1:]), 6) == 0.853303
    assert round(2 * both / sum(positives[1:]), 6) == 0.827229


FEBRUARY = 1_359_676_800_000  # 2013-02-01T00:00:00Z


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("loops", ["compiled"], indirect=True)  # to the last bit as in Python, in half the time
def test_flights_are_predicted_better_by_a_model_that_keeps_learning() -> None:
    pipeline = load_pipeline("flights")
    assert pipeline.source is not None
    result = backtest(pipeline, pipeline.source(), freeze_at=FEBRUARY)
    assert (result.events, result.predictions, result.labels) == (328_521, 328_521, 327_346)
    assert (result.matched, result.expired, result.waiting) == (327_346, 1_173, 2)
    assert result.dead_letters == result.model_errors == result.late_events == 0
    assert result.metrics["roc_auc"] >= 0.895
    assert result.metrics["log_loss"] < 0.6 * result.baselines["base_rate"]["log_loss"]
    assert result.frozen is not None
    assert result.metrics["since_frozen_roc_auc"] >= result.frozen["since_frozen_roc_auc"] + 0.015
    assert result.metrics["since_frozen_log_loss"] < result.frozen["since_frozen_log_loss"]
