"""`headwater` on the command line: thin commands; the work is in the module that shares each command's name."""

import os
import time
from datetime import UTC, datetime
from typing import Any

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app import backtest as backtesting
from app import children
from app import demo as demonstration
from app import doctor as doctoring
from app import produce as producing
from app import status as statuses
from app import tail as tailing
from app.people import console, for_people, pipeline_of, print_json, run, settings_for, stderr
from app.settings import Settings
from streaming import topics as topic_room
from streaming.config import EngineConfig

pipeline_option = click.option("--pipeline", help="Built-in name or package.module:name [HEADWATER_PIPELINE].")
broker_option = click.option("--broker", help="Kafka bootstrap servers [HEADWATER_BROKER].")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
end_with_option = click.option("--end-with", type=int, hidden=True, help="End when this parent process is gone.")


class People(click.Group):
    """A group whose commands tell people what went wrong, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command inside `for_people`."""
        with for_people():
            return super().invoke(ctx)


@click.group(cls=People, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="headwater")
def main() -> None:
    """One stream that both learns and predicts: Kafka events in, predictions out."""


@main.command()
@pipeline_option
@broker_option
@click.option("--web-port", type=int, help="Port of /metrics on loopback [HEADWATER_WEB_PORT].")
@end_with_option
def worker(pipeline: str | None, broker: str | None, web_port: int | None, end_with: int | None) -> None:
    """Run one worker: score events, join labels, learn, watch.

    \b
    Before:  a Kafka broker (`headwater kafka up` runs a local one), and its topics (`headwater topics create`)
    Set:     HEADWATER_BROKER=localhost:9092   HEADWATER_PIPELINE=flights   or the options below
    Check:   `headwater doctor`
    Feed:    `headwater produce`
    See:     http://127.0.0.1:6066/metrics     `headwater status`     `headwater tail predictions`
    Scale:   start more workers with the same settings (another HEADWATER_WEB_PORT on the same machine);
             up to as many as the events topic has partitions
    Stop:    Ctrl-C or SIGTERM; it checkpoints first. SIGKILL loses nothing either.

    All settings: docs/settings.md. State is in Kafka; the worker keeps none on disk.
    """  # noqa: D301  # click reads the control character \b as "keep these lines"
    from app import worker as working  # noqa: PLC0415  # imports Faust, which the other commands do without

    if end_with is not None:
        children.end_with(end_with)
    working.run(settings_for(pipeline=pipeline, broker=broker, web_port=web_port))


@main.command()
@click.argument("name", required=False)
@click.option("--freeze-after", type=click.DateTime(["%Y-%m-%d"]), help="Show a copy frozen after this UTC day.")
@json_option
def backtest(name: str | None, freeze_after: datetime | None, as_json: bool) -> None:
    """Run pipeline NAME over its data set without Kafka, and show what it reached."""
    pipeline = pipeline_of(settings_for(pipeline=name))
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
@click.option("--limit", type=click.IntRange(1), help="Only so many events, and their labels.")
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
    """Replay the pipeline's data set into its events and labels topics."""
    if end_with is not None:
        children.end_with(end_with)
    settings, factor = settings_for(pipeline=pipeline, broker=broker), _speed(speed)
    definition = pipeline_of(settings)
    config = settings.engine_config(definition.name)
    if definition.source is None:
        message = f"pipeline {definition.name} has no data set to replay; give it one with source="
        raise click.ClickException(message)
    _checked(definition, config)
    started = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
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


def _checked(pipeline: Any, config: EngineConfig) -> int:
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
    """Follow predictions, training-log, drift or dead-letters, one JSON document a line, until Ctrl-C."""
    import json  # noqa: PLC0415

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
        console.print(f"created {spec.name} ({spec.partitions} partitions): {spec.about}")
    console.print(f"{len(created)} topics created; all are as they should be")


@topics.command()
@pipeline_option
@broker_option
@json_option
def check(pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Check that every topic exists and that partition counts agree."""
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)
    count = _checked(definition, settings.engine_config(definition.name))
    if as_json:
        print_json({"ok": True, "partitions": count})
    else:
        console.print(f"all topics are as they should be; {count} partitions")


@main.command()
@pipeline_option
@broker_option
@json_option
def doctor(pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Look for what is known to go wrong; exit code 1 where there is a problem."""
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
        signs = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}
        for finding in findings:
            console.print(f"{signs[finding.verdict]:>20} {finding.check}: {finding.message}", highlight=False)
    if bad:
        raise SystemExit(1)


@main.command()
@pipeline_option
@broker_option
@json_option
def status(pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Show lag per partition, and the numbers of the worker on this machine."""
    settings = settings_for(pipeline=pipeline, broker=broker)
    values = run(statuses.status(settings, pipeline_of(settings)))
    if as_json:
        print_json(values)
        return
    table = Table("partition", "committed", "end", "lag", title=f"{values['pipeline']} on {values['broker']}")
    for name, row in values["partitions"].items():
        table.add_row(name, *(f"{row[column]:,}" for column in ("committed", "end", "lag")))
    console.print(table)
    if values["worker"]["answers"]:
        for name, value in values["metrics"].items():
            console.print(f"{name} {value:g}", markup=False)
    else:
        console.print(f"no worker answers at {values['worker']['url']} (HEADWATER_WEB_HOST, HEADWATER_WEB_PORT)")


@main.group()
def kafka() -> None:
    """A local Kafka for trying things out."""


@kafka.command()
def up() -> None:
    """Run a local Apache Kafka until Ctrl-C."""
    from streaming.brokers import LocalKafka  # noqa: PLC0415  # resolves jars, which no other command needs

    settings = settings_for()
    with LocalKafka(settings.data_dir / "kafka") as broker:
        console.print(f"Kafka answers at {broker.bootstrap}; Ctrl-C ends it. In other shells:")
        console.print(f"export HEADWATER_BROKER={broker.bootstrap}", markup=False, highlight=False)
        _until_interrupted()


def _until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return


@main.command()
@pipeline_option
@click.option("--speed", default="20000", show_default=True, help="Times real time, or max.")
@click.option("--seconds", type=click.FloatRange(1), help="End by itself after so long.")
def demo(pipeline: str | None, speed: str, seconds: float | None) -> None:
    """Start a local Kafka, a worker and a producer, and watch the model learn, until Ctrl-C."""
    settings: Settings = settings_for(pipeline=pipeline)
    _speed(speed)
    demonstration.run(settings, pipeline_of(settings), speed=speed, seconds=seconds, parent=os.getpid())


if __name__ == "__main__":
    main()
