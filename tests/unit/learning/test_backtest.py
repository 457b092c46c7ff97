"""A pipeline over its own history, without Kafka."""

import random
from typing import Any

import pytest

from learning.backtest import BacktestResult, backtest
from learning.baselines import BASELINES
from learning.quality import exact_roc_auc
from learning.records import Example, LogRecord, Prediction
from learning.watch import Watch
from tests.doubles import HOUR, FixedModel, Ping, Pong, tiny_pipeline


def history(n: int, *, turn: int | None = None, delay: int = 90_000) -> list[Any]:
    """One event a minute, labelled 90 seconds later by the sign of x; from event `turn` on by its opposite."""
    rng = random.Random(5)
    items: list[Any] = []
    for i in range(n):
        x = rng.gauss(0, 1)
        outcome = (x + rng.gauss(0, 0.5) > 0) != (turn is not None and i >= turn)
        items.append(Ping(id=str(i), at=i * 60_000, x=x))
        items.append(Pong(id=str(i), at=i * 60_000 + delay, y=outcome))
    return sorted(items, key=lambda item: item.at)


def counts(result: BacktestResult) -> dict[str, int]:
    return {
        name: value for name in result.__struct_fields__ if isinstance(value := getattr(result, name), int) and value
    }


def test_history_is_predicted_before_it_is_learned() -> None:
    log: list[Any] = []
    result = backtest(
        tiny_pipeline(),
        history(300),
        on_prediction=log.append,
        on_record=lambda offset, record: log.append((offset, record)),
    )
    expected = {"events": 300, "predictions": 300, "labels": 300, "examples": 300, "matched": 300}
    assert counts(result) == expected
    versions = [p.version for p in log if isinstance(p, Prediction)]
    assert versions == [max(i - 1, 0) for i in range(300)]  # 90 s late: the label before last has been learned
    records = [r for r in log if isinstance(r, tuple)]
    assert [offset for offset, _ in records] == list(range(300))


def test_roc_auc_is_exact_over_the_recorded_predictions() -> None:
    records: list[LogRecord] = []
    result = backtest(tiny_pipeline(), history(400), on_record=lambda _, record: records.append(record))
    examples = [r for r in records if isinstance(r, Example)]
    expected = exact_roc_auc([float(str(e.prediction)) for e in examples], [e.outcome is True for e in examples])
    assert result.metrics["roc_auc"] == expected
    assert result.metrics["roc_auc"] > 0.8


def test_frozen_copy_falls_behind_when_the_world_turns() -> None:
    result = backtest(tiny_pipeline(), history(1500, turn=500), freeze_at=500 * 60_000)
    assert result.frozen is not None
    assert result.frozen["since_frozen_roc_auc"] < 0.2
    assert result.metrics["since_frozen_roc_auc"] > 0.6
    assert set(result.frozen) == {name for name in result.metrics if name.startswith("since_frozen_")}


def test_baselines_see_the_same_examples_as_the_model_and_as_the_watch_does() -> None:
    log: list[tuple[int, LogRecord]] = []
    pipeline = tiny_pipeline()
    result = backtest(
        pipeline, history(300, turn=200), freeze_at=200 * 60_000, on_record=lambda *record: log.append(record)
    )
    watch = Watch(pipeline)
    for offset, record in log:
        assert isinstance(record, Example)
        watch.observe(offset, record, None)
    watched = watch.report()
    for name in BASELINES:
        assert set(result.baselines[name]) == set(result.metrics)
        for measure in ("log_loss", "brier", "accuracy"):
            assert result.baselines[name][measure] == pytest.approx(watched[f"{name}_{measure}"])
    assert sum(n for n, _, _ in result.calibration) == 300


def test_no_frozen_copy_without_freeze_at() -> None:
    assert backtest(tiny_pipeline(), history(10)).frozen is None


def test_every_fate_is_counted() -> None:
    items = [
        Pong(id="early", at=0),
        Ping(id="early", at=1),
        Pong(id="nobody", at=2),
        Ping(id="once", at=3),
        Ping(id="once", at=4),
        Pong(id="once", at=5),
        Pong(id="once", at=6),
        Pong(id="once", at=7, y=False),
        Ping(id="bad", at=8, x=666.0),
        Pong(id="once", at=9, y="maybe"),
        Ping(id="forgotten", at=10),
        Ping(id="open", at=2 * HOUR),
        Ping(at=2 * HOUR),
        Pong(id="forgotten", at=2 * HOUR),
    ]
    assert counts(backtest(tiny_pipeline(), items)) == {
        "events": 7,
        "predictions": 5,
        "duplicate_events": 1,
        "labels": 7,
        "examples": 2,
        "matched": 2,
        "early": 2,
        "duplicate": 1,
        "corrected": 1,
        "late": 1,
        "expired": 1,
        "orphan": 1,
        "waiting": 2,
        "dead_letters": 2,
    }


def test_expiry_is_learned_as_a_negative_where_the_pipeline_says_so() -> None:
    items = [Ping(id="a", at=0), Ping(id="b", at=2 * HOUR)]
    result = backtest(tiny_pipeline(expired="negative"), items)
    assert (result.expired, result.examples) == (1, 1)


def test_corrections_are_learned_but_not_scored_again() -> None:
    items = [Ping(id="a", at=0), Pong(id="a", at=1), Pong(id="a", at=2, y=False)]
    result = backtest(tiny_pipeline(corrected="learn"), items)
    assert (result.corrected, result.examples) == (1, 2)
    assert result.metrics["accuracy"] == 1.0


def test_model_errors_are_counted_and_the_run_goes_on() -> None:
    pipeline = tiny_pipeline(model=lambda: FixedModel(True, raises=["learn"]))
    result = backtest(pipeline, history(5))
    assert (result.model_errors, result.examples, result.predictions) == (5, 0, 5)


def test_same_history_gives_the_same_result() -> None:
    assert backtest(tiny_pipeline(), history(200)) == backtest(tiny_pipeline(), history(200))


@pytest.mark.parametrize(("n", "calls"), [(0, [0]), (600, [1000, 1200])])
def test_progress_is_told_every_thousand_items_and_at_the_end(n: int, calls: list[int]) -> None:
    told: list[int] = []
    backtest(tiny_pipeline(), history(n), progress=told.append)
    assert told == calls
