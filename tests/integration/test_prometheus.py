"""A real Prometheus with the configuration, rules and queries of deploy/, over a real worker."""

import asyncio
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.control import write
from learning.records import Control
from streaming.brokers import free_port
from tests.chaos.run import Run
from tests.house.queries import ALERTS, DEPLOY, RULES, queries
from tests.missing import of_prometheus

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

TOKEN = "prometheus-may-look"
NOTHING_HAPPENED = {
    "Firing alerts",
    "Missing inputs",
    "Dead letters",
    "Snapshots",
}
"""Panels and annotations of which a worker that is well has nothing to show, in a part of their queries at least."""


class Prometheus:
    """One that runs, by its HTTP interface."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def asked(self, path: str, **parameters: str) -> Any:
        """What it answers. Raises OSError where it does not, HTTPError where it refuses."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def found(self, query: str) -> list[Any]:
        """The series that a query finds now."""
        found: list[Any] = self.asked("query", query=query)["result"]
        return found

    def until(self, query: str, patience: float = 60.0) -> None:
        """Wait until a query finds something. Raises AssertionError."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                if self.found(query):
                    return
            except OSError:  # it starts
                pass
            time.sleep(0.2)
        pytest.fail(f"{query} found nothing for {patience:.0f} s; targets: {self.asked('targets')}")


@contextmanager
def prometheus(program: str, folder: Path, target: int) -> Iterator[Prometheus]:
    """One that scrapes the worker at this port, each second; all else is as deployed."""
    (folder / "token").write_text(TOKEN, "ascii")
    shutil.copy(DEPLOY / "prometheus" / "rules.yml", folder)
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
    job["authorization"]["credentials_file"] = str(folder / "token")
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    port = free_port()
    words = [f"--config.file={folder / 'prometheus.yml'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as out:
        process = subprocess.Popen(
            [program, *words, f"--storage.tsdb.path={folder / 'data'}"], stdout=out, stderr=subprocess.STDOUT
        )
        try:
            yield Prometheus(port)
        finally:
            process.kill()
            process.wait()


def test_a_real_prometheus_finds_what_rules_and_dashboard_ask_for(kafka: str, tmp_path: Path, year: list[Any]) -> None:
    program = of_prometheus("prometheus")
    run = Run(kafka, tmp_path)
    port = free_port()

    async def fed() -> None:
        await run.prepare()
        run.start(HEADWATER_WEB_PORT=str(port), HEADWATER_WEB_TOKEN=TOKEN, HEADWATER_SNAPSHOT_EXAMPLES="2000")
        await run.produce(year, seconds=12)

    try:
        with prometheus(program, tmp_path, port) as asked:
            asyncio.run(fed())
            asked.until('up{job="headwater"} == 1')
            asked.until("headwater_input")
            asked.until("sum(job:headwater_consumer_lag:sum) == 0")
            marked = "changes(headwater_control_offset[5m]) > 0"
            assert asked.found(marked) == [], "a start is taken for a control record"
            asyncio.run(write(run.pipeline, run.config, Control("freeze", 0, "ann")))
            asked.until(marked)
            rules = [rule for group in asked.asked("rules")["groups"] for rule in group["rules"]]
            assert len(rules) == len(RULES)
            assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
            assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == set(ALERTS)
            for place, query in filled(run.name):
                if place not in NOTHING_HAPPENED:
                    asked.until(query)  # what watches may come to it later
    finally:
        run.end()


def filled(pipeline: str) -> Iterator[tuple[str, str]]:
    """Each query of the dashboard by its panel, with Grafana's variables filled in."""
    for query in queries():
        kind, _, place = query.place.partition(": ")
        if kind == "dashboard" and place:
            yield place, query.text.replace("$pipeline", pipeline).replace("$instance", ".+")
