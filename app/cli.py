"""`headwater` on the command line: thin commands; the work is in the module that shares each command's name."""

import json
import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from app import backtest as backtesting
from app import check as checking
from app import children, loops
from app import control as controlling
from app import demo as demonstration
from app import doctor as doctoring
from app import explain as explaining
from app import export as exporting
from app import incident as incidents
from app import produce as producing
from app import status as statuses
from app import tail as tailing
from app import top as topping
from app.people import (
    broker_option,
    console,
    for_people,
    interruptible,
    json_option,
    needs_source,
    pipeline_of,
    pipeline_option,
    print_json,
    quiet,
    run,
    settings_for,
    stderr,
)
from app.settings import Settings
from pipelines.definition import Pipeline
from streaming import topics as topic_room
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig

end_with_option = click.option("--end-with", type=int, hidden=True, help="End when this parent process is gone.")


class People(click.Group):
    """A group whose commands tell people what went wrong, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command inside `for_people`."""
        quiet()
        with for_people():
            return super().invoke(ctx)


@click.group(cls=People, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="headwater", prog_name="headwater")
def main() -> None:
    """One stream that both learns and predicts: Kafka events in, predictions out."""


@main.command()
@pipeline_option
@broker_option
@click.option("--web-port", type=click.IntRange(0, 65_535), help="Port of its web server [HEADWATER_WEB_PORT].")
@end_with_option
def worker(pipeline: str | None, broker: str | None, web_port: int | None, end_with: int | None) -> None:
    """Run one worker: score events, join labels, learn, watch.

    \b
    Before:  a Kafka broker; `headwater kafka up` runs a local one. Missing topics are created;
             `headwater topics create` does so beforehand, `headwater doctor` looks whether all is well.
    Set:     HEADWATER_BROKER=localhost:9092  HEADWATER_PIPELINE=flights  or the options below.
             HEADWATER_GUARANTEE=exactly_once needs a broker with transactions, as Apache Kafka has.
             A secured broker: HEADWATER_SECURITY_PROTOCOL, HEADWATER_SASL_*, HEADWATER_SSL_*; with ACLs,
             `headwater topics check` says what a worker needs (docs/security.md).
    Feed:    `headwater produce` replays the pipeline's data set. Your own producers write JSON as
             docs/topics.md says, an event and its label with the same key, partitioned by murmur2.
    See:     http://127.0.0.1:6066/metrics, /health/live (200 while it runs), /health/ready (503 while
             it recovers); `headwater status`; `headwater tail predictions`.
    Scale:   start more with the same settings, up to as many as the events topic has partitions;
             on one machine each with another HEADWATER_WEB_PORT. A worker is two processes: one predicts,
             one watches over quality and drift. HEADWATER_ROLE=all has one do both, =serve and =watch
             start one of the two.
    Stop:    Ctrl-C or SIGTERM: it checkpoints and ends with exit code 0. SIGKILL loses nothing either.
             When it cannot go on, its last words say why and its exit code is not 0; start it again.

    \b
    State is in Kafka; HEADWATER_STORE=disk keeps a copy on disk. All settings are in docs/settings.md.
    """  # noqa: D301  # click reads the control character \b as "keep these lines"
    from app import worker as working  # noqa: PLC0415  # imports Faust, which the other commands do without

    if end_with is not None:
        children.end_with(end_with)
    working.run(settings_for(pipeline=pipeline, broker=broker, web_port=web_port))


@main.command()
@click.argument("name", required=False)
@click.option(
    "--freeze-after",
    metavar="YYYY-MM-DD",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Beside it, a copy that stops learning when this day begins (UTC).",
)
@click.option(
    "--drift", is_flag=True, help="Its alarms, and what resetting the model at them is worth. Runs it thrice."
)
@json_option
def backtest(name: str | None, freeze_after: datetime | None, drift: bool, as_json: bool) -> None:
    """Run pipeline NAME over its data set, without Kafka.

    Each event is predicted before its outcome is learned, in the order of event time, by the same code as in a
    worker. NAME is a built-in one or package.module:name; left out, it is HEADWATER_PIPELINE.
    """
    settings = settings_for(pipeline=name)
    pipeline = pipeline_of(settings)
    loops.choose(settings)
    if drift:
        if freeze_after is not None:
            message = "got --drift and --freeze-after, expected one of them; run it twice"
            raise click.UsageError(message)
        compared = backtesting.run_drift(pipeline, stderr)
        if as_json:
            print_json(backtesting.drift_dict(pipeline, compared))
        else:
            console.print(backtesting.drift_table(pipeline, compared))
        return
    freeze_at = backtesting.freeze_ms(pipeline, freeze_after and freeze_after.replace(tzinfo=UTC))
    result, seconds = backtesting.run(pipeline, freeze_at, stderr)
    values = backtesting.as_dict(pipeline, result, seconds)
    if as_json:
        print_json(values)
    else:
        console.print(backtesting.table(pipeline, values))


