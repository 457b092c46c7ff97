"""What a worker must be allowed to do, and what of it the broker says that it is not.

On a cluster with ACLs an operator grants these, and creates the topics; `headwater topics check` prints the commands.
Kafka is asked, not tried: a topic's and a group's description has what this client may do with it, and a transaction
that nobody has begun is refused for its number where the client is allowed, for the right where it is not.
"""

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.transaction import AddOffsetsToTxnRequest

from streaming import topics
from streaming.config import EngineConfig
from streaming.errors import StartupError
from streaming.requests import DescribeGroup, DescribeTopics
from streaming.topics import Right, TopicSpec

Resource = Literal["topic", "group", "transactional-id"]
State = Literal["granted", "missing", "unknown"]

OPERATIONS: Mapping[Right, int] = {"Read": 3, "Write": 4}  # Kafka's numbers, and so the bits of a description
DESCRIBE = 8
NOTHING_SAID = -(2**31)  # what a description has in place of the bits where the broker does not say
TOPIC_DENIED, GROUP_DENIED, TRANSACTION_DENIED = 29, 30, 53
UNKNOWN_TOPIC = 3
UNSUPPORTED = 35  # of the broker's version
NOT_NOW = {14, 15, 16}  # a coordinator is loading, not there yet, or another one by now
TRIES = 40
NOBODY = "User:YOUR-PRINCIPAL"


class Acl(msgspec.Struct, frozen=True):
    """One right of the worker's user.

    Attributes:
        resource: the kind of what it is about.
        name: its name, or how its names begin where the pattern is `prefixed`.
        operation: what is allowed; each includes Describe.
        pattern: how the name is meant.
    """

    resource: Resource
    name: str
    operation: Right
    pattern: Literal["literal", "prefixed"] = "literal"

    def __str__(self) -> str:
        named = "whose name begins with " if self.pattern == "prefixed" else ""
        return f"{self.operation} on {self.resource} {named}{self.name}"


class Survey(msgspec.Struct, frozen=True):
    """What the broker says.

    Attributes:
        topics: those that do not exist, or that this client may not see, with the partitions that they should have.
        unseen: names of those that it may not see, so that they may exist.
        acls: every right that a worker needs.
    """

    topics: Sequence[TopicSpec]
    unseen: frozenset[str]
    acls: Mapping[Acl, State]

    @property
    def lacking(self) -> list[Acl]:
        """The rights that the broker says are not granted."""
        return [acl for acl, state in self.acls.items() if state == "missing"]

    def problems(self) -> list[str]:
        """What is missing, each in a line."""
        return [f"missing ACL: {acl}" for acl in self.lacking]


def acls_of(specs: Sequence[TopicSpec], config: EngineConfig) -> tuple[Acl, ...]:
    """Every right that a worker needs, and no more. Pure.

    >>> config = EngineConfig(bootstrap="k:1", app_id="app", guarantee="at_least_once")
    >>> [str(acl) for acl in acls_of([TopicSpec("events", 4, rights=("Read",))], config)]
    ['Read on topic events', 'Read on group app']
    """
    found = [Acl("topic", spec.name, right) for spec in specs for right in spec.rights]
    found += [Acl("group", group, "Read") for group in config.groups]
    if config.guarantee == "exactly_once":
        units = [name for name, owned in (("events", config.serves), ("log", config.watches)) if owned]
        found += [Acl("transactional-id", f"{config.app_id}-{name}-", "Write", "prefixed") for name in units]
    return tuple(found)


def commands(survey: Survey, config: EngineConfig, principal: str | None) -> list[str]:
    """The commands of Kafka's own tools that make what is missing, for an operator to run. Pure.

    >>> config = EngineConfig(bootstrap="k:1", app_id="app")
    >>> found = Survey([TopicSpec("log", 1)], frozenset(), {Acl("topic", "log", "Read"): "unknown"})
    >>> create, allow = commands(found, config, "User:ann")
    >>> create
    'kafka-topics.sh --bootstrap-server k:1 --create --if-not-exists --topic log --partitions 1 --replication-factor 1'
    >>> allow
    'kafka-acls.sh --bootstrap-server k:1 --add --allow-principal User:ann --operation Read --topic log'
    """
    return [_create(spec, config) for spec in survey.topics] + [
        _allow(acl, config, principal or NOBODY) for acl, state in survey.acls.items() if state != "granted"
    ]


def _create(spec: TopicSpec, config: EngineConfig) -> str:
    words = [*_tool("kafka-topics.sh", config), "--create", "--if-not-exists", "--topic", spec.name]
    words += ["--partitions", str(spec.partitions), "--replication-factor", str(config.replication_factor)]
    for name, value in spec.config.items():
        words += ["--config", f"{name}={value}"]
    return shlex.join(words)


