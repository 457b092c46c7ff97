"""What people are told first: whether the model is good, and where to look if it is not. Pure; a report in, words out.

The page and `headwater status` both show it. It adds no test of its own: what counts as a change is what raised an
alarm, since alarms have a budget of false ones. Only three things are judged here, because no alarm is needed to see
them: a model that is no better than its baseline, outcomes that never come, and work that piles up.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from learning.reports import Alarm, Cause, Incident, Report

Kind = Literal[
    "no_data", "good", "getting_worse", "worse_than_baseline", "data_changed", "labels_missing", "pipeline_behind"
]
State = Literal["good", "watch", "bad", "unknown"]
Part = Literal["model", "data", "labels", "pipeline"]

WORDS: dict[Kind, str] = {
    "no_data": "No data yet",
    "good": "Good",
    "getting_worse": "Getting worse",
    "worse_than_baseline": "No better than a baseline",
    "data_changed": "Data changed",
    "labels_missing": "Labels missing",
    "pipeline_behind": "Pipeline behind",
}
PART_OF: dict[str, Part] = {  # by the kind of an alarm
    "loss": "model",
    "prediction": "data",  # it depends on vector and model alone, and the loss tells of the model
    "feature": "data",
    "quality": "data",
    "data": "data",
    "labels": "labels",
    "pipeline": "pipeline",
}
CAUSE_OF: dict[Part, Cause] = {"model": "model", "data": "data", "labels": "labels", "pipeline": "pipeline"}
LOSS = {"binary": "log_loss", "multiclass": "log_loss", "regression": "mae"}  # smaller is better
BASELINES = {"base_rate": "the base rate", "last_label": "the last label"}
NAMES = {"log_loss": "Log loss", "mae": "Mean absolute error"}

FEW = 100  # outcomes under which quality says nothing yet
BEHIND_SECONDS = 60  # of work not done yet, at the present rate
BEHIND_RECORDS = 1_000  # fewer are never called a backlog
UNUSABLE = 0.05  # share of dead letters that somebody should look at
NEAR = 0.5  # of an alarm's threshold: worth saying, not worth waking anybody


class Check(msgspec.Struct, frozen=True):
    """One of the four things that can be wrong.

    Attributes:
        part: which.
        state: "watch" is for something odd that raised no alarm; "unknown" for what cannot be known yet.
        text: one sentence.
    """

    part: Part
    state: State
    text: str


class Verdict(msgspec.Struct, frozen=True):
    """How the pipeline is, in words.

    Attributes:
        kind: for programs.
        words: for people.
        why: one or two sentences with the numbers.
        state: of the whole.
        cause: where to look first; None where nothing is wrong.
        checks: model, data, labels, pipeline, in this order.
    """

    kind: Kind
    words: str
    why: str
    state: State
    cause: Cause | None
    checks: list[Check]


def judge(report: Report | None, incidents: Sequence[Incident] = ()) -> Verdict:
    """The verdict on the newest report.

    Args:
        report: the newest, None where there is none.
        incidents: what is known of incidents. Those that the report does not call open are passed over, and those that
            have been closed since.

    >>> judge(None).words
    'No data yet'
    """
    if report is None:
        nothing = "No report has been written yet; the first comes with the first predictions."
        return _verdict("no_data", nothing, "unknown", None, [])
    known = [incident for incident in incidents if incident.id in report.incidents and incident.state == "open"]
    alarms = _standing(report, incidents, known)
    model = _model(report, alarms)
    checks = [model, _data(report, alarms), _labels(report, alarms), _pipeline(report, alarms)]
    bad = [check for check in checks if check.state == "bad"]
    if model.state == "bad":
        cause, reason = _cause(known, bad)
        kind: Kind = "worse_than_baseline" if _no_better(report) else "getting_worse"
        return _verdict(kind, f"{model.text} {reason}", "bad", cause, checks)
    for kind, part in _ELSEWHERE:
        for check in bad:
            if check.part == part:
                if part != "data":
                    return _verdict(kind, check.text, "bad", CAUSE_OF[part], checks)
                return _verdict(kind, f"{check.text} {model.text}", "watch", "data", checks)  # no worse for it so far
    if model.state == "unknown":
        return _verdict("no_data", model.text, "unknown", None, checks)
    return _verdict("good", f"{model.text} No alarm stands.", "good", None, checks)


_ELSEWHERE: tuple[tuple[Kind, Part], ...] = (  # what is said first when the model itself is not worse
    ("labels_missing", "labels"),  # its quality is of the past then
    ("pipeline_behind", "pipeline"),
    ("data_changed", "data"),
)


def _verdict(kind: Kind, why: str, state: State, cause: Cause | None, checks: list[Check]) -> Verdict:
    return Verdict(kind, WORDS[kind], why, state, cause, checks)


def _standing(report: Report, incidents: Sequence[Incident], known: Sequence[Incident]) -> list[Alarm]:
    """Alarms of what is open; where an incident itself is not known, the alarm that opened it and gave it its id."""
    told = {incident.id for incident in incidents}
    found = [alarm for incident in known for alarm in incident.alarms]
    return found + [alarm for alarm in report.alarms if alarm.id in report.incidents and alarm.id not in told]


def _of(part: Part, alarms: Sequence[Alarm]) -> list[Alarm]:
    return [alarm for alarm in alarms if PART_OF[alarm.kind] == part]


def _cause(known: Sequence[Incident], bad: Sequence[Check]) -> tuple[Cause, str]:
    """Where to look first: as the incident that has the loss says, else the first other thing that is wrong."""
    for incident in known:
        if incident.cause != "unknown" and any(alarm.kind == "loss" for alarm in incident.alarms):
            return incident.cause, incident.why
    for check in bad:
        if check.part != "model":
            return CAUSE_OF[check.part], check.text
    return "model", "Data, labels and pipeline are as they were."


def best_baseline(report: Report) -> tuple[str, float] | None:
    """The baseline with the smallest loss over the rolling window and that loss; None where none is measured."""
    loss = LOSS.get(report.task, "")
    found = {name: report.baselines.get(f"rolling_{name}", {}).get(loss) for name in BASELINES}
    losses = {name: value for name, value in found.items() if value is not None}
    return min(losses.items(), key=lambda item: item[1]) if losses else None


def _rolling(report: Report) -> float | None:
    return report.quality.get("rolling", {}).get(LOSS.get(report.task, "roc_auc"))


def _no_better(report: Report) -> bool:
    """Whether the rolling loss is not below the best baseline's; for anomaly scores, the ROC AUC not above chance."""
    value, best = _rolling(report), best_baseline(report)
    if value is None:
        return False
    if report.task not in LOSS:
        return value <= 0.5
    return best is not None and value >= best[1]


