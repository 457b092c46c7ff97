"""`make chaos`: plays scenarios at length, shows what came of them, and fails where a promise was broken."""

import logging
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from streaming.brokers import BrokerError, LocalKafka
from tests.chaos import clocks, outages, workers
from tests.chaos.checker import Verdict
from tests.chaos.scenario import SCENARIOS, Report, play

ROOMS = (workers, clocks, outages)
"""The modules whose scenarios there are; importing one registers them."""


@click.command()
@click.option("--kills", default=200, show_default=True, help="How often workers are killed; the rest in proportion.")
@click.option("--seed", default=1, show_default=True, help="What chooses the acts.")
@click.option("--minutes", type=float, help="Do no more harm in a scenario after so many, and check what there is.")
@click.option("--scenario", "names", multiple=True, type=click.Choice(sorted(SCENARIOS)), help="Only these.")
@click.option(
    "--store", type=click.Choice(["memory", "disk"]), default="memory", show_default=True, help="HEADWATER_STORE."
)
@click.option("--broker", help="A running Kafka, host:port; else a local one is started.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with everything, for programs.")
def main(
    *,
    kills: int,
    seed: int,
    minutes: float | None,
    names: Sequence[str],
    store: str,
    broker: str | None,
    as_json: bool,
) -> None:
    """Harm workers, brokers and clocks under load, and check what is promised."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that the broker is away is what is wanted here
    console = Console(stderr=True)
    reports: list[Report] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-chaos-")))
        chosen = [SCENARIOS[name] for name in names] or list(SCENARIOS.values())
        if broker is None and any(one.broker is None for one in chosen):
            broker = stack.enter_context(LocalKafka(folder / "kafka")).bootstrap
        for one in chosen:
            console.print(f"{one.name} ({one.size(kills)}): {one.about}")
            room = folder / one.name
            room.mkdir()
            try:
                seconds = 60 * (minutes or math.inf)
                report = play(one, broker, room, seed=seed, size=one.size(kills), seconds=seconds, store=store)
            except BrokerError as error:
                if one.broker is None or os.environ.get("CI") == "true":
                    raise
                console.print(f"  not played: {error}", markup=False)
                continue
            reports.append(report)
            console.print(report.failure or f"  well, in {report.seconds:.0f} s: {report.acts}", markup=False)
    if as_json:
        sys.stdout.write(msgspec.json.encode(reports).decode() + "\n")
    else:
        Console().print(table_of(reports))
    sys.exit(any(report.failure for report in reports))


def table_of(reports: Sequence[Report]) -> Table:
    """One column for each scenario, one line for each count: what was done, what there is, and what of it is wrong."""
    table = Table("", *(report.scenario for report in reports))
    for act in dict.fromkeys(act for report in reports for act in report.acts):
        table.add_row(act, *(str(report.acts.get(act, "")) for report in reports))
    table.add_section()
    for name in Verdict.__struct_fields__:
        if name != "cases":
            table.add_row(name.replace("_", " "), *(f"{getattr(report.verdict, name):,}" for report in reports))
    table.add_row("seconds", *(f"{report.seconds:.0f}" for report in reports))
    return table


if __name__ == "__main__":
    main()
