"""Shows what one prediction is made of, and makes it again from the training log: `headwater explain`."""

from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from agents.snapshots import Shelf
from app import replay
from app.people import (
    broker_option,
    console,
    interruptible,
    json_option,
    pipeline_of,
    pipeline_option,
    print_json,
    run,
    settings_for,
    stderr,
)
from learning.explain import (
    KEPT,
    Difference,
    Explanation,
    History,
    Part,
    Replayed,
    Term,
    differences,
    explain,
)
from learning.learn import Learner, ModelError, copy_of
from learning.records import Control, Example, LogRecord, Prediction, Resolved, Value, decoded
from learning.snapshots import SnapshotError
from pipelines.definition import Pipeline
from streaming.config import EngineConfig
from streaming.snapshots import Stored

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Bar = Callable[[str], replay.Progress]


class Origin(msgspec.Struct, frozen=True):
    """Where a prediction was found."""

    topic: str
    partition: int
    offset: int


class Account(msgspec.Struct, frozen=True):
    """One occurrence of a prediction, made again.

    Attributes:
        found: where it is.
        prediction: as it was recorded.
        again: what came of making it again.
        differences: what is not as it was.
        explanation: what it is made of; None where the vector no longer fits the pipeline, or the model raised.
        history: what the log says around its version.
    """

    found: Origin
    prediction: Prediction
    again: Replayed
    differences: list[Difference]
    explanation: Explanation | None
    history: History


class Refusal(msgspec.Struct, frozen=True):
    """A snapshot that was not used, and why."""

    slot: int
    kind: str
    message: str


class Inquiry(msgspec.Struct, frozen=True):
    """Everything about one id."""

    id: str
    accounts: list[Account]
    mentions: list[tuple[int, Resolved]]
    searched: int
    refused: list[Refusal] = []


class _Named(msgspec.Struct):
    id: str


_ID = msgspec.json.Decoder(_Named)
_PREDICTION = msgspec.json.Decoder(Prediction)


