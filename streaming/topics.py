"""The topics of a pipeline: which there are (pure), creating the missing ones, and checking those that exist.

Used by `headwater topics`, `doctor`, `demo` and by the worker at its start.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError

from streaming import clients
from streaming.config import EngineConfig
from streaming.errors import StartupError
from streaming.security import refusal

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

log = logging.getLogger(__name__)

VISIBLE_TRIES = 150
ALREADY_EXISTS = 36
UNKNOWN_TOPIC = 3
NOT_PERMITTED = {29, 31}  # topic and cluster authorization failed
Right = Literal["Read", "Write"]  # each includes Describe
READ: tuple[Right, ...] = ("Read",)
WRITE: tuple[Right, ...] = ("Write",)
# Replayed records carry the time of their event, so by Kafka's default of seven days they would be gone at once.
UNCLEANED = {"cleanup.policy": "delete", "retention.ms": "-1"}
COMPACTED = {"cleanup.policy": "compact"}
A_WEEK = {"cleanup.policy": "delete", "retention.ms": "604800000"}
A_DAY = {"cleanup.policy": "delete", "retention.ms": "86400000"}
TRAINING_LOG = "the training log"
# A dead letter is a record that a broker has accepted plus headers, so it may be larger than the broker's usual limit.
DEAD_LETTERS = {"max.message.bytes": "4000000"}


class TopicSpec(msgspec.Struct, frozen=True):
    """A topic as it should be.

    Attributes:
        name: the topic's name.
        partitions: how many partitions it gets when it is created.
        config: topic configuration for its creation.
        as_events: whether it must have as many partitions as the events topic has.
        about: what is in it, for people.
        rights: what a worker does with it, by Kafka's names for it.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = {}
    as_events: bool = True
    about: str = ""
    rights: tuple[Right, ...] = ()


def topics_of(pipeline: "Pipeline", app_id: str, partitions: int) -> tuple[TopicSpec, ...]:
    """Every topic of a pipeline; the events topic is first and the labels topic second."""
    return (
        TopicSpec(pipeline.events.topic, partitions, UNCLEANED, about="events", rights=READ),
        TopicSpec(pipeline.labels.topic, partitions, UNCLEANED, about="labels", rights=READ),
        TopicSpec(pipeline.predictions_topic, partitions, about="predictions", rights=WRITE),
        TopicSpec(
            pipeline.dead_letters_topic,
            partitions,
            DEAD_LETTERS,
            about="records that could not be used",
            rights=WRITE,
        ),
        TopicSpec(pipeline.training_log_topic, 1, UNCLEANED, as_events=False, about=TRAINING_LOG, rights=READ + WRITE),
        TopicSpec(pipeline.drift_topic, 1, as_events=False, about="drift events", rights=WRITE),
        TopicSpec(
            pipeline.snapshots_topic, 1, COMPACTED, as_events=False, about="snapshots of the model", rights=READ + WRITE
        ),
        TopicSpec(
            pipeline.summaries_topic,
            1,
            A_WEEK,
            as_events=False,
            about="what went through each partition",
            rights=READ + WRITE,
        ),
        TopicSpec(pipeline.reports_topic, 1, A_DAY, as_events=False, about="how the pipeline is", rights=READ + WRITE),
        TopicSpec(
            pipeline.incidents_topic,
            1,
            COMPACTED,
            as_events=False,
            about="what somebody should look at",
            rights=READ + WRITE,
        ),
        TopicSpec(
            f"{app_id}-profiles-changelog", partitions, COMPACTED, about="state of profiles", rights=READ + WRITE
        ),
        TopicSpec(
            f"{app_id}-pending-changelog", partitions, COMPACTED, about="state of pending labels", rights=READ + WRITE
        ),
        TopicSpec(
            f"{app_id}-monitors-changelog",
            1,
            COMPACTED,
            as_events=False,
            about="state of monitors",
            rights=READ + WRITE,
        ),
    )


