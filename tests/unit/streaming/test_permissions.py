"""The rights of a worker follow from its topics, and so do the commands that grant them."""

import shlex

from pipelines.flights import flights
from streaming.config import EngineConfig
from streaming.permissions import Acl, Survey, acls_of, commands
from streaming.security import Security
from streaming.topics import topics_of

CONFIG = EngineConfig(bootstrap="k:1", app_id="app", security=Security(protocol="SASL_SSL", username="ann"))


def test_every_topic_of_a_pipeline_says_what_a_worker_does_with_it() -> None:
    """A topic that is added without its rights would be one that a worker is never allowed to use."""
    assert [spec.name for spec in topics_of(flights, "app", 4) if not spec.rights] == []


def test_every_right_is_of_a_topic_the_group_or_the_transactions() -> None:
    specs = topics_of(flights, "app", 4)
    found = acls_of(specs, CONFIG)
    assert len(set(found)) == len(found)
    assert {acl.name for acl in found if acl.resource == "topic"} == {spec.name for spec in specs}
    assert [acl for acl in found if acl.resource != "topic"] == [
        Acl("group", "app", "Read"),
        Acl("transactional-id", "app-events-", "Write", "prefixed"),
        Acl("transactional-id", "app-log-", "Write", "prefixed"),
    ]


def test_what_is_granted_needs_no_command_and_a_name_is_quoted() -> None:
    acls = {Acl("group", "app", "Read"): "granted", Acl("transactional-id", "app-log-", "Write", "prefixed"): "missing"}
    (line,) = commands(Survey((), frozenset(), acls), CONFIG, "User:CN=ann, O=a 'b'")  # type: ignore[arg-type]
    words = shlex.split(line)
    assert words[words.index("--allow-principal") + 1] == "User:CN=ann, O=a 'b'"
    assert words[-4:] == ["--transactional-id", "app-log-", "--resource-pattern-type", "prefixed"]
