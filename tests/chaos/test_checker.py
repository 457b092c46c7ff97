"""The checker sees every kind of wrong: each is made once in a run that is otherwise as it must be."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from learning import snapshots
from learning.backtest import backtest
from learning.learn import Learner
from learning.records import DriftEvent, Example, LogRecord, Prediction
from learning.watch import Watch
from pipelines.flights import Arrival, Departure
from streaming.snapshots import Stored
from tests.chaos.checker import Refused, Seen, Truth, bytes_of, check, own_item, truth
from tests.chaos.history import History
from tests.chaos.items import later
from tests.folds import fold
from tests.integration.flights_run import named

PIPELINE = named("checked", baseline_examples=100)
START = datetime(2013, 1, 1, 6, tzinfo=UTC)
Change = Callable[[Seen], Seen]


def invented(number: int) -> list[Any]:
    """Departures a minute apart and arrivals two hours later, in time order."""
    items: list[tuple[datetime, Any]] = []
    for n in range(number):
        name, left, origin = f"f{n}", START + timedelta(minutes=n), ("EWR", "JFK", "LGA")[n % 3]
        delay, landed = 30.0 * math.sin(n * n), left + timedelta(hours=2)
        flight: dict[str, Any] = {"flight_id": name, "origin": origin}
        more: dict[str, Any] = {"destination": "LAX", "carrier": "AA", "departure_delay": delay, "distance": 2475.0}
        items.append((left, Departure(**flight, **more, departed_at=left)))
        items.append((landed, Arrival(**flight, arrived_at=landed, arrival_delay=delay + 5.0 * math.sin(n))))
    return [item for _, item in sorted(items, key=lambda pair: pair[0])]


@pytest.fixture(scope="module")
def well() -> tuple[Truth, Seen]:
    """What there must be of 300 flights, and a run that has it."""
    items = [own_item(PIPELINE, item) for item in invented(300)]
    expected = truth(PIPELINE, items)
    predictions: list[Prediction] = []
    log: list[tuple[int, LogRecord]] = []
    backtest(PIPELINE, items, on_prediction=predictions.append, on_record=lambda *record: log.append(record))
    watch, learner, drifts = Watch(PIPELINE), Learner(PIPELINE), list[DriftEvent]()
    for offset, record in log:
        assert isinstance(record, Example)
        drifts += watch.observe(offset, record, learner.predict_frozen(record.features))
        learner.apply(offset, record)
    seen = Seen(
        predictions=[(0, p) for p in predictions],
        log=log,
        drifts=drifts,
        monitors=watch.dump(),
        profiles=dict(expected.profiles),
        snapshots=[stored(learner, 1), stored(fold(PIPELINE, log, 150), 0)],
        saved=True,
        dead_letters=[],
    )
    return expected, seen


def stored(learner: Learner, slot: int) -> Stored:
    manifest, chunks = snapshots.dump(learner, PIPELINE, created_ms=0)
    return Stored(slot, slot, manifest, chunks)


def test_a_run_that_is_as_it_must_be_is_well(well: tuple[Truth, Seen]) -> None:
    expected, seen = well
    verdict = check(PIPELINE, expected, seen)
    assert verdict.wrong() == {}
    assert (verdict.events, verdict.labels, verdict.models) == (len(seen.predictions), len(seen.log), 2)
    assert verdict.labels > 200
    assert seen.complete(PIPELINE)


def predicted(seen: Seen, **changes: Any) -> Seen:
    """One prediction, late in the run, is another."""
    predictions = list(seen.predictions)
    predictions[-5] = (0, replace(predictions[-5][1], **changes))
    return replace(seen, predictions=predictions)


def nudged(seen: Seen) -> Seen:
    """One prediction differs in its last bit."""
    value = seen.predictions[-5][1].prediction
    assert isinstance(value, float)
    return predicted(seen, prediction=math.nextafter(value, 1.0))


def learned(seen: Seen, place: int, **changes: Any) -> Seen:
    """One record of the log is another."""
    log = list(seen.log)
    log[place] = (log[place][0], replace(log[place][1], **changes))
    return replace(seen, log=log)


def forged(seen: Seen) -> Seen:
    """The model has learned one example twice."""
    learner = fold(PIPELINE, seen.log, len(seen.log))
    example = seen.log[7][1]
    assert isinstance(example, Example)
    learner.model.learn_one(dict(zip(PIPELINE.feature_set.names, example.features, strict=True)), example.outcome)
    return replace(seen, snapshots=[stored(learner, 0)])


def with_profile(seen: Seen, value: bytes | None) -> Seen:
    """One profile is another, or gone."""
    name = next(iter(seen.profiles))
    kept = {key: data for key, data in seen.profiles.items() if key != name}
    return replace(seen, profiles=kept if value is None else {**kept, name: value})


DRIFT = DriftEvent("checked", "loss", "ADWIN", 0, 0, 0, 0.0, 1)
REFUSED = {"topic": b"t", "partition": b"0", "offset": b"1", "reason": b"invalid"}
WRONGS: dict[str, tuple[str, Change]] = {
    "an event without prediction": ("lost", lambda s: replace(s, predictions=s.predictions[:-1])),
    "an event predicted twice": ("twice", lambda s: replace(s, predictions=[*s.predictions, s.predictions[-1]])),
    "a prediction of no event": ("invented", lambda s: predicted(s, id="nobody")),
    "a label not learned": ("labels_lost", lambda s: replace(s, log=s.log[:-1])),
    "a label learned twice": ("learned_twice", lambda s: replace(s, log=[*s.log, (len(s.log), s.log[3][1])])),
    "an example of no label": ("invented", lambda s: learned(s, -1, id="nobody")),
    "an older model than before": ("decreasing", lambda s: predicted(s, version=3)),
    "a prediction in its last bit": ("unreproducible", nudged),
    "a vector of another order": (
        "unlike_backtest",
        lambda s: predicted(s, features=[*s.predictions[-5][1].features[:-1], -1.0]),
    ),
    "an example of another vector": ("unlike_prediction", lambda s: learned(s, -1, version=1)),
    "a profile that counted twice": ("profiles_unlike", lambda s: with_profile(s, b"another")),
    "a profile that is gone": ("profiles_unlike", lambda s: with_profile(s, None)),
    "a model that learned twice": ("models_unlike", forged),
    "no model of the end of the log": ("models_unlike", lambda s: replace(s, snapshots=s.snapshots[1:])),
    "quality of another log": ("monitors_unlike", lambda s: replace(s, monitors=Watch(PIPELINE).dump())),
    "no monitors": ("monitors_unlike", lambda s: replace(s, monitors=None)),
    "drift that was none": ("drifts_unlike", lambda s: replace(s, drifts=[*s.drifts, DRIFT])),
    "a record refused": ("dead_letters", lambda s: replace(s, dead_letters=[(REFUSED, None)])),
}


@pytest.mark.parametrize(("what", "change"), WRONGS.values(), ids=WRONGS)
def test_the_checker_sees(well: tuple[Truth, Seen], what: str, change: Change) -> None:
    expected, seen = well
    verdict = check(PIPELINE, expected, change(seen))
    assert what in verdict.wrong(), verdict
    assert any(case.startswith(what) for case in verdict.cases)
    assert what not in verdict.wrong(allowed=[what])


def test_a_dead_letter_that_is_missing_is_seen(well: tuple[Truth, Seen]) -> None:
    expected = replace(well[0], refused=frozenset({Refused("t", 0, 1, "invalid")}))
    assert check(PIPELINE, expected, well[1]).wrong() == {"dead_letters": 1}
    once = replace(well[1], dead_letters=[(REFUSED, None)])
    assert check(PIPELINE, expected, once).wrong() == {}
    assert check(PIPELINE, expected, replace(once, dead_letters=once.dead_letters * 2)).wrong() == {"dead_letters": 1}


def test_a_run_is_complete_when_the_log_is_watched_and_saved_to_its_end(well: tuple[Truth, Seen]) -> None:
    _, seen = well
    assert not replace(seen, snapshots=seen.snapshots[1:]).complete(PIPELINE)
    assert replace(seen, snapshots=[], saved=False).complete(PIPELINE)
    assert not replace(seen, monitors=None).complete(PIPELINE)


def test_the_bytes_of_a_model_are_those_of_what_it_has_learned(well: tuple[Truth, Seen]) -> None:
    log = well[1].log
    saved = snapshots.load(well[1].snapshots[0].manifest, well[1].snapshots[0].chunks, PIPELINE)
    assert bytes_of(saved) == bytes_of(fold(PIPELINE, log, len(log)))
    assert bytes_of(saved) != bytes_of(fold(PIPELINE, log, len(log) - 1), at=len(log))


def test_flights_of_later_years_are_others() -> None:
    items = invented(30)
    assert {later(item, 2).flight_id for item in items} & {item.flight_id for item in items} == set()
    struct = PIPELINE.events.struct
    first, again = (PIPELINE.events.time_of(own_item(PIPELINE, i)) for i in (items[0], later(items[0], 1)))
    assert again - first == 365 * 86_400_000
    assert isinstance(own_item(PIPELINE, items[0]), struct)


def test_a_history_tells_what_was_done_and_when() -> None:
    history = History(7)
    history.note("start", worker=0)
    history.note("SIGKILL", worker=0)
    history.note("start", worker=1)
    lines = str(history).splitlines()
    assert (lines[0], history.counts()) == ("seed 7", {"start": 2, "SIGKILL": 1})
    assert [line.split(" s  ")[1] for line in lines[1:]] == ["start worker=0", "SIGKILL worker=0", "start worker=1"]
