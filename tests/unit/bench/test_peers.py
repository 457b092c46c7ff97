"""What all peers of the benchmark do is what Headwater does: the same predictions, however state is kept."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from random import Random
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from bench.peers.check import compare, expected
from bench.peers.floor import Cut, Topics, bytes_of
from bench.peers.page import Measured, plot, table
from bench.peers.systems import SYSTEMS, Run, System
from bench.peers.work import Bare, Meter, Work, decode_waiting, encode_waiting, values_of
from bench.peers.workloads import WORKLOADS
from learning.backtest import backtest
from learning.records import Example, Prediction, decode_log, encode
from pipelines.definition import Pipeline
from pipelines.flights import CARRIERS, Arrival, Departure
from streaming.fetching import Record

EVENTS = {"cards": 2500, "flights": 600, "cards_tree": 2500, "cards_forest": 1500}


def made_up_flights(events: int) -> list[Any]:
    """A flight every two minutes, each of which lands some hours later; reading the real ones takes seconds."""
    chance, start = Random(1), datetime(2013, 1, 1, tzinfo=UTC)
    made: list[tuple[datetime, Any]] = []
    for number in range(events):
        left, origin, name = start + timedelta(minutes=2 * number), chance.choice(["EWR", "JFK", "LGA"]), f"f{number}"
        late, lands = float(chance.randrange(-10, 60)), left + timedelta(minutes=chance.randrange(60, 300))
        departure = Departure(
            flight_id=name,
            origin=origin,
            destination="BOS",
            carrier=chance.choice(CARRIERS),
            departed_at=left,
            departure_delay=late,
            distance=float(chance.randrange(100, 3000)),
        )
        arrival = Arrival(flight_id=name, origin=origin, arrived_at=lands, arrival_delay=late + chance.gauss(0, 20))
        made += [(left, departure), (lands, arrival)]
    return [item for _, item in sorted(made, key=itemgetter(0))]


def items_of(name: str) -> list[Any]:
    """Some of the items of a workload."""
    return made_up_flights(EVENTS[name]) if name == "flights" else WORKLOADS[name].items(EVENTS[name])


def by_backtest(pipeline: Pipeline, items: list[Any]) -> list[bytes]:
    """What Headwater says."""
    said: list[Prediction] = []
    result = backtest(pipeline, items, on_prediction=said.append)
    assert result.examples > len(said) / 4, "the model must have learned, or all would agree on nothing"
    return [encode(prediction) for prediction in said]


def by_bare_loop(pipeline: Pipeline, values: list[bytes]) -> list[bytes]:
    """What the bare loops say, over a file and with aiokafka."""
    step = Bare(Work(pipeline)).step
    return [said for value in values if (said := step(value)) is not None]


def by_bytes(pipeline: Pipeline, values: list[bytes]) -> list[bytes]:
    """What a peer says that keeps profiles and waiting vectors as bytes, as Faust and Quix Streams do."""
    loop = Work(pipeline)
    profiles: dict[str, bytes] = {}
    waiting: dict[str, bytes] = {}
    said = []
    for value in values:
        is_event, key, name, item = loop.read(value)
        if is_event:
            vector, profiles[key] = loop.vector_from(item, key, profiles.get(key))
            waiting[name] = encode_waiting(vector)
            said.append(loop.predict(item, key, name, vector))
        else:
            loop.learn(item, decode_waiting(waiting.pop(name)))
    return said


@pytest.mark.parametrize("way", [by_bare_loop, by_bytes])
@pytest.mark.parametrize("name", WORKLOADS)
def test_peers_predict_as_backtest_does(name: str, way: Callable[[Pipeline, list[bytes]], list[bytes]]) -> None:
    """Else the benchmark would compare systems that do different work."""
    workload = WORKLOADS[name]
    items = items_of(name)
    values = [value for _, value in values_of(workload.pipeline, items)]
    assert way(workload.pipeline, values) == by_backtest(workload.pipeline, items)


@pytest.fixture(scope="module")
def some() -> tuple[Pipeline, list[Any], list[bytes]]:
    """A pipeline, items, and what is to be said of them."""
    pipeline, items = WORKLOADS["cards"].pipeline, WORKLOADS["cards"].items(1500)
    return pipeline, items, by_backtest(pipeline, items)


def test_same_predictions_are_taken(some: tuple[Pipeline, list[Any], list[bytes]]) -> None:
    """Also of a system that had fewer events."""
    pipeline, items, said = some
    must = expected(pipeline, items)
    compare("a peer", said, must, versions=True)
    compare("a peer", said[:100], must, versions=True)


def test_other_version_of_the_model_is_refused_of_a_peer_only(some: tuple[Pipeline, list[Any], list[bytes]]) -> None:
    """Headwater's lessons come back through its log, so its predictions come of other versions."""
    pipeline, items, said = some
    must = expected(pipeline, items)
    other = [record.replace(b'"version":0', b'"version":1') for record in said]
    compare("Headwater", other, must, versions=False)
    with pytest.raises(RuntimeError, match="a peer: its prediction number 0 "):
        compare("a peer", other, must, versions=True)