@click.command("explain")
@click.argument("prediction_id")
@pipeline_option
@broker_option
@json_option
def command(prediction_id: str, pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Show what a prediction is made of, and make it again.

    Looks for PREDICTION_ID in the predictions, rebuilds the model as it was from the nearest snapshot before it and the
    training log, and compares to the last bit. The exit code is 1 where there is no such prediction, or where the log
    has lost what its model was made from; and 0 where another prediction came out: that is an answer.
    """
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)
    config, trust = settings.engine_config(definition.name), replay.trust_of(settings)
    with interruptible(), bars(stderr) as bar:
        inquiry = run(inquire(definition, config, prediction_id, bar, trust))
    if as_json:
        print_json(as_dict(definition, inquiry))
    else:
        show(definition, inquiry, console)
    if lost := [account.again.lost for account in inquiry.accounts if account.again.lost]:
        raise click.ClickException(lost[0])


@contextmanager
def bars(screen: Console) -> Iterator[Bar]:
    """Makes progress bars, one below the other, that are gone at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:

        def bar(description: str) -> replay.Progress:
            task = progress.add_task(description)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield bar


async def inquire(
    pipeline: Pipeline, config: EngineConfig, name: str, bar: Bar, trust: replay.Trust = replay.NO_SNAPSHOTS
) -> Inquiry:
    """Find it, make it again, and read what the log says of it. Raises ClickException where there is no such id."""
    refused: list[Refusal] = []

    def refuse(stored: Stored, error: SnapshotError) -> None:
        refused.append(Refusal(stored.slot, error.kind, error.message))

    async with replay.opened(config, pipeline.predictions_topic) as topic:
        found = await find(topic, name, bar(f"looking through {topic.name}"))
        searched = topic
    async with replay.opened(config, pipeline.training_log_topic) as log:
        if not found:
            found = await find_example(log, name, bar(f"looking through {log.name}"))
        if not found:
            raise click.ClickException(_unknown(pipeline, name, searched, log))
        saved = await replay.shelf(pipeline, config, trust, refuse)
        accounts, mentions = await account(pipeline, log, name, found, bar=bar, saved=saved)
    return Inquiry(name, accounts, mentions, _size(searched), refused)


async def find(topic: replay.Topic, name: str, progress: replay.Progress) -> list[tuple[Origin, Prediction]]:
    """Every prediction of that id."""
    found = []
    async with aclosing(topic.records(progress=progress)) as records:
        async for record in records:
            try:
                if decoded(_ID, record.value or b"").id != name:
                    continue
                prediction = decoded(_PREDICTION, record.value)
            except msgspec.DecodeError:  # somebody else's record: not what is looked for
                continue
            found.append((Origin(topic.name, record.partition, record.offset), prediction))
    return found


async def find_example(log: replay.Topic, name: str, progress: replay.Progress) -> list[tuple[Origin, Prediction]]:
    """The prediction as its example has it: the log is kept for longer than the predictions are.

    Raises ClickException where the log has the outcome only.
    """
    without = -1
    async with aclosing(replay.lessons(log, progress=progress)) as lessons:
        async for offset, record in lessons:
            if not isinstance(record, Example) or record.id != name:
                continue
            if record.kept:
                r = record
                made = Prediction(r.id, r.key, r.time_ms, r.prediction, r.version, r.features, r.schema)
                return [(Origin(log.name, 0, offset), made)]
            without = offset
    if without >= 0:
        message = (
            f"prediction {name!r} is in its topic no more, and its example, at offset {without} of {log.name}, has no"
            " vector: it is one of the negatives that are not learned (the pipeline's `negatives`), expected one that"
            " is; nothing can be made again without a vector"
        )
        raise click.ClickException(message)
    return []


async def account(
    pipeline: Pipeline, log: replay.Topic, name: str, found: list[tuple[Origin, Prediction]], *, bar: Bar, saved: Shelf
) -> tuple[list[Account], list[tuple[int, Resolved]]]:
    """Each occurrence made again, and what the log says of the id.

    All of the log is read, once and in order, since only it knows the place in history; learned is what comes after a
    snapshot.
    """
    reading = _Reading(log, name, [History(prediction.version, prediction.schema) for _, prediction in found])
    accounts: dict[int, Account] = {}
    model: _Model | None = None
    for index in sorted(range(len(found)), key=lambda index: found[index][1].version):
        version = found[index][1].version
        lost = ""
        try:
            model = await _model_at(pipeline, reading, version, model, bar=bar, saved=saved)
        except replay.LostHeadError as error:
            model, lost = None, str(error)
        await reading.to(min(version, log.end))
        accounts[index] = made_again(pipeline, log, found[index], reading.histories[index], made=model, lost=lost)
    await reading.to(log.end, bar(f"reading the rest of {log.name}"))
    return [accounts[index] for index in range(len(found))], reading.mentions


class _Reading:
    """The log as it is read for the histories: each record is seen once, in order, whoever reads it."""

    def __init__(self, log: replay.Topic, name: str, histories: list[History]) -> None:
        self.histories = histories
        self.mentions: list[tuple[int, Resolved]] = []
        self.log = log
        self._name = name
        self._reached = 0

    def see(self, offset: int, record: LogRecord) -> None:
        """A record that somebody has read; one that was seen is passed over."""
        if offset < self._reached:
            return
        self._reached = offset + 1
        for history in self.histories:
            history.see(offset, record)
        if not isinstance(record, Control) and record.id == self._name:
            self.mentions.append((offset, record))

    async def to(self, stop: int, progress: replay.Progress = replay.nothing) -> None:
        """Read on to before an offset."""
        if self._reached >= stop:
            return
        async with aclosing(replay.lessons(self.log, self._reached, stop, progress)) as lessons:
            async for offset, record in lessons:
                self.see(offset, record)


class _Model(NamedTuple):
    learner: Learner
    base: int


async def _model_at(
    pipeline: Pipeline, reading: _Reading, version: int, reached: _Model | None, *, bar: Bar, saved: Shelf
) -> _Model:
    """The model at a version, from where an earlier one got to, or from a snapshot that is nearer."""
    log = reading.log
    start, _ = await saved.before((), min(version, log.end))  # which is nearer; rollbacks since are met on the way
    if reached is None or start.version > reached.learner.version:
        reached = _Model(start, start.version)
        await reading.to(start.version, bar(f"reading {log.name} to the snapshot at {start.version:,}"))
    progress = bar(f"replaying {log.name} to version {version:,}")
    learner = await replay.learner_at(
        pipeline, log, version, start=reached.learner, saved=saved, see=reading.see, progress=progress
    )
    return _Model(learner, reached.base)


def made_again(
    pipeline: Pipeline,
    log: replay.Topic,
    found: tuple[Origin, Prediction],
    history: History,
    *,
    made: "_Model | None",
    lost: str = "",
) -> Account:
    """The prediction made again by the model at its version, unless that is lost, for this reason."""
    origin, prediction = found
    names, schema = tuple(pipeline.feature_set.names), pipeline.feature_set.schema
    learner, base = made if made is not None else (Learner(pipeline), 0)
    value, error, explanation = None, "", None
    if made is not None:
        value, error, explanation = _asked(learner, pipeline, prediction, history)
    again = Replayed(
        value=value,
        error=error,
        names=names,
        schema=schema,
        model=" | ".join(_steps(learner.model)),
        reached=learner.version,
        passed_over=history.before - learner.examples if not log.begin else None,
        begin=log.begin,
        end=log.end,
        base=base,
        lost=lost,
    )
    return Account(origin, prediction, again, differences(prediction, again), explanation, history)


def _asked(
    learner: Learner, pipeline: Pipeline, prediction: Prediction, history: History
) -> tuple[Value | None, str, Explanation | None]:
    """What the model says about the vector now, or what it raises, and what that is made of."""
    model = copy_of(learner.model)  # some models change when they are asked, and the replay goes on from this one
    names, value = tuple(pipeline.feature_set.names), None
    try:
        value = learner.predict_with(model, prediction.features)
        if pipeline.feature_set.schema != prediction.schema:
            return value, "", None
        reference = history.reference(len(names))
        explanation = explain(
            model,
            lambda vector: learner.predict_with(model, vector),
            names,
            prediction.features,
            reference,
            negatives=pipeline.negatives,
        )
    except ModelError as failure:
        return value, failure.message.strip().splitlines()[-1], None
    return value, "", explanation


def _steps(model: Any) -> list[str]:
    steps = getattr(model, "steps", None)
    return [type(step).__name__ for step in steps.values()] if isinstance(steps, dict) else [type(model).__name__]


def _size(topic: replay.Topic) -> int:
    return sum(topic.ends.values()) - sum(topic.begins.values())


def _unknown(pipeline: Pipeline, name: str, topic: replay.Topic, log: replay.Topic) -> str:
    return (
        f"no prediction {name!r}: searched all of {topic.name} ({len(topic.ends)} partitions, {_size(topic):,} offsets)"
        f" and the examples of {log.name} ({_size(log):,} offsets).\n"
        f"Compare the id with `headwater tail predictions --from-beginning --limit 3`; it is the event's own id, or"
        f" topic-partition-offset where it has none. A prediction is visible after its checkpoint (0.5 s); one older"
        f" than the topic's retention is gone unless it was labelled. For another pipeline than {pipeline.name}, say"
        " --pipeline."
    )


def iso(time_ms: int) -> str:
    """The time for people and programs.

    >>> iso(1_500)
    '1970-01-01T00:00:01.500Z'
    """
    return (EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def as_dict(pipeline: Pipeline, inquiry: Inquiry) -> dict[str, Any]:
    """What `--json` prints; docs/explain-and-export.md describes it."""
    return {
        "id": inquiry.id,
        "pipeline": pipeline.name,
        "occurrences": [_occurrence(account) for account in inquiry.accounts],
        "outcomes": [_mention(offset, record) for offset, record in inquiry.mentions],
        "searched": inquiry.searched,
        "refused_snapshots": msgspec.to_builtins(inquiry.refused),
    }


def _occurrence(account: Account) -> dict[str, Any]:
    made, again = account.prediction, account.again
    return {
        "found": msgspec.to_builtins(account.found),
        "key": made.key,
        "time": iso(made.time_ms),
        "version": made.version,
        "schema": made.schema,
        "features": made.features,
        "prediction": made.prediction,
        "again": again.value,
        "equal": not account.differences,
        "differences": msgspec.to_builtins(account.differences),
        "model": again.model,
        "snapshot": again.base or None,
        "explanation": msgspec.to_builtins(account.explanation),
        "history": _place(account),
    }


def _place(account: Account) -> dict[str, Any]:
    history, last = account.history, account.history.last
    return {
        "log_begin": account.again.begin,
        "log_end": account.again.end,
        "examples_before": None if account.again.begin else history.before,
        "examples_after": history.after,
        "passed_over": account.again.passed_over,
        "example_before": None if last is None else _mention(*last),
    }


def _mention(offset: int, record: Resolved) -> dict[str, Any]:
    return {
        "offset": offset,
        "id": record.id,
        "outcome": record.outcome,
        "source": record.source if isinstance(record, Example) else "correction",
        "previous": None if isinstance(record, Example) else record.previous,
        "learned": isinstance(record, Example) and record.kept,
        "event_time": iso(record.time_ms),
        "label_time": iso(record.label_time_ms),
    }


def show(pipeline: Pipeline, inquiry: Inquiry, screen: Console) -> None:
    """What people see."""
    _say(screen, f"{pipeline.name}: prediction {inquiry.id}", style="bold")
    if len(inquiry.accounts) > 1:
        count = len(inquiry.accounts)
        _say(
            screen,
            f"It is there {count} times. Under predictions=immediate or at_least_once a prediction may repeat after a"
            " crash; each is shown as it was made.",
        )
    for refusal in inquiry.refused:
        words = f"the snapshot in slot {refusal.slot} is not used ({refusal.kind}): {refusal.message}"
        _say(screen, words, style="yellow")
    for account in inquiry.accounts:
        _say(screen, "")
        _show(account, screen)
    _say(screen, "")
    for line in _outcomes(inquiry):
        _say(screen, line)


def _say(screen: Console, text: str, style: str = "") -> None:
    screen.print(Text(text, style=style), soft_wrap=True)


def _show(account: Account, screen: Console) -> None:
    made, found = account.prediction, account.found
    _say(screen, f"made     {_value(made.prediction)} for {made.key}, event of {iso(made.time_ms)}")
    _say(screen, f"found    {found.topic}, partition {found.partition}, offset {found.offset:,}")
    if account.differences:
        _say(screen, "again    not the same:", style="red")
        for difference in account.differences:
            _say(screen, f"         {difference.what}: {difference.message}")
    else:
        _say(screen, f"again    equal to the last bit, by {account.again.model} at version {made.version:,}", "green")
    if account.again.base:
        _say(screen, f"         from the snapshot at version {account.again.base:,} and the training log after it")
    for line in _history(account):
        _say(screen, line)
    if account.explanation is not None:
        for part in account.explanation.parts:
            screen.print(_table(account.explanation, part))


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number!r}" for name, number in value.items()) or "no class"
    return repr(value)


def _history(account: Account) -> Iterator[str]:
    history, again = account.history, account.again
    yield (
        f"version  {account.prediction.version:,}: {history.before:,} examples before it, {history.after:,} since;"
        f" the log has offsets {again.begin:,} to {again.end:,}"
    )
    if again.begin:
        yield (
            "         the log's head is gone: how many examples came before the version, and how many of them are not"
            f" in the model, is no longer to be known; means are over {history.kept:,} of the last {KEPT:,} before it"
        )
    if history.last is not None:
        offset, last = history.last
        yield f"         the last before it: {last.id}, labelled {iso(last.label_time_ms)}, offset {offset:,}"
    if again.passed_over:
        yield (
            f"         {again.passed_over:,} of the examples before it are not in the model: they could not be learned,"
            " came while learning was frozen, were rolled back, or are negatives that are not learned"
        )


def _outcomes(inquiry: Inquiry) -> Iterator[str]:
    if not inquiry.mentions:
        yield "outcome  not known: the training log has no record of it (still waiting, or expired without a lesson)"
    for offset, record in inquiry.mentions:
        when = f"{iso(record.label_time_ms)}, offset {offset:,}"
        if isinstance(record, Example):
            yield f"outcome  {record.outcome} by {record.source}, {when}{'' if record.kept else '; not learned'}"
        else:
            yield f"outcome  {record.outcome} by correction, was {record.previous}, {when}; not learned"


def _table(explanation: Explanation, part: Part) -> Table:
    linear = explanation.method == "linear"
    output = f"class {part.output}: " if part.output else ""
    if linear:
        title = f"{output}score {part.score:.6g} = intercept + contributions; link: {explanation.link}"
    else:
        title = (
            f"{output}change of the prediction by each feature alone, against its mean of the last {KEPT:,} examples;"
            " the changes do not add up"
        )
    middle = ("seen", "weight") if linear else ("mean",)
    table = Table(title=title, title_justify="left")
    table.add_column("feature", overflow="fold")
    for name in ("value", *middle, "contribution"):
        table.add_column(name, justify="right")
    for term in sorted(part.terms, key=_size_of, reverse=True):
        numbers = (term.seen, term.weight) if linear else (term.reference,)
        table.add_row(Text(term.feature), *(_number(n) for n in (term.value, *numbers, term.contribution)))
    if linear:
        table.add_row("intercept", "", "", "", _number(part.intercept))
    return table


def _size_of(term: Term) -> float:
    return abs(term.contribution or 0.0)


def _number(number: float | None) -> str:
    return "model raised" if number is None else f"{number:.6g}"
