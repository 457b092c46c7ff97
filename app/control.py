"""Freezes learning, lets it go on, and changes what has been learned: `headwater freeze`, `thaw`, `rollback`, ...

Each writes one control record to the training log, which every worker follows at the same offset.
"""

import getpass
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Literal, TypeVar

import click
import msgspec

from app import replay
from app.explain import iso
from app.export import milliseconds
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
)
from app.settings import Settings
from learning.learn import Turn
from learning.negatives import is_learned
from learning.records import CONTROL_KEY, Control, Example, decode_log, encode
from learning.rollback import Run
from pipelines.definition import Pipeline
from pipelines.models import learning_rate_of
from streaming import clients
from streaming.config import EngineConfig

F = TypeVar("F", bound=Callable[..., Any])

MAX_TEXT = 1_000  # characters of a reason, or of a name


class Said(msgspec.Struct, frozen=True):
    """A control record and where it lies."""

    offset: int
    control: Control


class Place(msgspec.Struct, frozen=True):
    """A version or a time, as it was asked for."""

    version: int | None = None
    time_ms: int | None = None


class Target(msgspec.Struct, frozen=True):
    """The version to go back to, and the log's end as it was when that was found out."""

    version: int
    end: int


class VersionOrTime(click.ParamType):
    """A version, which is digits alone, or an ISO 8601 time, UTC where it says no offset."""

    name = "version or time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """The place that is meant; a time that is still to come is refused."""
        if isinstance(value, Place):
            return value
        try:
            version = int(value)
        except ValueError:
            return Place(time_ms=self._time(value, param, ctx))
        if version < 0:
            self.fail(f"got version {version}, expected 0 (nothing learned) or more", param, ctx)
        return Place(version=version)

    def _time(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            time_ms = milliseconds(datetime.fromisoformat(value))
        except ValueError:
            self.fail(f"got {value!r}, expected a version or an ISO time such as 2026-02-01T06:30:00Z", param, ctx)
        if time_ms > now():
            self.fail(f"got {value}, expected a time that has passed; it is {iso(now())}", param, ctx)
        return time_ms


def options(command: F) -> F:
    """What the commands share."""
    for option in (
        json_option,
        broker_option,
        pipeline_option,
        click.option("--by", help="Who says so.  [default: user@host]"),
        click.option("--why", default="", help="The reason, for whoever reads the log."),
    ):
        command = option(command)
    return command


@click.command("freeze")
@options
def freeze(why: str, by: str | None, pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Stop learning, in all workers at the same example.

    Predictions go on by the model as it is. Outcomes are written to the training log as before and are not learned, not
    after `headwater thaw` either.
    """
    tell("freeze", why, by, pipeline, broker, as_json=as_json)


