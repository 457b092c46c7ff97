"""Who of the workers that run does what. One that divides the work otherwise is refused.

A worker of role `all` and one of role `watch` would both own the training log, in groups that know nothing of each
other, and fence one another without end. Beside one of role `all`, one of role `serve` could be given the training log
by their group, and nobody would watch.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError

from streaming.config import EngineConfig
from streaming.errors import StartupError
from streaming.permissions import described_group


class Division(NamedTuple):
    """How many processes there are of each role; a pair is one that serves and one that watches."""

    all: int
    serve: int
    watch: int


async def division(admin: AIOKafkaAdminClient, config: EngineConfig, log_topic: str) -> Division:
    """Who runs for this application id. Of a group that may not be asked about, or is just changing, nobody."""
    main = await _subscriptions(admin, config.app_id)
    return divided(log_topic, main, await _subscriptions(admin, config.watching_group))


def divided(log_topic: str, main: Iterable[Sequence[str]], watching: Sequence[Sequence[str]]) -> Division:
    """The same, from the topics that each member of the two groups reads.

    >>> divided("log", [["events", "labels"], ["events", "labels"]], [["log"]])
    Division(all=0, serve=2, watch=1)
    """
    whole = [log_topic in topics for topics in main]
    return Division(whole.count(True), whole.count(False), len(watching))


def must_fit(config: EngineConfig, others: Division) -> None:
    """Raise StartupError where workers run that divide the work otherwise than this one's role.

    Where nothing is known of others, fencing keeps what is written right.
    """
    apart = others.serve + others.watch
    if config.role == "all" and apart:
        raise _another(config, apart, "`pair`, `serve` or `watch`", "HEADWATER_ROLE=pair, the default,")
    if config.role != "all" and others.all:
        raise _another(config, others.all, "`all`", "HEADWATER_ROLE=all")


def _another(config: EngineConfig, count: int, theirs: str, to_join: str) -> StartupError:
    return StartupError(
        f"this worker has HEADWATER_ROLE={config.role}, and {count} of role {theirs} run for the same application id"
        f" ({config.app_id}): who watches the training log would not be clear. Give this one {to_join} to join them, or"
        " stop them first; one that was killed counts until its session ends (HEADWATER_SESSION_TIMEOUT)"
    )


async def _subscriptions(admin: AIOKafkaAdminClient, group: str) -> list[Sequence[str]]:
    """The topics that each member of a group reads; none of one that is not there or may not be asked about."""
    try:
        code, members, _ = await described_group(admin, group)
    except KafkaError:
        return []
    return [_topics(metadata) for *_, metadata, _assignment in members if metadata] if code == 0 else []


def _topics(metadata: bytes) -> Sequence[str]:
    found: Sequence[str] = ConsumerProtocolMemberMetadata.decode(metadata).subscription
    return found
