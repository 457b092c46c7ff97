"""A cluster with ACLs: what `topics check` prints is what a worker needs, no less and no more."""

import asyncio
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from app.check import Checked, check
from app.worker import prepared
from streaming.errors import StartupError
from streaming.permissions import Acl
from tests.security.broker import USER, SecuredKafka
from tests.security.runs import LABELS, Guarded, flights

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def run(secured: SecuredKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A pipeline of which nothing is there yet, neither topics nor rights."""
    made = Guarded(secured, tmp_path_factory.mktemp("logs"), "SASLTLS", "SCRAM-SHA-256")
    yield made
    made.end()


def options(line: str) -> tuple[str, dict[str, list[str]]]:
    """The program of a command line, and its options with their values."""
    program, *words = shlex.split(line)
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word
            found.setdefault(name, [])
        else:
            found[name].append(word)
    return program, found


def acl_of(given: dict[str, list[str]]) -> Acl:
    """What a command of kafka-acls.sh grants."""
    (resource,) = {"--topic", "--group", "--transactional-id"} & given.keys()
    (operation,), (name,) = given["--operation"], given[resource]
    (pattern,) = given.get("--resource-pattern-type", ["literal"])
    return Acl(resource.removeprefix("--"), name, operation, pattern)  # type: ignore[arg-type]


async def obey(secured: SecuredKafka, lines: list[str]) -> list[Acl]:
    """Do what the printed commands do, to the letter, as the operator; the rights that they granted."""
    made, granted = [], []
    for program, given in map(options, lines):
        assert given.pop("--command-config") == ["admin.properties"]
        if program == "kafka-topics.sh":
            config = dict(pair.split("=", 1) for pair in given.get("--config", []))
            counts = [int(given[name][0]) for name in ("--partitions", "--replication-factor")]
            made.append(NewTopic(given["--topic"][0], *counts, topic_configs=config))
        else:
            assert program == "kafka-acls.sh"
            assert given["--allow-principal"] == [f"User:{USER}"]
            granted.append(acl_of(given))
    admin = AIOKafkaAdminClient(bootstrap_servers=secured.kafka.bootstrap)
    await admin.start()
    await admin.create_topics(made)
    await admin.close()
    await secured.allow(f"User:{USER}", *granted)
    return granted


def test_worker_does_all_its_work_with_what_topics_check_prints(run: Guarded, secured: SecuredKafka) -> None:
    """From nothing at all: topics, rights, then events, drift, dead letters, snapshots, a restart and a rebalance."""
    refused = run.headwater("topics", "check")
    assert refused.exit_code == 1
    lines = [line for line in refused.stderr.splitlines() if line.startswith("kafka-")]
    report = json.loads(run.headwater("topics", "check", "--json").stdout)
    assert report["commands"] == lines
    assert len(report["missing_topics"]) == len(run.specs) == len([line for line in lines if "--create" in line])
    asyncio.run(at_work(run, secured, lines))


async def at_work(run: Guarded, secured: SecuredKafka, lines: list[str]) -> None:
    assert sorted(map(str, await obey(secured, lines))) == sorted(map(str, run.acls))
    assert (await look(run)).problems == []
    items = flights()
    half = len(items) // 2
    events = [sum(not hasattr(item, "arrived_at") for item in part) for part in (items[:half], items)]
    labels = [half - events[0], LABELS]
    run.start()
    await run.works(items[:half], events[0], labels[0])
    await run.saved(0)
    run.workers[0].terminate()
    code, said = await run.finished(0)
    assert code == 0, said
    run.start()
    run.start()  # joins while the other one works
    await run.write(run.pipeline.events.topic, b"no JSON")
    await run.works(items[half:], events[1], labels[1])
    for topic in (run.pipeline.dead_letters_topic, run.pipeline.drift_topic, run.pipeline.snapshots_topic):
        await run.there(topic)
    run.workers[2].terminate()
    code, said = await run.finished(2)
    assert code == 0, said
    assert "starts from a snapshot" in run.log(1).read_text()
    await loses_a_right(run, secured)
    for number in (1, 2):
        said = run.log(number).read_text().partition("Error: ")[0]
        assert "was not saved" not in said


async def loses_a_right(run: Guarded, secured: SecuredKafka) -> None:
    """The worker that is left ends, also where it is Faust's own consumer that is refused, and says what for.

    At once where it is fetching. Where it still takes over the other one's units it may be asking for the topic's end,
    which a client asks again and again until HEADWATER_REQUEST_TIMEOUT has passed.
    """
    acl = Acl("topic", run.pipeline.events.topic, "Read")
    await secured.forbid(run.principal, acl)
    try:
        await run.write(run.pipeline.events.topic, b"no JSON")
        code, said = await run.finished(1, run.config.request_timeout + 30.0)
    finally:
        await secured.allow(run.principal, acl)
    assert code == 70, said
    assert f"missing ACL: {acl}" in said.rpartition("Error: ")[2]


async def look(run: Guarded) -> Checked:
    return await check(run.pipeline, run.client(), None)


def test_right_that_is_taken_away_is_named_and_no_other(run: Guarded, secured: SecuredKafka) -> None:
    """By `topics check`, and by a worker that does not start."""

    async def each() -> None:
        for acl in run.acls:
            await secured.forbid(run.principal, acl)
            checked = await look(run)
            assert checked.survey.lacking == [acl]
            assert f"missing ACL: {acl}" in checked.problems
            (command,) = [line for line in checked.commands if line.startswith("kafka-acls.sh")]
            assert acl_of(options(command)[1]) == acl
            with pytest.raises(StartupError) as caught:
                await prepared(run.pipeline, run.client())
            assert f"missing ACL: {acl}\n" in str(caught.value)
            assert command in str(caught.value)
            assert str(caught.value).count("missing ACL") == 1
            await secured.allow(run.principal, acl)
        assert set((await look(run)).survey.acls.values()) == {"granted"}

    asyncio.run(each())


def test_worker_and_doctor_name_a_right_that_is_missing(run: Guarded, secured: SecuredKafka) -> None:
    acl = Acl("group", run.config.app_id, "Read")
    asyncio.run(secured.forbid(run.principal, acl))
    worker, doctor = run.headwater("worker"), run.headwater("doctor")
    asyncio.run(secured.allow(run.principal, acl))
    assert (worker.exit_code, doctor.exit_code) == (1, 1)
    assert f"missing ACL: {acl}" in worker.stderr
    assert f"missing ACL: {acl}" in doctor.stdout


def test_topic_that_is_missing_is_not_tried_to_be_created(secured: SecuredKafka, tmp_path: Path) -> None:
    """With HEADWATER_CREATE_TOPICS=false, also where it would be allowed."""
    other = Guarded(secured, tmp_path, "TLS")  # a super user
    with pytest.raises(StartupError, match=r"does not exist; create it with `headwater topics create`"):
        asyncio.run(prepared(other.pipeline, other.client()))
    assert len(asyncio.run(look(other)).survey.topics) == len(other.specs)
