"""Workers that divide the work otherwise than those that run are refused.

A worker of role `all` and one of role `watch` would both own the training log, in groups that know nothing of each
other, and fence one another without end. Beside one of role `all`, one of role `serve` could be given the training log
by their group, and nobody would watch.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError

from streaming.config import EngineConfig
from streaming.errors import StartupError
from streaming.requests import DescribeGroup


async def must_fit(admin: AIOKafkaAdminClient, config: EngineConfig, log_topic: str) -> None:
    """Raise StartupError where workers run that divide the work otherwise.

    A group that cannot be asked, or that is just changing, says nothing. Then fencing keeps what is written right.
    """
    serving = await _subscriptions(admin, config.app_id)
    watching = await _subscriptions(admin, config.watching_group)
    refuse_others(config, log_topic, serving, watching)


def refuse_others(
    config: EngineConfig, log_topic: str, serving: Iterable[Sequence[str]], watching: Sequence[Sequence[str]]
) -> None:
    """Raise StartupError where members of the two groups, by the topics they read, do not fit this worker's role."""
    reads = [log_topic in topics for topics in serving]
    whole, apart = reads.count(True), reads.count(False) + len(watching)
    if config.role == "all" and apart:
        raise _another(config, apart, "`serve` or `watch`", "HEADWATER_ROLE=serve or HEADWATER_ROLE=watch")
    if config.role != "all" and whole:
        raise _another(config, whole, "`all`", "HEADWATER_ROLE=all, the default,")


def _another(config: EngineConfig, count: int, theirs: str, to_join: str) -> StartupError:
    return StartupError(
        f"this worker has HEADWATER_ROLE={config.role}, and {count} of role {theirs} run for the same application id"
        f" ({config.app_id}): who watches the training log would not be clear. Give this one {to_join} to join them, or"
        " stop them first; one that was killed counts until its session ends (HEADWATER_SESSION_TIMEOUT)"
    )


async def _subscriptions(admin: AIOKafkaAdminClient, group: str) -> list[Sequence[str]]:
    """The topics that each member of a group reads; none of one that is not there or may not be asked about."""
    try:
        node = await admin.find_coordinator(group)
        response: Any = await admin._send_request(DescribeGroup(group), node)
    except (KafkaError, NotImplementedError):
        return []
    ((code, *_, members, _bits),) = response.groups
    return [_topics(metadata) for *_, metadata, _assignment in members if metadata] if code == 0 else []


def _topics(metadata: bytes) -> Sequence[str]:
    found: Sequence[str] = ConsumerProtocolMemberMetadata.decode(metadata).subscription
    return found