def test_other_vector_is_refused(some: tuple[Pipeline, list[Any], list[bytes]]) -> None:
    """Two events in each other's place have vectors of another past."""
    pipeline, items, said = some
    swapped = [*said[:-2], said[-1], said[-2]]
    with pytest.raises(RuntimeError, match=f"Headwater: its prediction number {len(said) - 2} "):
        compare("Headwater", swapped, expected(pipeline, items), versions=False)


def test_longer_run_begins_with_the_shorter_one() -> None:
    """All systems are held against one list, and the slow get the beginning of it."""
    cards = WORKLOADS["cards"]
    few, more = cards.items(300), cards.items(2000)
    assert more[: len(few)] == few
    assert isinstance(few[-1], cards.pipeline.events.struct)


def test_more_events_than_there_are_is_refused() -> None:
    """A run that ends sooner than it says would measure something else."""
    workload = WORKLOADS["flights"]._replace(history=lambda _: iter(made_up_flights(3)))
    with pytest.raises(ValueError, match="bench_flights has 3 events, expected 4; set EVENTS to less"):
        workload.items(4)


def of_two_rounds() -> Measured:
    """Headwater and somebody who takes twice, then four times as long, with half the CPU time."""
    first = [Run(100, 50, 80, 2.0, 1.0), Run(100, 50, 80, 2.0, 1.0)]
    second = [Run(100, 50, 80, 1.0, 2.0), Run(100, 50, 80, 1.0, 4.0)]
    return {SYSTEMS[0]: first, _other(): second}


def _other() -> System:
    return SYSTEMS[-1]._replace(label="<other>")


def test_table_compares_round_by_round() -> None:
    """Ratios of one round are of one time of the machine; a ratio of medians would be of two."""
    last = table(of_two_rounds())[-1]
    assert last == (
        "| <other> | nothing, and no Kafka | 80 | 30 (20 to 40) | 1250.00 (1250.00 to 1250.00) | 3.00 | 0.50 |"
    )


def test_plot_is_an_image_that_says_each_rate() -> None:
    """A label with a special character must not break it."""
    text = [element.text for element in ElementTree.fromstring(plot({"cards": of_two_rounds()})).iter()]
    assert [said for said in text if said and said.strip()] == ["cards", "Headwater", "80/s", "<other>", "30/s"]


def test_floor_writes_what_a_worker_writes() -> None:
    """Else it would be the floor of something else."""
    cards = WORKLOADS["cards"].pipeline
    [purchase] = WORKLOADS["cards"].items(1)
    written = bytes_of(cards, cards.events.encode(purchase))
    [said] = by_backtest_alone(cards, purchase)
    prediction = msgspec.json.decode(written.prediction, type=Prediction)
    assert prediction == msgspec.structs.replace(said, id="first")
    example = decode_log(written.example)
    assert isinstance(example, Example)
    assert (example.features, example.prediction) == (said.features, said.prediction)
    assert len(written.waiting) > len(written.remembered) > 0
    assert cards.feature_set.dump(cards.feature_set.load(said.key, written.profile)) == written.profile


def by_backtest_alone(pipeline: Pipeline, item: Any) -> list[Prediction]:
    """What Headwater says of one event."""
    said: list[Prediction] = []
    backtest(pipeline, [item], on_prediction=said.append)
    return said


def test_floor_writes_of_a_key_the_last_profile_alone() -> None:
    """As a checkpoint does: what changed twice within it is written once."""
    cards = WORKLOADS["cards"].pipeline
    [purchase] = WORKLOADS["cards"].items(1)
    topics, meter = Topics.of(cards, "app"), Meter(1)
    cut = Cut(topics, bytes_of(cards, cards.events.encode(purchase)))
    cut.take(topics.events, [Record(topics.events.topic, 0, at, 0, 0, b"card", b"", ()) for at in range(3)], meter)
    cut.take(topics.labels, [Record(topics.labels.topic, 0, 0, 0, 0, b"card", b"", ())], meter)
    outputs = cut.outputs()
    assert {tp: len(records) for tp, records in outputs.items()} == {
        topics.predictions: 3,
        topics.log: 1,
        topics.profiles: 1,
        topics.pending: 3,
    }
    assert cut.offsets == {topics.events: 3, topics.labels: 1}
    assert meter.events == 3
