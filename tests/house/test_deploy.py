"""Rules and dashboard of deploy/ ask for what the workers really measure, and what they say is said in full."""

import itertools
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from app.cli import main
from streaming.telemetry import CATALOGUE, PREFIX
from tests.house.queries import (
    ALERTS,
    DASHBOARD,
    DEPLOY,
    GROUPS,
    ROOT,
    RULES,
    TARGET,
    VALUES,
    Query,
    nodes,
    panels,
    queries,
    selectors,
    series,
)
from tests.house.test_compose import SERVICES
from tests.missing import of_prometheus

SERIES = series()
QUERIES = list(queries())
DATASOURCE: dict[str, Any] = yaml.safe_load((DEPLOY / "grafana" / "datasource.yml").read_text("utf-8"))
PROVIDER: dict[str, Any] = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yml").read_text("utf-8"))


def test_there_is_something_to_look_at() -> None:
    """So that no other test here passes by looking at nothing."""
    assert len(ALERTS) > 20
    assert len(panels()) > 30
    assert len(QUERIES) > len(RULES) + len(panels())


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_query_asks_for_series_and_labels_that_there_are(query: Query) -> None:
    """A metric that was renamed leaves an empty panel, and an alert that never fires."""
    asked = selectors(promql.parse(query.text))
    assert asked
    for selector in asked:
        assert selector.name in SERIES
        assert {matcher.name for matcher in selector.matchers.matchers} <= SERIES[selector.name]


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_query_asks_for_values_of_labels_that_there_are(query: Query) -> None:
    """Each value that is named exists, and each pattern fits one that does."""
    for selector in selectors(promql.parse(query.text)):
        for matcher in selector.matchers.matchers:
            known = VALUES.get(((selector.name or "").removeprefix(PREFIX), matcher.name))
            if known is None:
                continue
            # Equality is a pattern too, of a value that needs no escaping.
            choices = [matcher.value] if "(" in matcher.value else matcher.value.split("|")
            for choice in choices:
                assert [value for value in known if re.fullmatch(choice, value)], choice


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_query_groups_by_labels_that_there_are(query: Query) -> None:
    """By one that no series has, everything would be one group without a word."""
    for node in nodes(promql.parse(query.text)):
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            labels = {label for selector in selectors(node.expr) for label in SERIES[selector.name or ""]}
            assert set(node.modifier.labels) <= labels


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_quantile_keeps_the_bounds_of_its_buckets(query: Query) -> None:
    """Without `le` there is no quantile."""
    for node in nodes(promql.parse(query.text)):
        if isinstance(node, promql.Call) and node.func.name == "histogram_quantile":
            summed = node.args[1]
            assert isinstance(summed, promql.AggregateExpr)
            assert summed.modifier is not None
            assert "le" in summed.modifier.labels


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_counter_is_read_as_a_rate(query: Query) -> None:
    """Its value is only since its worker began; whether it is there at all may be asked."""
    counters = {PREFIX + name for name, metric in CATALOGUE.items() if metric.kind == "counter"}
    counters |= {f"{PREFIX}{name}_bucket" for name, metric in CATALOGUE.items() if metric.kind == "histogram"}
    expression = promql.parse(query.text)
    asked = Counter(selector.name for selector in selectors(expression))
    ranged = Counter(n.vector_selector.name for n in nodes(expression) if isinstance(n, promql.MatrixSelector))
    bare = counters.intersection(asked - ranged)
    assert bare == ({"headwater_snapshots_refused_total"} if query.place == "HeadwaterSnapshotsRefused" else set())


def test_every_metric_is_measured_somewhere() -> None:
    """The catalogue promises nothing that no worker says."""
    rooms = ("agents", "app", "streaming", "tables")
    files = [path for room in rooms for path in (ROOT / room).glob("*.py") if path.name != "telemetry.py"]
    code = "\n".join(path.read_text("utf-8") for path in files)
    calls = set(re.findall(r'\.(?:counter|count|gauge|histogram|observe|follow)\(\s*"(\w+)"', code))
    assert calls == set(CATALOGUE)


def test_every_metric_is_on_the_dashboard() -> None:
    """What is worth measuring is worth showing."""
    shown = {s.name for q in QUERIES if q.place.startswith("dashboard") for s in selectors(promql.parse(q.text))}
    assert [name for name in CATALOGUE if not {PREFIX + name, f"{PREFIX}{name}_bucket"} & shown] == []


def test_rules_have_names_of_their_own() -> None:
    """A recorded name may come once for each set of labels, an alert once."""
    recorded = [(rule["record"], *sorted(rule.get("labels", {}).items())) for rule in RULES if "record" in rule]
    assert len(recorded) == len(set(recorded))
    assert len(ALERTS) + len(recorded) == len(RULES)
    assert len({group["name"] for group in GROUPS}) == len(GROUPS)
    assert all(re.fullmatch(r"(job|job_outcome|instance):headwater_\w+:\w+", name) for name, *_ in recorded)


