"""The generated pages have everything that the code has."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from app import docs
from app.settings import known_names
from pipelines.flights import flights
from streaming.telemetry import CATALOGUE, PREFIX
from streaming.topics import topics_of


def test_metrics_page_has_every_metric_and_reason() -> None:
    page = docs.metrics_page()
    assert [name for name in CATALOGUE if f"| `{PREFIX}{name}` |" not in page] == []
    assert len(docs.reasons()) > 5
    assert all(f"`{reason}`" in page for reason in docs.reasons())


def test_settings_page_has_every_setting_with_its_type_and_no_secret() -> None:
    rows = {line.split("`")[1]: line for line in docs.settings_page().splitlines() if line.startswith("| `")}
    assert sorted(rows) == sorted(known_names())
    assert "| `exactly_once` | `exactly_once` \\| `at_least_once` |" in rows["HEADWATER_GUARANTEE"]
    assert "|  | secret |" in rows["HEADWATER_SASL_PASSWORD"]
    assert "|  | path |" in rows["HEADWATER_SSL_CA_FILE"]


def test_topics_page_has_every_topic_and_schemas_that_are_json() -> None:
    page = docs.topics_page(flights)
    for spec in topics_of(flights, "headwater-flights", 4):
        assert f"| `{spec.name}` | {spec.about} |" in page
    schemas = [json.loads(block.split("```")[0]) for block in page.split("```json")[1:]]
    assert len(schemas) == 8
    assert all("$ref" in schema or "anyOf" in schema for schema in schemas)


def test_check_writes_nothing_and_names_stale_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert docs.stale(tmp_path) == ["metrics.md", "settings.md", "topics.md"]
    monkeypatch.setattr(docs, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(docs, "stale", lambda: ["metrics.md"])
    checked = CliRunner().invoke(docs.main, ["--check"])
    assert (checked.exit_code, "docs/metrics.md" in checked.output) == (1, True)
    assert not docs.DOCS.exists()


def test_written_pages_are_not_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "DOCS", tmp_path / "docs")
    written = CliRunner().invoke(docs.main)
    assert (written.exit_code, written.output.splitlines()[0]) == (0, "wrote docs/metrics.md")
    assert docs.stale(docs.DOCS) == []
