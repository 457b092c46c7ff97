"""Laws of the label join, over any order of events, labels, expiries and restarts.

1. It answers as a naive dictionary does that scans everything.
2. Every event and every label is accounted for exactly once.
3. A join made anew from a copy of the entries goes on exactly as the old one.
4. Nothing is kept for ever.
5. In time order, how often expire() runs changes no example.
"""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from learning.label import LATEST, WATERMARKS, PendingLabels, Resolution
from learning.records import Correction, Example, LogRecord, Prediction

HORIZON = 10
BEFORE_ALL = -(10**9)

IDS = st.sampled_from(["a", "b", "c", "d"])
TIMES = st.integers(0, 60)
EVENT = st.tuples(st.just("event"), IDS, TIMES)
LABEL = st.tuples(st.just("label"), IDS, TIMES, st.booleans())
EXPIRE = st.tuples(st.just("expire"), st.booleans(), st.booleans(), st.integers(1, 4))
STEPS = st.lists(EVENT | LABEL | EXPIRE, max_size=60)
POLICIES = st.fixed_dictionaries(
    {"expired": st.sampled_from(["drop", "negative"]), "corrected": st.sampled_from(["log", "learn"])}
)


class Naive:
    """The join as one would write it with all the time in the world: id -> what is known, scanned in full."""

    def __init__(self, *, expired: str, corrected: str) -> None:
        self.negative = expired == "negative"
        self.learn = corrected == "learn"
        self.known: dict[str, dict[str, Any]] = {}
        self.events = self.labels = BEFORE_ALL

    def seen(self, name: str) -> bool:
        return name in self.known and self.known[name]["state"] != "parked"

    def example(self, p: Prediction, outcome: Any, at: int, source: str) -> Example:
        return Example(p.id, p.key, p.time_ms, at, p.prediction, p.version, p.features, p.schema, outcome, source)

    def resolved(self, p: Prediction, outcome: Any, at: int) -> None:
        due = max(p.time_ms, at) + HORIZON
        self.known[p.id] = {"state": "resolved", "p": p, "outcome": outcome, "due": due}

    def open(self, p: Prediction) -> Resolution | None:
        self.events = max(self.events, p.time_ms)
        parked = self.known.get(p.id)
        if parked and abs(parked["at"] - p.time_ms) <= HORIZON:
            self.resolved(p, parked["outcome"], parked["at"])
            record = self.example(p, parked["outcome"], parked["at"], "label")
            return Resolution("matched", record, p.id)
        self.known[p.id] = {"state": "waiting", "p": p, "due": p.time_ms + HORIZON}
        if parked:
            return Resolution("late" if parked["at"] > p.time_ms else "orphan", None, p.id)
        return None

    def resolve(self, name: str, outcome: Any, at: int) -> Resolution:
        self.labels = max(self.labels, at)
        now = self.known.get(name)
        record: LogRecord | None = None
        if now is None or now["state"] == "parked":
            if now and now["outcome"] == outcome:
                if at > now["due"]:
                    now |= {"at": at, "due": at + HORIZON}
                return Resolution("duplicate", None, name)
            self.known[name] = {"state": "parked", "outcome": outcome, "at": at, "due": at + HORIZON}
            return Resolution("corrected" if now else "early", None, name)
        if now["state"] == "expired" or (now["state"] == "waiting" and at > now["due"]):
            return Resolution("late", None, name)
        if now["state"] == "waiting":
            self.resolved(now["p"], outcome, at)
            return Resolution("matched", self.example(now["p"], outcome, at, "label"), name)
        if now["outcome"] == outcome:
            return Resolution("duplicate", None, name)
        p = now["p"]
        if self.learn:
            record = self.example(p, outcome, at, "correction")
        else:
            record = Correction(p.id, p.key, p.time_ms, at, outcome, now["outcome"])
        self.resolved(p, outcome, at)
        return Resolution("corrected", record, name)

    def due(self, states: set[str], clock: int, limit: int) -> list[str]:
        late = [(v["due"], k) for k, v in self.known.items() if v["state"] in states and v["due"] < clock]
        return [name for _, name in sorted(late)[:limit]]

    def expire(self, labels_caught_up: bool, events_caught_up: bool, limit: int) -> list[Resolution]:
        latest = max(self.events, self.labels)
        labels = latest if labels_caught_up else self.labels
        events = latest if events_caught_up else self.events
        out: list[Resolution] = []
        for name in self.due({"waiting"}, labels, limit):
            now = self.known[name]
            record = self.example(now["p"], False, now["due"], "expiry") if self.negative else None
            self.known[name] = {"state": "expired", "due": now["due"] + HORIZON}
            out.append(Resolution("expired", record, name))
        for name in self.due({"parked"}, events, limit - len(out)):
            del self.known[name]
            out.append(Resolution("orphan", None, name))
        for name in self.due({"resolved", "expired"}, min(labels, events), limit - len(out)):
            del self.known[name]
        return out


