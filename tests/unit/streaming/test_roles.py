"""Who divides the work otherwise than those that run is refused; whoever joins them is not."""

import pytest

from pipelines.flights import flights
from streaming.config import EngineConfig, Role
from streaming.errors import StartupError
from streaming.permissions import Acl, acls_of
from streaming.roles import divided, must_fit

LOG = flights.training_log_topic
WHOLE = ["departures", "arrivals", LOG, flights.summaries_topic]
SERVING = ["departures", "arrivals"]
WATCHING = [LOG, flights.summaries_topic]


def config(role: Role) -> EngineConfig:
    return EngineConfig(bootstrap="nowhere:1", app_id="app", role=role)


@pytest.mark.parametrize(
    ("role", "main", "watching"),
    [
        ("all", [], []),
        ("all", [WHOLE, WHOLE], []),
        ("pair", [], []),
        ("pair", [SERVING, SERVING], [WATCHING, WATCHING]),
        ("serve", [], []),
        ("serve", [SERVING], [WATCHING]),
        ("watch", [], []),
        ("watch", [SERVING, SERVING], [WATCHING]),
    ],
)
def test_workers_that_divide_the_work_alike_join(role: Role, main: list[list[str]], watching: list[list[str]]) -> None:
    must_fit(config(role), divided(LOG, main, watching))


@pytest.mark.parametrize(
    ("role", "main", "watching", "others"),
    [
        ("all", [SERVING], [], 1),
        ("all", [], [WATCHING], 1),
        ("all", [SERVING, SERVING], [WATCHING], 3),
        ("pair", [WHOLE], [], 1),
        ("serve", [WHOLE], [], 1),
        ("watch", [WHOLE, WHOLE], [], 2),
    ],
)
def test_workers_that_divide_it_otherwise_are_refused(
    role: Role, main: list[list[str]], watching: list[list[str]], others: int
) -> None:
    with pytest.raises(StartupError, match=rf"HEADWATER_ROLE={role}, and {others} of role") as said:
        must_fit(config(role), divided(LOG, main, watching))
    assert "stop them first" in str(said.value)


def test_each_role_needs_the_rights_of_its_group_and_its_transactions_only() -> None:
    found = {role: {acl.name for acl in acls_of((), config(role))} for role in ("pair", "all", "serve", "watch")}
    assert found == {
        "pair": {"app", "app-watch", "app-events-", "app-log-"},
        "all": {"app", "app-events-", "app-log-"},
        "serve": {"app", "app-events-"},
        "watch": {"app-watch", "app-log-"},
    }
    assert Acl("group", "app-watch", "Read") in acls_of((), config("watch"))
