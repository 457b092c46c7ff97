"""How the pipeline itself is, as its units' summaries tell: rate, lag, dead letters, who owns what, restarts.

Nothing here is statistics: each rule is a threshold, and what it raised must be over before it can raise it again.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Literal, NamedTuple

import msgspec

from learning.reports import AlarmKind, Measures, Summary

SPAN_MS = 10_000
"""Rates are counted in spans of this length."""
KEPT_MS = 600_000
"""What lies further back is forgotten."""
DEAD_SHARE = 0.05
"""From this share of dead letters on, over five minutes, there is an alarm; below a half of it, it is over."""
DEAD_LEAST = 20
WAITING_S = 60.0
"""Lag that would take this long at the present rate is an alarm while it still grows."""
WAITING_LEAST = 1_000
GROWN_MS = 180_000
"""Lag is compared with what it was this long ago."""
RESTARTS = 3
"""So many openings of the same partition within ten minutes are an alarm."""

Rule = Literal["dead_letters", "lag", "model_lag", "restarts", "coverage"]
"""What these alarms name as their signal, here and in `learning.survey`; docs/runbook.md has a heading for each."""


class Trouble(NamedTuple):
    """A rule was broken.

    Attributes:
        kind: what it is about.
        signal: the rule.
        value: what was got.
        threshold: what it went over.
        text: one sentence for people.
    """

    kind: AlarmKind
    signal: Rule
    value: float
    threshold: float
    text: str


class Health(msgspec.Struct, frozen=True):
    """How the pipeline is at one time; the names are those of `learning.reports.Report`.

    Attributes:
        events_per_second: over the last minute.
        lag: records not read yet, by topic.
        model_lag: the largest of any worker.
        dead_letters: share of the records of the last five minutes, by reason.
        units: owned partitions by worker.
        restarts: openings of units within the last ten minutes.
    """

    events_per_second: float
    lag: dict[str, int]
    model_lag: int
    dead_letters: Measures
    units: dict[str, list[int]]
    restarts: int


class _Span(msgspec.Struct, array_like=True):
    start_ms: int
    events: int = 0
    records: int = 0
    dead: dict[str, int] = {}
    lag: int = 0
    model_lag: int = 0


class _Unit(msgspec.Struct, array_like=True):
    worker: str
    lag: dict[str, int]
    model_lag: int


_start = attrgetter("start_ms")


class Pulse(msgspec.Struct):
    """What is remembered of the last ten minutes, by the units' own clocks; plain data.

    Attributes:
        wall_ms: the latest of them.
        spans: counts, oldest first.
        units: the last word of each partition.
        openings: when a unit was opened, and which.
        standing: rules that are broken and not over yet.
    """

    wall_ms: int = 0
    spans: list[_Span] = []
    units: dict[int, _Unit] = {}
    openings: list[tuple[int, int]] = []
    standing: list[str] = []

    def take(self, summary: Summary) -> list[Trouble]:
        """One summary; the rules that are newly broken."""
        self.wall_ms = max(self.wall_ms, summary.wall_ms)
        self.units[summary.partition] = _Unit(summary.worker, dict(summary.lag), summary.model_lag)
        if summary.opened:
            self.openings.append((summary.wall_ms, summary.partition))
        self._count(summary)
        self._forget()
        return [trouble for trouble in self._troubles(summary) if trouble is not None]

    def health(self, wall_ms: int) -> Health:
        """How the pipeline is at a time that is not before the last summary's."""
        now = max(wall_ms, self.wall_ms)
        lag: dict[str, int] = {}
        owned: dict[str, list[int]] = {}
        for partition, unit in sorted(self.units.items()):
            owned.setdefault(unit.worker, []).append(partition)
            for topic, records in unit.lag.items():
                lag[topic] = lag.get(topic, 0) + records
        records, dead = self._dead_letters(now)
        return Health(
            events_per_second=self._rate(now),
            lag=lag,
            model_lag=max((unit.model_lag for unit in self.units.values()), default=0),
            dead_letters={reason: n / records for reason, n in sorted(dead.items())} if records else {},
            units=owned,
            restarts=sum(at > now - KEPT_MS for at, _ in self.openings),
        )

    def _count(self, summary: Summary) -> None:
        span = self._span(summary.wall_ms // SPAN_MS * SPAN_MS)
        dead = sum(summary.dead_letters.values())
        span.events += summary.events
        span.records += summary.events + summary.duplicates + sum(summary.labels.values()) + dead
        for reason, n in summary.dead_letters.items():
            span.dead[reason] = span.dead.get(reason, 0) + n
        span.lag = sum(sum(unit.lag.values()) for unit in self.units.values())
        span.model_lag = max(unit.model_lag for unit in self.units.values())

    def _span(self, start_ms: int) -> _Span:
        at = bisect_left(self.spans, start_ms, key=_start)
        if at == len(self.spans) or self.spans[at].start_ms != start_ms:
            self.spans.insert(at, _Span(start_ms))
        return self.spans[at]

    def _since(self, time_ms: int) -> list[_Span]:
        """The spans that begin after this."""
        return self.spans[bisect_right(self.spans, time_ms, key=_start) :]

    def _forget(self) -> None:
        since = self.wall_ms - KEPT_MS
        if self.spans[0].start_ms <= since:
            self.spans = self._since(since)
        self.openings = [opening for opening in self.openings if opening[0] > since]

    def _rate(self, now: int) -> float:
        recent = self._since(now - 60_000 - SPAN_MS)
        if not recent:
            return 0.0
        seconds = max(min(now - recent[0].start_ms, 60_000 + SPAN_MS), SPAN_MS) / 1000.0
        return sum(span.events for span in recent) / seconds

    def _dead_letters(self, now: int) -> tuple[int, dict[str, int]]:
        recent = self._since(now - 300_000)
        dead: dict[str, int] = {}
        for span in recent:
            for reason, n in span.dead.items():
                dead[reason] = dead.get(reason, 0) + n
        return sum(span.records for span in recent), dead

    def _troubles(self, summary: Summary) -> Iterator[Trouble | None]:
        yield self._dead_trouble()
        yield self._lag_trouble("lag")
        yield self._lag_trouble("model_lag")
        if summary.opened:
            yield self._restart_trouble(summary.partition)
        elif not any(partition == summary.partition for _, partition in self.openings):
            self._over(f"restarts:{summary.partition}")

    def _dead_trouble(self) -> Trouble | None:
        if not any(span.dead for span in self.spans):  # as a rule
            self._over("dead_letters")
            return None
        records, dead = self._dead_letters(self.wall_ms)
        total = sum(dead.values())
        share = total / records if records else 0.0
        if share < DEAD_SHARE / 2.0:
            self._over("dead_letters")
            return None
        if total < DEAD_LEAST or share < DEAD_SHARE or not self._newly("dead_letters"):
            return None
        reason = min(dead, key=lambda name: (-dead[name], name))
        text = f"{share:.1%} of {records} records of the last five minutes cannot be used, most as {reason}"
        return Trouble("data", "dead_letters", share, DEAD_SHARE, text)

    def _lag_trouble(self, signal: Literal["lag", "model_lag"]) -> Trouble | None:
        lag_of = attrgetter(signal)
        waiting = lag_of(self.spans[-1])
        if waiting < WAITING_LEAST / 2.0:  # whatever the rate
            self._over(signal)
            return None
        limit = max(WAITING_S * self._rate(self.wall_ms), WAITING_LEAST)
        if waiting < limit / 2.0:
            self._over(signal)
            return None
        at = bisect_right(self.spans, self.wall_ms - GROWN_MS, key=_start) - 1
        before = lag_of(self.spans[at]) if at >= 0 else 0
        if waiting < limit or at < 0 or waiting < 1.2 * before or not self._newly(signal):
            return None
        what = "records wait to be read" if signal == "lag" else "examples wait to be learned by the slowest worker"
        text = f"{waiting} {what}, three minutes ago {before}; at the present rate more than a minute's"
        return Trouble("pipeline", signal, float(waiting), limit, text)

    def _restart_trouble(self, partition: int) -> Trouble | None:
        times = sum(number == partition for _, number in self.openings)
        if times < RESTARTS or not self._newly(f"restarts:{partition}"):
            return None
        text = f"partition {partition} was opened {times} times within ten minutes"
        return Trouble("pipeline", "restarts", float(times), float(RESTARTS), text)

    def _newly(self, rule: str) -> bool:
        if rule in self.standing:
            return False
        self.standing.append(rule)
        return True

    def _over(self, rule: str) -> None:
        if rule in self.standing:
            self.standing.remove(rule)
