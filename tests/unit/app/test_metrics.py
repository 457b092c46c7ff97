"""The Prometheus backend has every metric of the catalogue."""

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from app.metrics import PrometheusMetrics, Said, parse
from streaming.telemetry import CATALOGUE, COUNTERS, GAUGES, HISTOGRAMS, OF_WHO_WATCHES


def test_catalogue_is_exactly_the_declared_names() -> None:
    assert set(CATALOGUE) == {*COUNTERS, *GAUGES, *HISTOGRAMS}
    assert all(len(m.labels) == len(m.values) for m in CATALOGUE.values())


def test_exposition_round_trips_through_parse() -> None:
    metrics = PrometheusMetrics()
    metrics.gauge("consumer_lag", 3, topic="departures", partition="0")
    metrics.observe("checkpoint_seconds", 0.2)
    samples = parse(metrics.exposition().decode())
    assert samples['consumer_lag{partition="0",topic="departures"}'] == 3.0
    assert samples["checkpoint_seconds_count"] == 1.0


def test_counters_and_histograms_are_what_prometheus_own_would_be() -> None:
    registry = CollectorRegistry()
    labels = Counter("headwater_labels_total", CATALOGUE["labels_total"].help, ["outcome"], registry=registry)
    delay = CATALOGUE["label_delay_seconds"]
    seconds = Histogram("headwater_label_delay_seconds", delay.help, registry=registry, buckets=delay.buckets)
    metrics = PrometheusMetrics()
    for outcome in (*CATALOGUE["labels_total"].known, "matched", "late", "matched"):
        labels.labels(outcome).inc(0.0 if outcome not in {"matched", "late"} else 1.0)
    for outcome in ("matched", "late") * 2 + ("matched",):
        metrics.count("labels_total", outcome=outcome)
    for value in (-1.0, 0.0, 1.0, 1.5, 60.0, 1e9):
        seconds.observe(value)
        metrics.observe("label_delay_seconds", value)
    expected = {line for line in generate_latest(registry).decode().splitlines() if "_created" not in line}
    assert "headwater_label_delay_seconds_sum 1.0000000615e+09" in expected
    assert expected <= set(metrics.exposition().decode().splitlines())


def test_labels_that_the_catalogue_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got labels \('kind',\) of the metric labels_total, expected \('outcome',\)"):
        PrometheusMetrics().count("labels_total", kind="matched")
    with pytest.raises(ValueError, match=r"got labels \(\)"):
        PrometheusMetrics().count("labels_total")


def test_a_forgotten_gauge_is_not_shown_until_it_is_set_again() -> None:
    """A worker that had lost its partitions went on showing their lag."""
    metrics = PrometheusMetrics()
    metrics.gauge("consumer_lag", 3, topic="departures", partition="0")
    metrics.forget("consumer_lag")
    assert not [name for name in parse(metrics.exposition().decode()) if name.startswith("consumer_lag")]
    metrics.gauge("consumer_lag", 1, topic="departures", partition="1")
    assert parse(metrics.exposition().decode())['consumer_lag{partition="1",topic="departures"}'] == 1.0


def test_a_gauge_that_is_set_again_as_it_was_before_it_was_forgotten_is_shown() -> None:
    """Whoever finds a gauge by its labels once must not go on setting one that nobody is told of."""
    metrics = PrometheusMetrics()
    metrics.gauge("quality", 0.5, metric="accuracy")
    metrics.gauge("consumer_lag", 3, topic="departures", partition="0")
    metrics.forget("quality")
    metrics.gauge("quality", 0.25, metric="accuracy")
    metrics.gauge("consumer_lag", 4, topic="departures", partition="0")
    samples = parse(metrics.exposition().decode())
    assert samples['quality{metric="accuracy"}'] == 0.25
    assert samples['consumer_lag{partition="0",topic="departures"}'] == 4.0


def test_kinds_of_a_counter_are_there_before_the_first_of_them() -> None:
    """The first dead letter, alarm or refused snapshot made its series appear at 1, which no rate sees as a rise."""
    samples = parse(PrometheusMetrics().exposition().decode())
    for name, metric in CATALOGUE.items():
        for value in metric.known:
            assert samples[f'{name}{{{metric.labels[0]}="{value}"}}'] == 0.0
    bounded = {name for name, metric in CATALOGUE.items() if metric.known}
    assert bounded == {"labels_total", "dead_letters_total", "alarms_total", "snapshots_refused_total"}