@main.command()
@pipeline_option
@broker_option
@click.option("--speed", default="max", show_default=True, help="Times real time, or max.")
@click.option("--limit", type=click.IntRange(1), help="Only so many events, and their labels up to the horizon.")
@json_option
@end_with_option
def produce(  # noqa: PLR0917  # click passes by name
    pipeline: str | None,
    broker: str | None,
    speed: str,
    limit: int | None,
    as_json: bool,
    end_with: int | None,
) -> None:
    """Replay the pipeline's data set into its topics.

    Events go to the events topic and labels to the labels topic, each when its time has come. The topics must be
    there: `headwater topics create`.
    """
    if end_with is not None:
        children.end_with(end_with)
    settings, factor = settings_for(pipeline=pipeline, broker=broker), _speed(speed)
    definition = pipeline_of(settings)
    config = settings.engine_config(definition.name)
    needs_source(definition)
    _checked(definition, config)
    started = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("producing")

        def show(done: producing.Produced) -> None:
            when = datetime.fromtimestamp(done.last_time_ms / 1000, UTC)
            text = f"{done.events:,} events, {done.labels:,} labels, at {when:%Y-%m-%d %H:%M}"
            bar.update(task, description=text)

        done = run(producing.replay(definition, config, speed=factor, limit=limit, progress=show))
    seconds = time.monotonic() - started
    if as_json:
        print_json({"events": done.events, "labels": done.labels, "seconds": round(seconds, 3)})
    else:
        console.print(f"wrote {done.events:,} events and {done.labels:,} labels in {seconds:.1f} s")


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        message = f"got {text!r}; expected a number above 0 (times real time) or max"
        raise click.BadParameter(message, param_hint="--speed")
    return value


def _checked(pipeline: Pipeline, config: EngineConfig) -> int:
    """The events topic's partition count. Raises StartupError with everything that is wrong with the topics."""

    async def ask() -> int:
        async with topic_room.admin_client(config) as admin:
            specs = topic_room.topics_of(pipeline, config.app_id, config.partitions)
            return await topic_room.check(admin, specs)

    return run(ask())


@main.command()
@click.argument("what", type=click.Choice(list(tailing.WHAT)), default="predictions")
@pipeline_option
@broker_option
@click.option("--from-beginning", is_flag=True, help="Everything there is, not only what comes.")
@click.option("--limit", type=click.IntRange(1), help="End after so many records.")
def tail(what: str, pipeline: str | None, broker: str | None, from_beginning: bool, limit: int | None) -> None:
    """Follow an output topic, one JSON document a line.

    Until Ctrl-C, or the limit. Without a topic: predictions.
    """
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)
    config, topic = settings.engine_config(definition.name), tailing.WHAT[what](definition)

    def show(line: dict[str, Any]) -> None:
        click.echo(json.dumps(line))

    try:
        run(tailing.tail(config, topic, show, beginning=from_beginning, limit=limit))
    except KeyboardInterrupt:
        return


@main.group()
def topics() -> None:
    """Create or check the pipeline's topics."""


@topics.command()
@pipeline_option
@broker_option
@json_option
def create(pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Create the topics that are missing; what exists is checked and left as it is."""
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)
    config = settings.engine_config(definition.name)

    async def act() -> tuple[topic_room.TopicSpec, ...]:
        async with topic_room.admin_client(config) as admin:
            specs = topic_room.topics_of(definition, config.app_id, config.partitions)
            return await topic_room.ensure(admin, specs, config.replication_factor)

    created = run(act())
    if as_json:
        print_json({"created": [{"name": s.name, "partitions": s.partitions} for s in created]})
        return
    for spec in created:
        partitions = f"{spec.partitions} partition{'s' * (spec.partitions != 1)}"
        console.print(f"created {spec.name} ({partitions}): {spec.about}", soft_wrap=True)
    console.print(f"{len(created)} topics created; all are as they should be")


@topics.command()
@pipeline_option
@broker_option
@click.option("--principal", help="Whom to grant to, as Kafka names the worker's user.  [default: User:<SASL user>]")
@json_option
def check(pipeline: str | None, broker: str | None, principal: str | None, as_json: bool) -> None:
    """Check that every topic exists, that partition counts agree, and that a worker may do what it does.

    Prints the commands for what is missing, topics and ACLs, for an operator to run. Ask as the worker's user. The exit
    code is 1 where there is a problem.
    """
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)
    config = settings.engine_config(definition.name)
    checked = run(checking.check(definition, config, principal))
    if as_json:
        print_json(checking.as_dict(checked))
    elif not checked.problems:
        console.print(f"all topics are as they should be; {checked.partitions} partitions")
    else:
        for line in checking.words(checked):
            click.echo(line, err=True)
    if checked.problems:
        raise SystemExit(1)


@main.command()
@pipeline_option
@broker_option
@json_option
def doctor(pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Look for what is known to go wrong.

    Settings, definition, broker, topics and their partitions, and whether the producers' partitioners agree. The exit
    code is 1 where there is a problem.
    """
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)

    async def collect() -> list[doctoring.Finding]:
        return [finding async for finding in doctoring.examine(settings, definition)]

    findings = run(collect())
    bad = any(finding.verdict == "problem" for finding in findings)
    if as_json:
        rows = [{"check": f.check, "verdict": f.verdict, "message": f.message} for f in findings]
        print_json({"ok": not bad, "findings": rows})
    else:
        for finding in findings:
            verdict = Text(f"{finding.verdict:>7}", style=doctoring.STYLES[finding.verdict])
            console.print(verdict, f"{finding.check}: {finding.message}", markup=False, highlight=False, soft_wrap=True)
    if bad:
        raise SystemExit(1)