@pytest.mark.parametrize("name", ALERTS)
def test_alert_says_what_it_is_and_where_to_look(name: str) -> None:
    """Its labels are those that its words use, and its page is the runbook."""
    rule = ALERTS[name]
    assert name.startswith("Headwater")
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    known = {label for s in selectors(promql.parse(rule["expr"])) for label in SERIES[s.name or ""]}
    words = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", words)) <= known
    assert set(re.findall(r"\bHEADWATER_[A-Z_]+", words)) <= _settings()
    assert {command for command in re.findall(r"`headwater (\w+)", words) if command not in main.commands} == set()


def _settings() -> set[str]:
    return set(re.findall(r"`(HEADWATER_[A-Z_]+)`", (ROOT / "docs" / "settings.md").read_text("utf-8")))


def test_every_alert_has_a_test_in_which_it_waits_and_fires() -> None:
    """And one pipeline that is well raises none; promtool runs them."""
    tests = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text("utf-8"))["tests"]
    for name in ALERTS:
        cases = [case for test in tests if test["name"] == name for case in test["promql_expr_test"]]
        assert all(f'alertname="{name}"' in case["expr"] for case in cases)
        assert {bool(case["exp_samples"]) for case in cases} == {True, False}, name
    well = next(test for test in tests if test["name"].startswith("a pipeline that is well"))
    assert not any(case["exp_samples"] for case in well["promql_expr_test"])
    given = {PREFIX + name for name in CATALOGUE} & {s["series"].partition("{")[0] for s in well["input_series"]}
    assert len(given) > 15


@pytest.mark.parametrize(
    ("kind", "file"), [("rules", "rules.yml"), ("config", "prometheus.yml"), ("test", "rules_test.yml")]
)
def test_promtool_agrees(kind: str, file: str, tmp_path: Path) -> None:
    """The configuration is read without the file of the token, which is only in the container."""
    promtool = of_prometheus("promtool")
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    words = ["test", "rules"] if kind == "test" else ["check", kind, *(["--syntax-only"] if kind == "config" else [])]
    done = subprocess.run([promtool, *words, folder / file], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_has_its_rules_mounted() -> None:
    """Beside its configuration, where that looks for them."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert config["rule_files"] == ["rules.yml"]
    mounts = SERVICES["prometheus"]["volumes"]
    for name in ("prometheus.yml", *config["rule_files"]):
        assert f"./deploy/prometheus/{name}:/etc/prometheus/{name}:ro" in mounts
    assert all(job["job_name"].startswith("headwater") for job in config["scrape_configs"])


def test_grafana_finds_its_dashboard_and_prometheus() -> None:
    """Everything that is mounted is where Grafana looks for it."""
    grafana = SERVICES["grafana"]
    targets = {mount.split(":")[0]: mount.split(":")[1] for mount in grafana["volumes"]}
    assert targets["./deploy/grafana/datasource.yml"].startswith("/etc/grafana/provisioning/datasources/")
    assert targets["./deploy/grafana/dashboards.yml"].startswith("/etc/grafana/provisioning/dashboards/")
    (provider,) = PROVIDER["providers"]
    dashboard = targets["./deploy/grafana/headwater.json"]
    assert dashboard.rpartition("/")[0] == provider["options"]["path"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == dashboard
    (source,) = DATASOURCE["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "127.0.0.1:9090:9090" in SERVICES["prometheus"]["ports"]


def test_grafana_lets_people_look_and_change_nothing() -> None:
    """Its usual first password is known to everybody, so nobody can log in."""
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"


def test_dashboard_names_its_datasource() -> None:
    """By the id under which it is provisioned, in every panel, query, variable and annotation."""
    (source,) = DATASOURCE["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    named = [*panels(), *(target for panel in panels() for target in panel["targets"])]
    named += [*DASHBOARD["templating"]["list"], *DASHBOARD["annotations"]["list"]]
    assert [each for each in named if each["datasource"] != wanted] == []


def test_panels_have_ids_of_their_own_and_words() -> None:
    """A panel without a description leaves people to guess."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert [panel["title"] for panel in panels() if not panel["description"]] == []
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(titles) == len(set(titles))
    assert [p["title"] for p in panels() if len({t["refId"] for t in p["targets"]}) != len(p["targets"])] == []
    assert DASHBOARD["uid"] == "headwater"


def test_panels_lie_beside_each_other() -> None:
    """On 24 columns, none over another, each row's title over its panels."""

    def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        return set(itertools.product(columns, range(place["y"], place["y"] + place["h"])))

    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        mine = cells(panel)
        assert mine
        assert all(0 <= x < 24 for x, _ in mine), panel["title"]
        assert not taken & mine, panel["title"]
        taken |= mine


def test_dashboard_uses_the_variables_that_it_has() -> None:
    """A pipeline, and its workers: every query is of those that are chosen, but for what rules record by job."""
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"pipeline", "instance"}
    for query in QUERIES:
        if not query.place.startswith("dashboard"):
            continue
        assert set(re.findall(r"\$(\w+)", query.text)) <= variables
        for selector in selectors(promql.parse(query.text)):
            if (selector.name or "").startswith(PREFIX) and not query.place.startswith("dashboard: variable"):
                assert 'instance=~"$instance"' in query.text
    assert SERIES["headwater_ready"] == TARGET | {"pipeline"}