def _model(report: Report, alarms: Sequence[Alarm]) -> Check:
    value = _rolling(report)
    if report.examples < FEW or value is None:
        few = f"Only {report.examples:,} outcomes have come" if report.examples else "No outcome has come yet"
        return Check("model", "unknown", f"{few}, so the quality is not known.")
    text = _quality(report, value)
    fired = _of("model", alarms)
    if fired or _no_better(report):
        return Check("model", "bad", " ".join([text, *_sentences(fired)]))
    odd = " ".join(_oddities(report))
    return Check("model", "watch" if odd else "good", f"{text} {odd}".rstrip())


def _quality(report: Report, value: float) -> str:
    best = best_baseline(report)
    measure = LOSS.get(report.task)
    if measure is None:
        return f"ROC AUC is {value:.4g} over the latest outcomes; chance has 0.5."
    said = f"{NAMES[measure]} is {value:.4g} over the latest outcomes"
    if best is None or best[1] <= 0.0:
        return f"{said}."
    name, loss = best
    share = 1.0 - value / loss
    return f"{said}, {percent(abs(share))} {'below' if share > 0 else 'above'} {BASELINES[name]} ({loss:.4g})."


def _oddities(report: Report) -> Iterator[str]:
    measure = LOSS.get(report.task, "roc_auc")
    frozen = report.quality.get("frozen", {}).get(measure)
    since = report.quality.get("since_frozen", {}).get(measure)
    if frozen is not None and since is not None and (frozen < since if measure in LOSS.values() else frozen > since):
        yield f"The frozen copy is better ({frozen:.4g} against {since:.4g}): learning does not help."
    if (near := report.drift.get("loss", 0.0)) >= NEAR:
        yield f"Its loss is {percent(near)} of the way to an alarm."