@main.command()
@pipeline_option
@broker_option
@json_option
def status(pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Show lag per partition, the verdict, the last control record, and the numbers of a worker.

    The verdict and the lines below it are of the newest report; `headwater top` shows all of it. The worker is the one
    that answers at HEADWATER_WEB_HOST and HEADWATER_WEB_PORT. Lag is how many records of an events or labels partition
    are not part of a checkpoint yet.
    """
    settings = settings_for(pipeline=pipeline, broker=broker)
    values = run(statuses.status(settings, pipeline_of(settings)))
    lines = values.pop("words")
    if as_json:
        print_json(values)
        return
    table = Table("partition", title=f"{values['pipeline']} on {values['broker']}", title_justify="left")
    columns = ("committed", "end", "lag")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in values["partitions"].items():
        table.add_row(name, *(f"{row[column]:,}" for column in columns))
    console.print(table)
    for line in (*lines, *statuses.words(values)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if values["worker"]["answers"]:
        for name, value in statuses.told(values["metrics"]):
            console.print(f"{name} {value:g}", markup=False)
    else:
        console.print(f"no worker answers at {values['worker']['url']} (HEADWATER_WEB_HOST, HEADWATER_WEB_PORT)")


@main.group()
def kafka() -> None:
    """A local Kafka for trying things out."""


@kafka.command()
@click.option("--port", type=click.IntRange(1, 65_535), help="Where it listens, on loopback. [default: a free one]")
def up(port: int | None) -> None:
    """Run a local Apache Kafka until Ctrl-C.

    One node for trying things out; what it holds is kept in HEADWATER_DATA_DIR for the next time.
    """
    folder = settings_for().data_dir / "kafka"
    try:
        with interruptible(), ExitStack() as stack:
            with stderr.status("starting Kafka (the first time its jars are fetched, about 20 s)"):
                broker = stack.enter_context(LocalKafka(folder, port=port))
            click.echo(f"Kafka answers at {broker.bootstrap}; Ctrl-C ends it. In other shells:")
            click.echo(f"export HEADWATER_BROKER={broker.bootstrap}")
            while broker.running:
                time.sleep(0.5)
            message = f"Kafka ended by itself; its log is {broker.log}"
            raise click.ClickException(message)
    except KeyboardInterrupt:
        click.echo("ended; nothing is left running")


@main.command()
@pipeline_option
@click.option("--speed", default="20000", show_default=True, help="Times real time, or max.")
@click.option("--seconds", type=click.FloatRange(1), help="End by itself, so long after the first event.")
def demo(pipeline: str | None, speed: str, seconds: float | None) -> None:
    """Watch a model learn: Kafka, worker and producer at once.

    Until Ctrl-C, with everything on this machine and nothing left afterwards.
    """
    settings: Settings = settings_for(pipeline=pipeline)
    definition = pipeline_of(settings)
    needs_source(definition)
    _speed(speed)
    demonstration.run(settings, definition, speed=speed, seconds=seconds, parent=os.getpid())


main.add_command(explaining.command)
main.add_command(exporting.command)
main.add_command(incidents.command)
main.add_command(topping.command)
main.add_command(controlling.freeze)
main.add_command(controlling.thaw)
main.add_command(controlling.rollback)
main.add_command(controlling.relearn)
main.add_command(controlling.boost)


if __name__ == "__main__":
    main(prog_name="headwater")
