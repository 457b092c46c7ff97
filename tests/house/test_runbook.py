"""docs/runbook.md has a place for everything that can call somebody, and what it tells people to use is there."""

import re
from typing import get_args

import pytest

from app.cli import main
from app.settings import known_names
from learning.health import Rule
from learning.losses import LossAlarm
from learning.reports import AlarmKind
from learning.survey import Survey
from pipelines.flights import flights
from tests.house.queries import ALERTS, ROOT, panels

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")
HEADINGS = re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)
ENTRIES: dict[str, str] = dict(re.findall(r"^### (.+)\n((?:(?!^#).*\n)+)", RUNBOOK, re.MULTILINE))


def anchor(heading: str) -> str:
    """What a link to a heading ends with."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def signals() -> set[str]:
    """What the pipeline's own alarms name, without the name of a feature or a field."""
    found = {*get_args(Rule), *LossAlarm(flights).drift(), *Survey(flights).drift()} - {"data"}  # "data" is all of them
    return {signal.partition(":")[0] for signal in found}


def test_every_alarm_and_every_alert_has_an_entry_and_nothing_else_has() -> None:
    """One that goes takes its entry with it."""
    assert len(signals()) > 8
    assert set(ENTRIES) == signals() | set(ALERTS)
    assert len(HEADINGS) == len(set(map(anchor, HEADINGS)))


@pytest.mark.parametrize("title", ENTRIES)
def test_entry_says_what_it_means_where_to_look_and_what_to_do(title: str) -> None:
    """In this order, each with words."""
    said = re.findall(r"^\*\*(\w+)\.\*\* (?=\S)", ENTRIES[title], re.MULTILINE)
    assert said == ["Means", "Look", "Do"]


def test_every_kind_of_alarm_is_in_the_table() -> None:
    """Under which the metric counts it."""
    assert re.findall(r"^\| `(\w+)` \|", RUNBOOK, re.MULTILINE) == list(get_args(AlarmKind))


def test_links_to_headings_lead_to_one() -> None:
    """Those of the alerts too."""
    anchors = set(map(anchor, HEADINGS))
    links = re.findall(r"\]\(#([^)]+)\)", RUNBOOK)
    links += [rule["annotations"]["runbook_url"].partition("#")[2] for rule in ALERTS.values()]
    assert len(links) > len(ALERTS)
    assert set(links) <= anchors


def test_commands_settings_and_panels_that_are_named_exist() -> None:
    """Who is called at night has no time to look for what has been renamed."""
    titles = {panel["title"] for panel in panels()}
    named = {" ".join(name.split()) for name in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", RUNBOOK)}
    assert len(named) > 15
    assert named <= titles
    commands = set(re.findall(r"`headwater (\w+)", RUNBOOK))
    assert len(commands) > 8
    assert commands <= set(main.commands)
    assert set(re.findall(r"\bHEADWATER_[A-Z_]+", RUNBOOK)) <= set(known_names())


def test_options_that_are_named_exist() -> None:
    """As `--factor` of `headwater boost`."""
    found = 0
    for line in re.findall(r"`headwater (\w+[^`]*--[^`]*)`", RUNBOOK):
        name, *words = line.split()
        options = {option for parameter in main.commands[name].params for option in parameter.opts}
        given = {word for word in words if word.startswith("--")}
        assert given <= options, line
        found += len(given)
    assert found > 5
