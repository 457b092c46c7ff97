"""What deploy/ asks Prometheus, query by query, for the tests: the dashboard's and the rules'."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import promql_parser as promql
import yaml

from learning.intake import DeadLetterReason
from learning.quality import MEASURES
from learning.watch import OVER
from streaming.telemetry import CATALOGUE, PREFIX

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "headwater.json").read_text("utf-8"))
GROUPS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text("utf-8"))["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}

TARGET = frozenset({"job", "instance"})  # labels that Prometheus gives whatever it scrapes
OF_PROMETHEUS = {
    "up": TARGET,
    "ALERTS": TARGET | {"alertname", "alertstate", "severity", "kind", "pipeline", "measure"},
}

# Values of labels, where it is known which there can be.
VALUES: dict[tuple[str, str], frozenset[str]] = {
    ("quality", "metric"): frozenset(over + measure for over in OVER for measure in MEASURES),
    ("input", "statistic"): frozenset({"psi", "ks", "missing"}),
    ("dead_letters_total", "reason"): frozenset(get_args(DeadLetterReason)),
    **{(name, metric.labels[0]): frozenset(metric.known) for name, metric in CATALOGUE.items() if metric.known},
}


class Query(NamedTuple):
    """An expression and where it stands."""

    place: str
    text: str

    def __str__(self) -> str:
        return self.place


def series() -> dict[str, frozenset[str]]:
    """Every series that can be asked for, with its labels: the catalogue's, Prometheus' own and what rules record."""
    found = dict(OF_PROMETHEUS)
    for name, metric in CATALOGUE.items():
        labels = TARGET.union(metric.labels)
        if metric.kind != "histogram":
            found[PREFIX + name] = labels
            continue
        found |= {f"{PREFIX}{name}_{part}": labels for part in ("sum", "count")}
        found[f"{PREFIX}{name}_bucket"] = labels | {"le"}
    for rule in RULES:
        if "record" in rule:
            level = rule["record"].partition(":")[0].split("_")
            kept = TARGET if "instance" in level else frozenset(level)
            found[rule["record"]] = kept.union(rule.get("labels", {}))
    return found


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels that show something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Every expression of the rules and of the dashboard; what Grafana fills in is filled in."""
    for rule in RULES:
        yield Query(rule.get("record") or rule["alert"], rule["expr"])
    shown = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    shown += [(note["name"], note["expr"]) for note in DASHBOARD["annotations"]["list"]]
    for variable in DASHBOARD["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert asked is not None, variable
        shown.append((f"variable {variable['name']}", f"count by ({asked[2]}) ({asked[1]})"))
    for place, text in shown:
        yield Query(f"dashboard: {place}", text.replace("$__rate_interval", "1m"))


def nodes(expression: promql.Expr) -> list[promql.Expr]:
    """It and all that it is made of."""
    found: list[promql.Expr] = []

    def keep(node: promql.Expr) -> None:
        found.append(node)

    promql.walk(expression, keep)
    return found


def selectors(expression: promql.Expr) -> list[promql.VectorSelector]:
    """Every series that an expression asks for."""
    return [node for node in nodes(expression) if isinstance(node, promql.VectorSelector)]