def _data(report: Report, alarms: Sequence[Alarm]) -> Check:
    unusable = sum(report.dead_letters.values())
    if unusable >= UNUSABLE:
        reason = max(report.dead_letters, key=lambda name: (report.dead_letters[name], name))
        text = f"{percent(unusable)} of the records cannot be used, most of them: {reason.replace('_', ' ')}."
        return Check("data", "bad", text)
    if fired := _of("data", alarms):
        return Check("data", "bad", " ".join(_sentences(fired)))
    drifted = sorted((field for field in report.fields if field.drifted), key=lambda field: -field.psi)
    if drifted:
        more = f" and {len(drifted) - 3} more" if len(drifted) > 3 else ""
        return Check("data", "bad", f"Changed: {', '.join(field.name for field in drifted[:3])}{more}.")
    if not report.fields:
        return Check("data", "unknown", "No field has been compared yet.")
    worst = max(report.fields, key=lambda field: field.psi)
    as_before = f"{len(report.fields)} fields as before; {worst.name} changed most (PSI {worst.psi:.3f})."
    return Check("data", "good", as_before)


def _labels(report: Report, alarms: Sequence[Alarm]) -> Check:
    if fired := _of("labels", alarms):
        return Check("labels", "bad", " ".join(_sentences(fired)))
    if report.coverage == 0.0:
        return Check("labels", "bad", "None of the predictions older than the horizon got an outcome.")
    if not report.examples:
        return Check("labels", "unknown", "No outcome has come yet.")
    delay = report.label_delay.get("p50")
    texts = [] if delay is None else [f"half of them within {span(delay)}"]
    if report.coverage > 0.0:
        texts.insert(0, f"{percent(report.coverage, 1)} of the predictions get an outcome")
    return Check("labels", "good", f"{'; '.join(texts) or 'Outcomes come'}.".capitalize())


def _pipeline(report: Report, alarms: Sequence[Alarm]) -> Check:
    if fired := _of("pipeline", alarms):
        return Check("pipeline", "bad", " ".join(_sentences(fired)))
    unread = sum(report.lag.values())
    enough = max(BEHIND_RECORDS, BEHIND_SECONDS * report.events_per_second)
    if unread > enough:
        return Check("pipeline", "bad", f"{unread:,} records are not read yet{_work(unread, report)}.")
    if report.model_lag > enough:
        lag = f"{report.model_lag:,} outcomes are not learned yet{_work(report.model_lag, report)}"
        return Check("pipeline", "bad", f"{lag}: predictions are made with an older model.")
    return Check("pipeline", "good", f"Keeping up with {report.events_per_second:,.0f} events a second.")


def _work(records: int, report: Report) -> str:
    rate = report.events_per_second
    return f", {span(records / rate)} of work" if rate > 0.0 else ""


def _sentences(alarms: Sequence[Alarm]) -> Iterator[str]:
    """What the alarms say, the first two of them, each with its time."""
    for alarm in alarms[:2]:
        yield f"{alarm.text.rstrip('.')} ({when(alarm.time_ms)})."
    if len(alarms) > 2:
        yield f"{len(alarms) - 2} more alarms stand."


def when(time_ms: int) -> str:
    """A time as people read it, UTC.

    >>> when(1_357_084_800_000)
    '2013-01-02 00:00 UTC'
    """
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def span(seconds: float) -> str:
    r"""A span of time in its largest fitting unit.

    >>> [span(seconds).replace("\u00a0", " ") for seconds in (0.5, 90, 7200, 200_000)]
    ['0.5 s', '1.5 min', '2 h', '2.3 days']
    """
    for size, unit in ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{round(seconds / size, 1):g}\u00a0{unit}"
    return f"{round(seconds, 1):g}\u00a0s"


def percent(share: float, digits: int = 0) -> str:
    r"""A share in per cent, which no line break parts from its sign.

    >>> percent(0.417) == "42\u00a0%"
    True
    """
    return f"{100.0 * share:.{digits}f}\u00a0%"