@click.command("thaw")
@options
def thaw(why: str, by: str | None, pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Go on learning, in all workers from the same example on."""
    tell("thaw", why, by, pipeline, broker, as_json=as_json)


def tell(
    action: Literal["freeze", "thaw"],
    why: str,
    by: str | None,
    pipeline: str | None,
    broker: str | None,
    *,
    as_json: bool,
) -> None:
    """Write the record of an action that needs nothing else."""
    settings = settings_for(pipeline=pipeline, broker=broker)
    say(Control(action, now(), author(by), checked("--why", why)), settings, pipeline_of(settings), as_json=as_json)


def say(control: Control, settings: Settings, definition: Pipeline, *, as_json: bool) -> None:
    """Write a record and report it."""
    with interruptible():
        report(definition, run(write(definition, settings.engine_config(definition.name), control)), as_json=as_json)


@click.command("relearn")
@click.option(
    "--last", type=click.IntRange(0), required=True, metavar="N", help="The newest N examples; 0 for a new model."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options
def relearn(  # noqa: PLR0917  # click passes by name
    last: int, yes: bool, why: str, by: str | None, pipeline: str | None, broker: str | None, as_json: bool
) -> None:
    """Begin with a new model that learns the newest examples again, in all workers at the same example.

    For a world that has changed: what came before is out of the model, and stays in the training log. The frozen copy
    that quality is compared with stays. `--last 0` is a model that has learned nothing.
    """
    by, why = author(by), checked("--why", why)
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)
    with interruptible():
        since = run(newest(definition, settings.engine_config(definition.name), last))
    if not yes:
        question = (
            f"Begin {definition.name} with a new model that learns offsets {since} to the end again? All that was"
            " learned before will be out of the model."
        )
        click.confirm(question, abort=True, err=True)
    say(Control("relearn", now(), by, why, since=since), settings, definition, as_json=as_json)


async def newest(pipeline: Pipeline, config: EngineConfig, n: int) -> int:
    """The offset of the n-th newest example of the training log, or its beginning. Raises ClickException."""
    async with replay.opened(config, pipeline.training_log_topic) as log:
        span = n
        while True:
            start = max(log.end - span, log.begin)
            async with aclosing(replay.lessons(log, start)) as found:
                examples = [
                    offset
                    async for offset, record in found
                    if isinstance(record, Example) and is_learned(record, pipeline.negatives)
                ]
            if len(examples) >= n or start == log.begin:
                break
            span *= 2  # some offsets are transaction markers, corrections and controls
        if len(examples) < n and log.begin > 0:
            message = (
                f"{log.name} has {len(examples)} examples left, since its head has been removed; expected --last to be"
                " at most that"
            )
            raise click.ClickException(message)
        return examples[-n] if 0 < n <= len(examples) else (log.end if n == 0 else log.begin)


@click.command("boost")
@click.option("--factor", type=click.FloatRange(0, 1000, min_open=True), required=True, help="Times the usual rate.")
@click.option("--examples", type=click.IntRange(1), required=True, metavar="N", help="For the next N examples.")
@options
def boost(  # noqa: PLR0917  # click passes by name
    factor: float, examples: int, why: str, by: str | None, pipeline: str | None, broker: str | None, as_json: bool
) -> None:
    """Change the learning rate for a number of examples, in all workers at the same example.

    For a model whose last step has an optimizer with a constant learning rate, as River's linear models do.
    """
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)
    if learning_rate_of(definition.model()) is None:
        message = (
            f"the model of {definition.name} has no constant learning rate, expected a last step whose optimizer has"
            " one, as linear_model.LogisticRegression has; `headwater relearn` works with any model"
        )
        raise click.ClickException(message)
    control = Control("boost", now(), author(by), checked("--why", why), factor=factor, examples=examples)
    say(control, settings, definition, as_json=as_json)


@click.command("rollback")
@click.option(
    "--to",
    required=True,
    type=VersionOrTime(),
    metavar="VERSION|TIME",
    help="The version, as predictions have it; or the one that was in force at an ISO time.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options
def rollback(  # noqa: PLR0917  # click passes by name
    to: Place, yes: bool, why: str, by: str | None, pipeline: str | None, broker: str | None, as_json: bool
) -> None:
    """Take the model back to an earlier version, in all workers at the same example.

    What was learned since is out of the model, and stays in the training log. Versions go on counting. Whether learning
    is frozen stays as it is; `headwater freeze` first, where the examples to come are as bad as those before.
    """
    by, why = author(by), checked("--why", why)
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)
    config = settings.engine_config(definition.name)
    with interruptible():
        target = run(find(definition, config, to, replay.trust_of(settings)))
        if not yes:
            question = (
                f"Take {definition.name} back from version {target.end} to {target.version}? What came in between,"
                f" {target.end - target.version} offsets of the training log, will be out of the model."
            )
            click.confirm(question, abort=True, err=True)
        control = Control("rollback", now(), by, why, target.version)
        report(definition, run(write(definition, config, control)), as_json=as_json)


async def find(
    pipeline: Pipeline, config: EngineConfig, place: Place, trust: replay.Trust = replay.NO_SNAPSHOTS
) -> Target:
    """The version that is meant. Raises ClickException for one that the log and its snapshots cannot give back."""
    async with replay.opened(config, pipeline.training_log_topic) as log:
        version = await log.first_after(place.time_ms) if place.time_ms is not None else place.version or 0
        if version > log.end:
            message = f"got version {version}, expected at most {log.end}, where {log.name} ends"
            raise click.BadParameter(message, param_hint="--to")
        if log.begin > 0:
            await _check_snapshots(pipeline, config, log, version, trust)
        return Target(version, log.end)


async def _check_snapshots(
    pipeline: Pipeline, config: EngineConfig, log: replay.Topic, version: int, trust: replay.Trust
) -> None:
    """Refuse a version of a log without its head that the snapshots cannot give: its workers would end at the record.

    The same question that each worker asks when it gets there: which snapshot, and what of the log after it.
    """
    refused: list[str] = []
    saved = await replay.shelf(
        pipeline, config, trust, lambda stored, error: refused.append(f" (slot {stored.slot}: {error.kind})")
    )
    newest = await saved.newest()
    runs = [Run(0, version)]
    if newest is not None:
        since = await _controls(log, newest.version, version)
        turns = (*newest.turns, *(_turn(said, newest.learning) for said in since if _is_valid(said)))
        _, runs = await saved.before(turns, version)
    if any(run.start < min(run.stop, log.begin) for run in runs):
        message = (
            f"{log.name} begins at offset {log.begin}: its head has been removed, and no snapshot that can be believed"
            f" reaches version {version}{''.join(refused)}, so no worker could make it again. Name a later version, or"
            " give the pipeline another name to start anew; set HEADWATER_SNAPSHOT_KEY as the workers have it, and the"
            " topic's retention.ms=-1"
        )
        raise click.ClickException(message)


def _turn(said: Said, learning: bool) -> Turn:
    """What a control record does to the lineage of later versions, to which it is nothing whether they learn."""
    control = said.control
    to = control.to if control.action == "rollback" else None
    return Turn(said.offset, to, learning, control.since if control.action == "relearn" else None)


def _is_valid(said: Said) -> bool:
    needed = {"rollback": said.control.to, "relearn": said.control.since}
    if said.control.action not in needed:
        return True
    place = needed[said.control.action]
    return place is not None and place <= said.offset


async def write(pipeline: Pipeline, config: EngineConfig, control: Control) -> Said:
    """Append the record, and wait until all replicas have it. It takes effect for readers of committed records."""
    async with replay.opened(config, pipeline.training_log_topic):  # or else the broker might create the topic
        pass
    producer = clients.producer(config, idempotent=True)
    await producer.start()
    try:
        done = await producer.send_and_wait(pipeline.training_log_topic, encode(control), CONTROL_KEY, partition=0)
    finally:
        await producer.stop()
    return Said(done.offset, control)


def report(pipeline: Pipeline, said: Said, *, as_json: bool) -> None:
    """Say what was written, and where."""
    if as_json:
        print_json({"pipeline": pipeline.name, "topic": pipeline.training_log_topic, **as_dict(said)})
    else:
        console.print(f"wrote {summary(as_dict(said))}", markup=False, highlight=False, soft_wrap=True)


def as_dict(said: Said) -> dict[str, Any]:
    """What `--json` prints of a control record."""
    control = said.control
    return {
        "offset": said.offset,
        "action": control.action,
        "to": control.to,
        "since": control.since,
        "factor": control.factor,
        "examples": control.examples,
        "time": iso(control.time_ms),
        "by": control.by,
        "why": control.why,
    }


def summary(row: Mapping[str, Any]) -> str:
    """The same for people.

    >>> summary(as_dict(Said(7, Control("rollback", 0, "ann@desk", "bad labels", 5))))
    'rollback to version 5 by ann@desk, 1970-01-01T00:00:00.000Z, offset 7: bad labels'
    """
    to = "" if row["to"] is None else f" to version {row['to']}"
    to += "" if row["since"] is None else f" since offset {row['since']}"
    to += "" if row["factor"] is None else f" by {row['factor']} for {row['examples']} examples"
    why = f": {row['why']}" if row["why"] else ""
    return f"{row['action']}{to} by {row['by']}, {row['time']}, offset {row['offset']}{why}"


class Controls(msgspec.Struct, frozen=True):
    """What the log's control records come to."""

    last: Said | None
    learning_frozen: bool


async def controls(pipeline: Pipeline, config: EngineConfig, samples: Mapping[str, float]) -> Controls:
    """The last control record, and whether learning is frozen.

    A worker's samples say where the record lies; without a worker, the whole log is looked through.
    """
    async with replay.opened(config, pipeline.training_log_topic) as log:
        known = int(samples.get("control_offset", -1))
        # What came since the worker's version is looked through too: a record just written should be seen.
        start = int(samples.get("model_version", 0)) if "control_offset" in samples else 0
        found = await _controls(log, known, known + 1) if known >= 0 else []
        frozen = samples.get("learning_frozen", 0.0) == 1.0
        for said in await _controls(log, start, log.end):
            found.append(said)
            if said.control.action in ("freeze", "thaw"):
                frozen = said.control.action == "freeze"
    return Controls(found[-1] if found else None, frozen)


async def _controls(log: replay.Topic, start: int, stop: int) -> list[Said]:
    found = []
    async with aclosing(log.records(start, stop)) as records:
        async for record in records:
            if b"control" not in (record.value or b""):  # of a long log nearly all, so they need not be decoded
                continue
            try:
                entry = decode_log(record.value)
            except msgspec.DecodeError:
                continue
            if isinstance(entry, Control):
                found.append(Said(record.offset, entry))
    return found


def author(by: str | None) -> str:
    """Who says so: as given, else the user of this process and its host."""
    if by is not None:
        return checked("--by", by)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


def checked(option: str, text: str) -> str:
    """The text. Raises BadParameter for one that is too long to be read."""
    if len(text) > MAX_TEXT:
        message = f"got {len(text)} characters, expected at most {MAX_TEXT}"
        raise click.BadParameter(message, param_hint=option)
    return text


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
