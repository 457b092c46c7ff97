"""The post-mortem of an incident as far as a program can write it, in Markdown; people do the rest. Pure."""

import math
from collections.abc import Iterable, Iterator, Sequence

from app.control import Said, as_dict, summary
from app.evidence import EXAMPLES, NEAR_MS, ROWS, Evidence, Opening, Side
from app.explain import iso
from learning.quality import MEASURES
from learning.records import Control
from learning.reports import Alarm, Incident, Measures
from learning.verdict import NAMES, percent, span, when
from pipelines.definition import Pipeline


def draft(pipeline: Pipeline, incident: Incident, evidence: Evidence) -> str:
    """The post-mortem as far as programs can write it, in Markdown."""
    parts = (
        _head(pipeline, incident),
        _timeline(incident, evidence),
        _fired(incident),
        _cause(incident),
        _evidence(pipeline, evidence),
        _done(incident, evidence),
        _to_fill_in(),
    )
    return "\n".join(line for part in parts for line in (*part, "")).rstrip() + "\n"


def _head(pipeline: Pipeline, incident: Incident) -> Iterator[str]:
    yield f"# Incident {_cell(incident.id)}"
    yield ""
    yield f"Pipeline {_cell(pipeline.name)}. {_cell(pipeline.description)}".rstrip()
    yield ""
    yield "## Summary"
    yield ""
    state = "It is still open" if incident.state == "open" else f"It was closed at {iso(incident.closed_wall_ms)}"
    first = incident.alarms[0]
    yield (
        f"Since about {when(incident.since_ms)} (the stream's time) {_cell(first.signal)} is not as it was; the first"
        f" alarm came at {when(incident.opened_ms)}. {state}. Look first at: **{incident.cause}**."
    )
    yield ""
    yield "*To fill in: what users noticed, for how long, and how much it cost.*"


def _timeline(incident: Incident, evidence: Evidence) -> Iterator[str]:
    yield "## Timeline (UTC)"
    yield ""
    rows = [(alarm.wall_ms, when(alarm.time_ms), f"alarm on {alarm.signal}") for alarm in incident.alarms]
    rows += [(said.time_ms, "", _told(offset, said)) for offset, said in evidence.controls]
    rows += [(made_ms, "", f"version {version:,} of the model was saved") for version, made_ms in evidence.snapshots]
    rows += [(wall_ms, "", text) for wall_ms, text in _openings(evidence.openings)]
    rows.append((incident.opened_wall_ms, when(incident.opened_ms), "this incident was opened"))
    if incident.closed_wall_ms:
        rows.append((incident.closed_wall_ms, "", "this incident was closed"))
    near = [row for row in rows if abs(row[0] - incident.opened_wall_ms) <= NEAR_MS or row[1]]
    change = ("", when(incident.since_ms), "likely time of the change")
    sorted_rows = [(iso(wall_ms), *rest) for wall_ms, *rest in sorted(near, key=lambda row: row[0])]
    yield from _table(("by the clock", "by the stream", "what"), [change, *sorted_rows])