@asynccontextmanager
async def admin_client(config: EngineConfig) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client. Raises StartupError when the broker cannot be reached."""
    ask_ms = min(15_000, clients.timeout_ms(config))
    admin = AIOKafkaAdminClient(
        bootstrap_servers=config.bootstrap, request_timeout_ms=ask_ms, **config.security.options()
    )
    try:
        await admin.start()
    except (KafkaError, OSError) as error:
        await admin.close()
        said = await refusal(config)
        raise (StartupError(said) if said else unreachable(config, error)) from error
    try:
        yield admin
    except KafkaConnectionError as error:
        raise unreachable(config, error) from error
    finally:
        await admin.close()


def unreachable(config: EngineConfig, error: BaseException) -> StartupError:
    """The error for a broker that does not answer."""
    # That it could not be reached is all that aiokafka's message for it says, in a form for programmers.
    reason = "" if "Unable to bootstrap" in str(error) else f" ({error or type(error).__name__})"
    return StartupError(
        f"no Kafka broker answers at {config.bootstrap}{reason}. "
        "Start one (`headwater kafka up` runs a local one), or set HEADWATER_BROKER and, for a secured broker,"
        " HEADWATER_SECURITY_PROTOCOL, HEADWATER_SASL_* and HEADWATER_SSL_* (docs/security.md)."
    )


async def partition_counts(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """How many partitions each of the named topics has; topics that do not exist are left out."""
    wanted = set(names)
    # Describing a topic by name may create it (auto.create.topics.enable), so the broker's whole list comes first.
    existing = sorted(wanted & set(await admin.list_topics()))
    described: list[dict[str, Any]] = await admin.describe_topics(existing) if existing else []
    return {t["topic"]: len(t["partitions"]) for t in described if not t["error_code"]}


def problems(specs: Sequence[TopicSpec], counts: Mapping[str, int], unseen: Container[str] = frozenset()) -> list[str]:
    """What is wrong with the topics as they are, each with its remedy. Pure.

    Of those that are not to be seen nobody knows here whether they exist.

    >>> specs = [TopicSpec("events", 4), TopicSpec("labels", 4)]
    >>> problems(specs, {"events": 4, "labels": 4})
    []
    >>> problems(specs, {"events": 4, "labels": 3})[0].split(";")[0]
    'topic labels has 3 partitions, but its events topic events has 4'
    """
    found = [_absent(spec, seen=spec.name not in unseen) for spec in specs if spec.name not in counts]
    events = specs[0]
    for spec in specs:
        count = counts.get(spec.name)
        if count is None:
            continue
        if spec.as_events and events.name in counts and count != counts[events.name]:
            found.append(
                f"topic {spec.name} has {count} partitions, but its events topic {events.name} has"
                f" {counts[events.name]}; they must agree, so that an event, its label and its state meet in one"
                f" partition. Add partitions to the smaller, or delete {spec.name} and run `headwater topics create`"
            )
        elif not spec.as_events and count != spec.partitions:
            found.append(
                f"topic {spec.name} has {count} partitions, expected {spec.partitions}, because it is one ordered log;"
                " delete it, or choose another HEADWATER_APP_ID or pipeline name"
            )
    return found


def _absent(spec: TopicSpec, *, seen: bool) -> str:
    if seen:
        return f"topic {spec.name} ({spec.about}) does not exist; create it with `headwater topics create`"
    return f"topic {spec.name} ({spec.about}) is not to be seen: it does not exist, or this user may not describe it"


async def topic_configs(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The configuration of each topic that this user may see."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(asked):
        for code, _, _, name, entries in answer.resources:
            if not code:
                found[name] = {entry[0]: entry[1] for entry in entries}
    return found


def forgetful(specs: Sequence[TopicSpec], configs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Topics that state or models are made of and whose cleanup would remove some of it, each with the remedy. Pure.

    >>> specs = [TopicSpec("state", 4, COMPACTED)]
    >>> forgetful(specs, {"state": {"cleanup.policy": "compact"}})
    []
    >>> forgetful(specs, {"state": {"cleanup.policy": "compact,delete"}})[0].split(",")[0]
    'topic state has cleanup.policy=compact'
    """
    found = []
    for spec in specs:
        policy = configs.get(spec.name, {}).get("cleanup.policy")
        wanted = "compact" if spec.config == COMPACTED else "delete"
        if policy is None or policy == wanted or not (spec.config == COMPACTED or spec.about == TRAINING_LOG):
            continue
        found.append(
            f"topic {spec.name} has cleanup.policy={policy}, expected {wanted}: what its cleanup removes is lost to"
            f" {spec.about}. Set it with kafka-configs --alter --add-config cleanup.policy={wanted}"
        )
    return found