def test_a_gauge_that_follows_something_is_what_that_is_now() -> None:
    metrics, ready = PrometheusMetrics(), [False]
    metrics.follow("ready", lambda: float(ready[0]), pipeline="flights")
    assert parse(metrics.exposition().decode())['ready{pipeline="flights"}'] == 0.0
    ready[0] = True
    assert parse(metrics.exposition().decode())['ready{pipeline="flights"}'] == 1.0


def test_what_adds_to_a_counter_or_a_histogram_adds_to_the_same_as_those_who_name_it() -> None:
    metrics = PrometheusMetrics()
    metrics.count("labels_total", outcome="late")
    late, delay = metrics.counter("labels_total", outcome="late"), metrics.histogram("label_delay_seconds")
    late()
    late()
    delay(2.0)
    metrics.observe("label_delay_seconds", 3.0)
    found = parse(metrics.exposition().decode())
    assert found['labels_total{outcome="late"}'] == 3.0
    assert (found["label_delay_seconds_count"], found["label_delay_seconds_sum"]) == (2.0, 5.0)
    with pytest.raises(ValueError, match="got labels"):
        metrics.counter("labels_total", reason="late")


def both(first: PrometheusMetrics, second: PrometheusMetrics) -> dict[str, float]:
    """What the first shows when it has heard the second, by way of bytes as between processes."""
    said = msgspec.msgpack.encode(second.said(OF_WHO_WATCHES))
    first.hear(msgspec.msgpack.decode(said, type=Said))
    return dict(parse(first.exposition().decode()))


def test_counts_of_two_processes_are_added_and_their_gauges_stand_side_by_side() -> None:
    first, second = PrometheusMetrics(), PrometheusMetrics()
    for metrics, times in ((first, 2), (second, 3)):
        metrics.count("dead_letters_total", times, reason="malformed")
        for _ in range(times):
            metrics.observe("checkpoint_seconds", 0.2)
    second.count("drift_total", signal="loss")
    first.gauge("consumer_lag", 5, topic="departures", partition="0")
    second.gauge("consumer_lag", 7, topic="flights.training-log", partition="0")
    for _ in range(2):  # what is heard again takes the place of what was heard before
        shown = both(first, second)
    assert shown['dead_letters_total{reason="malformed"}'] == 5.0
    assert shown['dead_letters_total{reason="invalid"}'] == 0.0
    assert shown["checkpoint_seconds_count"] == 5.0
    assert shown["checkpoint_seconds_sum"] == pytest.approx(1.0)
    assert (shown['checkpoint_seconds_bucket{le="0.1"}'], shown['checkpoint_seconds_bucket{le="+Inf"}']) == (0.0, 5.0)
    assert shown['drift_total{signal="loss"}'] == 1.0
    assert shown['consumer_lag{partition="0",topic="departures"}'] == 5.0
    assert shown['consumer_lag{partition="0",topic="flights.training-log"}'] == 7.0


def test_what_is_of_the_model_is_said_by_the_process_that_predicts() -> None:
    """Both learn every example, so both count it."""
    first, second = PrometheusMetrics(), PrometheusMetrics()
    for metrics, version in ((first, 9), (second, 7)):
        metrics.count("training_examples_total", version)
        metrics.gauge("model_version", version)
    shown = both(first, second)
    assert (shown["training_examples_total"], shown["model_version"]) == (9.0, 9.0)


def test_a_gauge_that_the_other_process_has_not_set_does_not_hide_this_ones() -> None:
    first, second = PrometheusMetrics(), PrometheusMetrics()
    first.gauge("snapshot_version", 40)
    assert both(first, second)["snapshot_version"] == 40.0
    second.gauge("snapshot_version", 50)
    assert both(first, second)["snapshot_version"] == 50.0


def test_what_the_other_process_says_no_more_is_gone() -> None:
    """As when another worker's is in charge now."""
    first, second = PrometheusMetrics(), PrometheusMetrics()
    second.gauge("quality", 0.5, metric="log_loss")
    assert both(first, second)['quality{metric="log_loss"}'] == 0.5
    second.forget("quality")
    assert 'quality{metric="log_loss"}' not in both(first, second)
    second.gauge("quality", 0.25, metric="log_loss")
    first.forget("quality")  # as it does when it loses its partitions
    assert both(first, second)['quality{metric="log_loss"}'] == 0.25
