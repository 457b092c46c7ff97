"""The Prometheus backend has every metric of the catalogue."""

from app.metrics import PrometheusMetrics, parse
from streaming.telemetry import CATALOGUE, COUNTERS, GAUGES, HISTOGRAMS


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


def test_a_forgotten_gauge_is_not_shown_until_it_is_set_again() -> None:
    """A worker that had lost its partitions went on showing their lag."""
    metrics = PrometheusMetrics()
    metrics.gauge("consumer_lag", 3, topic="departures", partition="0")
    metrics.forget("consumer_lag")
    assert not [name for name in parse(metrics.exposition().decode()) if name.startswith("consumer_lag")]
    metrics.gauge("consumer_lag", 1, topic="departures", partition="1")
    assert parse(metrics.exposition().decode())['consumer_lag{partition="1",topic="departures"}'] == 1.0