def _openings(openings: Iterable[Opening]) -> Iterator[tuple[int, str]]:
    """What each worker opened at about the same time, in one line."""
    groups: dict[tuple[str, int], list[Opening]] = {}
    for each in openings:
        groups.setdefault((each.worker, each.wall_ms // 10_000), []).append(each)
    for (worker, _), group in groups.items():
        partitions = ", ".join(map(str, sorted({each.partition for each in group})))
        yield min(each.wall_ms for each in group), f"{worker} opened partitions {partitions}"


def _told(offset: int, control: Control) -> str:
    return summary(as_dict(Said(offset, control)))


def _fired(incident: Incident) -> Iterator[str]:
    yield "## What fired"
    yield ""
    rows = [
        (when(alarm.time_ms), alarm.signal, alarm.detector, _reached(alarm), f"{alarm.version:,}", alarm.text)
        for alarm in incident.alarms
    ]
    yield from _table(("stream's time", "signal", "detector", "value", "version", "says"), rows)


def _reached(alarm: Alarm) -> str:
    return f"{alarm.value:.4g}, alarm from {alarm.threshold:.4g}"


def _cause(incident: Incident) -> Iterator[str]:
    yield "## Likely cause"
    yield ""
    yield f"**{incident.cause}**: {_cell(incident.why)}."
    yield ""
    yield "That is a rule's word about where to look first, not a finding; docs/incidents.md has the rules."


def _evidence(pipeline: Pipeline, evidence: Evidence) -> Iterator[str]:
    before, since = evidence.before, evidence.since
    yield "## Evidence"
    yield ""
    yield (
        f"{before.n:,} examples of the training log before the likely time of the change and {since.n:,} since, told"
        f" apart by {evidence.clock}; {EXAMPLES:,} of each at most."
    )
    yield ""
    yield "### Quality"
    yield ""
    rows = [("examples", f"{before.n:,}", f"{since.n:,}"), ("events from", *(_from(side) for side in (before, since)))]
    rows += [(NAMES.get(name, name), *values) for name, values in _measures(before.quality, since.quality, MEASURES)]
    yield from _table(("", "before", "since"), rows)
    yield ""
    yield from _groups_part(pipeline, evidence)
    yield from _inputs_part(evidence)
    yield from _labels_part(evidence)
    yield from _pipeline_part(evidence)


def _from(side: Side) -> str:
    return f"{when(side.since_ms)} to {when(side.until_ms)}" if side.n else "-"


def _measures(before: Measures, since: Measures, names: Iterable[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    for name in names:
        if name in before or name in since:
            yield name, (_number(before.get(name)), _number(since.get(name)))


def _groups_part(pipeline: Pipeline, evidence: Evidence) -> Iterator[str]:
    yield "### Worst groups"
    yield ""
    what = "mean absolute error" if pipeline.task in ("regression", "anomaly") else "mean log loss"
    yield (
        f"By how much the {what} grew beyond two standard errors. Many groups were looked at, so chance alone brings"
        " some here."
    )
    yield ""
    if not evidence.slices:
        yield "None: in no group did the loss grow beyond that, or there are too few examples."
        yield ""
        return
    rows = [
        (
            each.name,
            f"{each.n_before:,}",
            f"{each.n:,}",
            _number(each.loss_before) + ("" if each.known else " (of all)"),
            _number(each.loss),
            percent(each.share_before, 1),
            percent(each.share, 1),
        )
        for each in evidence.slices
    ]
    yield from _table(("group", "n before", "n since", "loss before", "since", "share before", "since"), rows)
    yield ""


def _inputs_part(evidence: Evidence) -> Iterator[str]:
    yield "### Inputs"
    yield ""
    if not evidence.inputs:
        yield "Not compared: no examples on one of the sides."
    else:
        yield "The features that moved most; KS is the largest difference of the two distribution functions."
        yield ""
        rows = [(m.name, _number(m.mean_before), _number(m.mean), _number(m.ks)) for m in evidence.inputs[:ROWS]]
        yield from _table(("feature", "mean before", "since", "KS"), rows)
    yield ""
    if evidence.drift:
        told = ", ".join(f"{_cell(name)} {n} times" for name, n in evidence.drift.items())
        yield f"The pipeline's own detectors fired near it: {told}."
        yield ""


def _labels_part(evidence: Evidence) -> Iterator[str]:
    before, since = evidence.before, evidence.since
    yield "### Labels"
    yield ""
    delays = ("p50", "p90", "p99")
    rows = [
        (
            f"delay, {name}",
            *(span(side.label_delay[name]) if name in side.label_delay else "-" for side in (before, since)),
        )
        for name in delays
    ]
    if before.expired or since.expired:
        rows.append(("expired without a label", percent(before.expired, 1), percent(since.expired, 1)))
    for name in sorted(before.outcomes.keys() | since.outcomes.keys()):
        shares = (percent(side.outcomes.get(name, 0.0), 1) for side in (before, since))
        rows.append((f"outcome {name}", *shares))
    yield from _table(("", "before", "since"), rows)
    yield ""


def _pipeline_part(evidence: Evidence) -> Iterator[str]:
    yield "### Pipeline"
    yield ""
    lags = [f"{_cell(topic)} {records:,}" for topic, records in evidence.lag.items()]
    waited = ", ".join(lags) or "not known"
    yield f"Most records that waited near it: {waited}; examples to learn {evidence.model_lag:,}."
    yield ""
    if any(evidence.dead_letters):
        before, since = evidence.dead_letters
        rows = [(name, f"{before.get(name, 0):,}", f"{since.get(name, 0):,}") for name in sorted({**before, **since})]
        yield from _table(("dead letters near it", "before it was opened", "since"), rows)
    else:
        yield "No dead letters near it."
    yield ""
    opened = [f"- {iso(wall_ms)}: {_cell(text)}" for wall_ms, text in _openings(evidence.openings)]
    yield from opened or ["No worker started and no partition changed hands near it."]
    if evidence.missing:
        yield ""
        yield f"Not read, since they do not exist: {', '.join(map(_cell, evidence.missing))}."


def _done(incident: Incident, evidence: Evidence) -> Iterator[str]:
    yield "## What was done"
    yield ""
    lines = [f"- {_cell(_told(offset, control))}" for offset, control in evidence.controls]
    read = [f" at offset {offset}" for offset, _ in evidence.controls]
    # The record tells of the same control records, shorter; of some, the log was not read that far.
    lines += [f"- {_cell(event)}" for event in incident.events if not any(_ends(event, place) for place in read)]
    yield from lines or ["Nothing that the training log knows of."]
    yield ""
    yield "*To fill in: what people did, when, and what came of it.*"


def _ends(event: str, place: str) -> bool:
    """Whether an event of the record is at this place of the log, whatever reason follows."""
    return event.endswith(place) or f"{place}: " in event


def _to_fill_in() -> Iterator[str]:
    for title, what in (
        ("Root cause", "what it was in the end, and how that is known"),
        ("What went well, what did not", "how it was noticed, and what took longest"),
        ("Actions", "what will be done, by whom, until when"),
    ):
        yield f"## {title}"
        yield ""
        yield f"*To fill in: {what}.*"
        yield ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    r"""Text that is no Markdown: names in it are the user's.

    >>> _cell("a|b\n<i>*c*")
    'a\\|b \\<i>\\*c\\*'
    """
    shown = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\|<*`[" else c for c in shown)


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"
