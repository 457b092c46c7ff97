"""The dashboard is what Grafana reads: its own published model keeps all of it, from panels' options to queries."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.house.queries import DASHBOARD

# What Grafana reads and its model leaves out: the id in its database, which provisioning gives; what the editor shows
# of a variable's query; and how its Prometheus data source writes annotations.
BEYOND_THE_MODEL = {
    "id",
    "templating.list[].definition",
    *(f"annotations.list[].{name}" for name in ("step", "tagKeys", "textFormat", "titleFormat", "useValueForTime")),
}


def lost(dashboard: Any) -> set[str]:
    """Paths of what is gone, or another thing, when Grafana's model has read the dashboard and written it again."""
    register_default_plugins()
    written = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    return set(_differences(dashboard, written, ""))


def _differences(given: Any, written: Any, path: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(written, dict):
        for name, value in given.items():
            below = f"{path}.{name}".removeprefix(".")
            if name in written:
                yield from _differences(value, written[name], below)
            else:
                yield below
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for one, other in zip(given, written, strict=True):
            yield from _differences(one, other, f"{path}[]")
    elif given != written:
        yield path


def test_grafanas_model_keeps_the_dashboard() -> None:
    """A misspelt option is passed over by Grafana without a word, and the panel is not as it was meant."""
    assert lost(DASHBOARD) == BEYOND_THE_MODEL


def test_what_grafana_would_pass_over_is_noticed() -> None:
    """In an option, a field's defaults and a query, of each kind of panel."""
    kinds = {panel["type"]: number for number, panel in enumerate(DASHBOARD["panels"]) if panel["type"] != "row"}
    assert set(kinds) == {"stat", "timeseries", "table"}
    for number in kinds.values():
        wrong = copy.deepcopy(DASHBOARD)
        panel = wrong["panels"][number]
        panel["options"]["colourMode"] = "value"
        panel["fieldConfig"]["defaults"]["units"] = "short"
        panel["targets"][0]["expression"] = "up"
        assert lost(wrong) - BEYOND_THE_MODEL == {
            "panels[].options.colourMode",
            "panels[].fieldConfig.defaults.units",
            "panels[].targets[].expression",
        }