def expiring(specs: Sequence[TopicSpec], configs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Logs that lose their head after a while, each with what comes of it. Pure.

    >>> log = TopicSpec("log", 1, UNCLEANED, as_events=False, about=TRAINING_LOG)
    >>> expiring([log], {"log": {"retention.ms": "-1", "retention.bytes": "-1"}})
    []
    >>> expiring([log], {"log": {"retention.ms": "1000"}})[0].split(":")[0]
    'topic log has retention.ms=1000'
    """
    found = []
    for spec in specs:
        for name in ("retention.ms", "retention.bytes"):
            value = configs.get(spec.name, {}).get(name, "-1")
            if spec.about == TRAINING_LOG and value != "-1":
                found.append(
                    f"topic {spec.name} has {name}={value}: what it removes is in snapshots only, so models of before"
                    f" cannot be made again, and none at all once the snapshots are gone; set {name}=-1"
                )
    return found


async def check(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> int:
    """Check every topic. Returns the events topic's partition count. Raises StartupError with all problems."""
    counts = await partition_counts(admin, [spec.name for spec in specs])
    found = problems(specs, counts)
    if not found:
        configs = await topic_configs(admin, [spec.name for spec in specs])
        found = forgetful(specs, configs)
        for warning in expiring(specs, configs):
            log.warning(warning)
    if found:
        raise StartupError("\n".join(found))
    return counts[specs[0].name]


def missing_of(specs: Sequence[TopicSpec], counts: Mapping[str, int]) -> tuple[TopicSpec, ...]:
    """What is to be created, with as many partitions as the topics have that exist already. Pure."""
    partitions = counts.get(specs[0].name, counts.get(specs[1].name, specs[0].partitions))
    return tuple(
        msgspec.structs.replace(spec, partitions=partitions if spec.as_events else spec.partitions)
        for spec in specs
        if spec.name not in counts
    )


async def ensure(
    admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], replication_factor: int
) -> tuple[TopicSpec, ...]:
    """Create what is missing, then check everything. Returns the topics created.

    A user's events topic that exists already decides the number of partitions of all that follow it.
    """
    counts = await partition_counts(admin, [spec.name for spec in specs])
    missing = missing_of(specs, counts)
    if missing:
        response = await admin.create_topics(
            [NewTopic(s.name, s.partitions, replication_factor, topic_configs=dict(s.config)) for s in missing]
        )
        for name, code, *message in response.topic_errors:
            if code not in (0, ALREADY_EXISTS):
                raise _cannot_create(name, code, message[0] if message else None)
        counts |= await _visible(admin, missing)
    found = problems(specs, counts)
    if found:
        raise StartupError("\n".join(found))
    return missing


async def _visible(admin: AIOKafkaAdminClient, created: Sequence[TopicSpec]) -> dict[str, int]:
    """Wait until the cluster says that the new topics are there; it answers the creation before that."""
    names = [spec.name for spec in created]
    for _ in range(VISIBLE_TRIES):
        counts = await partition_counts(admin, names)
        if len(counts) == len(names):
            break
        await asyncio.sleep(0.1)
    return counts


def _cannot_create(name: str, code: int, message: str | None) -> StartupError:
    if code in NOT_PERMITTED:
        return StartupError(
            f"topic {name} does not exist and this user may not create it; have an operator create it"
            " (`headwater topics check` prints the commands)"
        )
    return StartupError(
        f"topic {name} could not be created: Kafka error {code} {message or ''}. Replication needs as many brokers as"
        " HEADWATER_REPLICATION_FACTOR says"
    )