def _allow(acl: Acl, config: EngineConfig, principal: str) -> str:
    words = [*_tool("kafka-acls.sh", config), "--add", "--allow-principal", principal, "--operation", acl.operation]
    words += [f"--{acl.resource}", acl.name]
    if acl.pattern != "literal":
        words += ["--resource-pattern-type", acl.pattern]
    return shlex.join(words)


def _tool(name: str, config: EngineConfig) -> list[str]:
    words = [name, "--bootstrap-server", config.bootstrap]
    return words if config.security.protocol == "PLAINTEXT" else [*words, "--command-config", "admin.properties"]


async def survey(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], config: EngineConfig) -> Survey:
    """Ask the broker for topics and rights. Raises KafkaError when it goes away meanwhile."""
    described = await _topics(admin, [spec.name for spec in specs])
    counts = {name: count for name, (code, count, _) in described.items() if code == 0}
    unseen = frozenset(name for name, (code, _, _) in described.items() if code == TOPIC_DENIED)
    states: dict[Acl, State] = {}
    for acl in acls_of(specs, config):
        if acl.resource == "topic":
            code, _, bits = described.get(acl.name, (UNKNOWN_TOPIC, 0, NOTHING_SAID))
            states[acl] = "missing" if code == TOPIC_DENIED else _state(bits, acl.operation)
        elif acl.resource == "group":
            states[acl] = await _group(admin, acl)
        else:
            states[acl] = await _transactional_id(admin, acl, config)
    return Survey(topics.missing_of(specs, counts), unseen, states)


def must_be_granted(found: Survey, config: EngineConfig) -> None:
    """Raise StartupError with every right that is missing, and the commands that grant them."""
    if not found.lacking:
        return
    who = config.security.principal or "this client's user"
    lines = commands(
        Survey((), frozenset(), dict.fromkeys(found.lacking, "missing")), config, config.security.principal
    )
    raise StartupError(
        "\n".join(
            [
                f"{who} may not do what a worker does:",
                *found.problems(),
                "Have an operator run this, or `headwater topics check` for all of it:",
                *lines,
            ]
        )
    )


def _state(bits: int, operation: Right) -> State:
    """What a description says of one right.

    >>> _state(0b1_0000_1000, "Read"), _state(0b1_0000_1000, "Write"), _state(NOTHING_SAID, "Read"), _state(0, "Read")
    ('granted', 'missing', 'unknown', 'unknown')
    """
    if bits < 0 or not bits & (1 << DESCRIBE):  # it has just been described, so a broker without that bit says nothing
        return "unknown"
    return "granted" if bits & (1 << OPERATIONS[operation]) else "missing"


async def _topics(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Error code, partitions and rights of each topic; none is created by being asked for."""
    try:
        response: Any = await admin._send_request(DescribeTopics(names))
    except (IncompatibleBrokerVersion, NotImplementedError):  # a broker older than Kafka 2.3
        counts = await topics.partition_counts(admin, names)
        return {name: (0, count, NOTHING_SAID) for name, count in counts.items()}
    return {name: (code, len(parts), bits) for code, name, _internal, parts, bits in response.topics}


async def described_group(admin: AIOKafkaAdminClient, name: str) -> tuple[int, Sequence[Any], int]:
    """Error code, members as Kafka describes them, and rights of a group."""
    code, node = await _coordinator(admin, name, kind=0)
    if code != 0:
        return code, (), NOTHING_SAID
    try:
        response: Any = await admin._send_request(DescribeGroup(name), node)
    except (IncompatibleBrokerVersion, NotImplementedError):
        return UNSUPPORTED, (), NOTHING_SAID
    ((code, *_, members, bits),) = response.groups
    return code, members, bits


async def _group(admin: AIOKafkaAdminClient, acl: Acl) -> State:
    code, _, bits = await described_group(admin, acl.name)
    if code == GROUP_DENIED:
        return "missing"
    return _state(bits, acl.operation) if code == 0 else "unknown"


async def _transactional_id(admin: AIOKafkaAdminClient, acl: Acl, config: EngineConfig) -> State:
    """Ask with the id of partition 0 and the number of no producer: nothing is begun, and nobody is fenced."""
    name = f"{acl.name}0"
    code, node = await _coordinator(admin, name, kind=1)
    if code == 0:
        response: Any = await admin._send_request(AddOffsetsToTxnRequest(name, -1, -1, config.group), node)
        code = response.error_code
    if code == TRANSACTION_DENIED:
        return "missing"
    # Whatever else it has against it, it looked at the right first.
    return "unknown" if code in NOT_NOW else "granted"


async def _coordinator(admin: AIOKafkaAdminClient, key: str, *, kind: int) -> tuple[int, int]:
    """Error code and node of a group's (0) or a transactional id's (1) coordinator; the first on a cluster is slow."""
    for _ in range(TRIES):
        response: Any = await admin._send_request(FindCoordinatorRequest(key, kind))
        if response.error_code not in NOT_NOW:
            break
        await asyncio.sleep(0.25)
    return response.error_code, getattr(response, "coordinator_id", -1)