class Driver:
    """Runs steps against one join; counts what comes in and what is answered."""

    def __init__(self, join: PendingLabels, entries: dict[str, bytes]) -> None:
        self.join = join
        self.entries = entries
        self.counts: Counter[str] = Counter()

    def take(self, step: tuple[Any, ...], number: int) -> Any:
        answer = self._answer(step, number)
        resolutions = answer if isinstance(answer, list) else [answer]
        for resolution in resolutions:
            if isinstance(resolution, Resolution):
                self.counts[f"{step[0]}:{resolution.kind}"] += 1
        return answer

    def _answer(self, step: tuple[Any, ...], number: int) -> Any:
        match step:
            case "event", name, time_ms:
                if self.join.seen(name):
                    self.counts["event:duplicate"] += 1
                    return "duplicate"
                self.counts["event:opened"] += 1
                return self.join.open(prediction(name, time_ms, number))
            case "label", name, time_ms, outcome:
                self.counts["label"] += 1
                return self.join.resolve(name, "k", outcome, time_ms)
            case _, labels, events, limit:
                own = (self.join.label_ms, self.join.event_ms)
                labels_to, events_to = (LATEST if up else mark for up, mark in zip((labels, events), own, strict=True))
                return self.join.expire(labels_to=labels_to, events_to=events_to, limit=limit)


def prediction(name: str, time_ms: int, number: int) -> Prediction:
    return Prediction(name, "k", time_ms, number / 100, number, [float(number)], "schema")


def driver(entries: dict[str, bytes], policy: dict[str, Any]) -> Driver:
    return Driver(PendingLabels(entries, horizon_ms=HORIZON, **policy), entries)


def states(entries: dict[str, bytes]) -> Counter[str]:
    return Counter(chr(data[1]) for name, data in entries.items() if name != WATERMARKS)


@settings(max_examples=400)
@given(STEPS, POLICIES)
def test_join_answers_as_a_naive_dictionary_does(steps: list[tuple[Any, ...]], policy: dict[str, Any]) -> None:
    real, naive = driver({}, policy), Naive(**policy)
    for number, step in enumerate(steps):
        expected: Any
        match step:
            case "event", name, time_ms:
                seen = naive.seen(name)
                expected = "duplicate" if seen else naive.open(prediction(name, time_ms, number))
            case "label", name, time_ms, outcome:
                expected = naive.resolve(name, outcome, time_ms)
            case _, labels, events, limit:
                expected = naive.expire(labels, events, limit)
        assert real.take(step, number) == expected
        assert set(real.entries) - {WATERMARKS} == set(naive.known)


@settings(max_examples=400)
@given(STEPS, POLICIES)
def test_every_event_and_label_is_accounted_for_once(steps: list[tuple[Any, ...]], policy: dict[str, Any]) -> None:
    one = driver({}, policy)
    for number, step in enumerate(steps):
        one.take(step, number)
    n, now = one.counts, states(one.entries)
    on_arrival = ("matched", "early", "duplicate", "corrected", "late")
    assert n["label"] == sum(n[f"label:{kind}"] for kind in on_arrival)
    assert n["label:early"] == n["event:matched"] + n["event:late"] + n["event:orphan"] + n["expire:orphan"] + now["p"]
    assert n["event:opened"] == n["label:matched"] + n["event:matched"] + n["expire:expired"] + now["w"]


@settings(max_examples=300)
@given(STEPS, POLICIES)
def test_join_made_anew_before_every_step_goes_on_alike(steps: list[tuple[Any, ...]], policy: dict[str, Any]) -> None:
    old = driver({}, policy)
    for number, step in enumerate(steps):
        new = driver(dict(reversed(old.entries.items())), policy)  # whatever order recovery reads them in
        assert new.take(step, number) == old.take(step, number)
        assert new.entries == old.entries


@given(STEPS, POLICIES)
def test_nothing_is_kept_for_ever(steps: list[tuple[Any, ...]], policy: dict[str, Any]) -> None:
    one = driver({}, policy)
    for number, step in enumerate(steps):
        one.take(step, number)
    one.take(("label", "last", 1000, True), 0)
    for _ in range(3):
        one.take(("expire", True, True, 100), 0)
    assert set(one.entries) <= {"last", WATERMARKS}
    heaps: tuple[Any, ...] = (one.join._waiting, one.join._parked, one.join._memories)
    assert sum(map(len, heaps)) == 1


@settings(max_examples=400)
@given(st.lists(EVENT | LABEL, max_size=60), POLICIES)
def test_how_often_expire_runs_changes_no_example(steps: list[tuple[Any, ...]], policy: dict[str, Any]) -> None:
    ordered = sorted(steps, key=lambda step: step[2])
    firsts: dict[str, Any] = {}
    ordered = [s for s in ordered if s[0] == "label" or firsts.setdefault(s[1], s) is s]
    lazy, eager = driver({}, policy), driver({}, policy)
    for number, step in enumerate(ordered):
        eager.take(("expire", True, True, 100), 0)
        ours, theirs = lazy.take(step, number), eager.take(step, number)
        examples = [r.record for r in (ours, theirs) if isinstance(r, Resolution) and isinstance(r.record, Example)]
        firsts_only = [e for e in examples if e.source == "label"]
        assert not firsts_only or firsts_only == [firsts_only[0]] * 2
