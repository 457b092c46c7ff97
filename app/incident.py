"""An incident as a draft of its post-mortem, with the evidence that Kafka holds: `headwater incident`.

The record stays as the owner of the training log wrote it; the evidence is added when somebody asks.
"""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click
import msgspec

from app import replay
from app.draft import draft
from app.evidence import Bar, Evidence, gathered
from app.explain import bars
from app.feed import as_json as plain
from app.people import (
    broker_option,
    interruptible,
    json_option,
    pipeline_of,
    pipeline_option,
    print_json,
    run,
    settings_for,
    stderr,
)
from learning.records import decoded
from learning.reports import Incident
from learning.verdict import when
from pipelines.definition import Pipeline
from streaming.config import EngineConfig


@click.command("incident")
@click.argument("incident_id", required=False, metavar="[ID]")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@pipeline_option
@broker_option
@json_option
def command(incident_id: str | None, out: Path | None, pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Draft the post-mortem of an incident, in Markdown, with the evidence; without ID, list the incidents.

    Reads the incident's record, and the topics around it: quality, inputs and the worst groups before and since,
    labels, restarts, control records. docs/incidents.md says what an incident is and by which rules its cause is named.
    """
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)
    config = settings.engine_config(definition.name)
    if incident_id is None:
        known = run(incidents_of(definition, config))
        deliver(plain(known) if as_json else _listed(known), out)
        return
    with interruptible(), bars(stderr) as bar:
        incident, evidence = run(investigate(definition, config, incident_id, bar))
    if as_json:
        deliver({"incident": plain(incident), "evidence": plain(evidence)}, out)
    else:
        deliver(draft(definition, incident, evidence), out)


def deliver(made: Any, out: Path | None) -> None:
    """Print it or write it to a file: text, or what becomes JSON. Raises ClickException."""
    if out is None:
        if isinstance(made, str):
            click.echo(made, nl=False)
        else:
            print_json(made)
        return
    text = made if isinstance(made, str) else msgspec.json.format(msgspec.json.encode(made), indent=2).decode() + "\n"
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        message = f"cannot write {out}: {error.strerror}; name another --out"
        raise click.ClickException(message) from error
    stderr.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)


def _listed(known: Sequence[Incident]) -> str:
    """One line each, with the id first and whole, since that is what the next command is given."""
    width = max((len(each.id) for each in known), default=0)
    lines = [
        f"{each.id:<{width}}  {each.state:<6}  {each.cause:<8}  since {when(each.since_ms)}  {each.alarms[0].text}"
        for each in known
    ]
    return "\n".join(lines or ["no incident so far"]) + "\n"


async def incidents_of(pipeline: Pipeline, config: EngineConfig) -> list[Incident]:
    """Every incident as its last record tells it, the newest first. Raises StartupError."""
    found: dict[str, Incident] = {}
    decoder = msgspec.json.Decoder(Incident)
    async with replay.opened(config, pipeline.incidents_topic) as topic, aclosing(topic.records()) as records:
        async for record in records:
            try:
                incident = decoded(decoder, record.value or b"")
            except msgspec.DecodeError:  # a tombstone, or of a later version
                continue
            found[incident.id] = incident
    return sorted(found.values(), key=lambda each: (each.opened_wall_ms, each.id), reverse=True)


async def investigate(pipeline: Pipeline, config: EngineConfig, name: str, bar: Bar) -> tuple[Incident, Evidence]:
    """The incident and what the topics hold about it. Raises ClickException where there is none of this id."""
    known = await incidents_of(pipeline, config)
    incident = next((each for each in known if each.id == name), None)
    if incident is None:
        ids = ", ".join(each.id for each in known[:5]) or "none so far"
        message = f"no incident {name!r} of {pipeline.name}; the newest are: {ids}. `headwater incident` lists them"
        raise click.ClickException(message)
    return incident, await gathered(pipeline, config, incident, bar)
