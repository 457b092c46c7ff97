"""What tests share: a real Kafka, from wherever one is to be had."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from features import compiled, proof
from learning import linear_compiled
from pipelines.flights import Departure, history
from streaming.brokers import NODE_SETTINGS, BrokerError, LocalKafka, answers, free_port
from tests.missing import missing

settings.register_profile("headwater", deadline=None)  # how long an example takes says nothing on a shared machine
settings.load_profile("headwater")

# What a worker says is the same with compiled loops, and loading them would cost each of the many that tests start a
# second.
os.environ.setdefault("HEADWATER_COMPILED", "off")

TESTS = Path(__file__).parent
IMAGE = "apache/kafka:4.3.1"
DEPARTURES = 20_000


# The files that take longest, so that none of them is left for the end, when there is nothing to do beside it.
LONGEST = (
    "integration/test_cli.py",
    "chaos/test_chaos.py",
    "integration/test_loop.py",
    "integration/test_control.py",
    "accuracy/test_published.py",
    "integration/test_recovery.py",
    "security/test_acls.py",
    "integration/test_explain_export.py",
    "house/test_readme.py",
    "security/test_listeners.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the broker is marked `kafka`, so that `-m "not kafka"` needs no diligence; the longest first."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka")
    places = {str(TESTS / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.path), len(LONGEST)))


def given_broker() -> str | None:
    """The broker that HEADWATER_TEST_BROKER names, if it answers."""
    bootstrap = os.environ.get("HEADWATER_TEST_BROKER")
    if not bootstrap:
        return None
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    if not host or not port.isdecimal() or not answers(host, int(port), timeout=10):
        message = f"no Kafka answers at HEADWATER_TEST_BROKER={bootstrap}: name a running one as host:port, or unset it"
        raise BrokerError(message)
    return bootstrap


def docker_answers() -> bool:
    """Whether a Docker engine is there; must be quick where there is none."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    question = [docker, "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(question, capture_output=True, timeout=5, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def docker_broker(stack: ExitStack) -> str:
    """Kafka in a container; it listens on the same port inside and outside, so that it can advertise it."""
    from testcontainers.core.container import DockerContainer

    port = free_port()
    settings = {
        **NODE_SETTINGS,
        "controller.quorum.voters": "1@localhost:9093",
        "listeners": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://localhost:{port}",
    }
    container = DockerContainer(IMAGE).with_bind_ports(port, port)
    for name, value in settings.items():
        container = container.with_env("KAFKA_" + name.replace(".", "_").upper(), value)
    stack.enter_context(container)
    for _ in range(120):
        if answers("localhost", port):
            return f"localhost:{port}"
    message = f"the container of {IMAGE} did not answer on port {port} within 120 s"
    raise BrokerError(message)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Kafka for the whole session; tests keep apart by names of topics.

    The one HEADWATER_TEST_BROKER names, else one in Docker, else a local one.
    Without any the test is skipped, with CI=true it fails.
    """
    with ExitStack() as stack:
        try:
            bootstrap = given_broker()
            if bootstrap is None and docker_answers():
                bootstrap = docker_broker(stack)
            if bootstrap is None:
                bootstrap = stack.enter_context(LocalKafka(tmp_path_factory.mktemp("kafka"))).bootstrap
        except BrokerError as error:
            missing(f"no Kafka for tests: {error}")
        yield bootstrap


@pytest.fixture(scope="session")
def year() -> list[Any]:
    """The first 20,000 departures, and the arrivals that come within a day after the last of them, in time order."""
    departed: set[str] = set()
    items: list[Any] = []
    for item in history():
        if isinstance(item, Departure):
            if len(departed) < DEPARTURES:
                departed.add(item.flight_id)
                items.append(item)
        elif item.flight_id in departed:
            items.append(item)
        if len(items) >= 2 * DEPARTURES - 200 and len(departed) == DEPARTURES:
            break
    return items


# Beside the packages, so that they are compiled once for each environment; in it by their source, so never stale.
COMPILED = Path(sys.prefix) / "compiled"


@pytest.fixture(scope="session")
def compiled_loops() -> None:
    """Compiled and proven once. Without numba whoever asks is skipped, with CI=true it fails."""
    if not compiled.available() and os.environ.get("CI") != "true":
        pytest.skip("numba is not installed")
    compiled.choose("on", [linear_compiled.prove, proof.prove], COMPILED)


@pytest.fixture(params=["python", "compiled"])
def loops(request: pytest.FixtureRequest) -> Iterator[str]:
    """The hot loops in Python, then compiled."""
    compiled.choose("off", [], COMPILED)
    if request.param == "compiled":
        request.getfixturevalue("compiled_loops")
        compiled.choose("on", [], COMPILED)
    yield request.param
    compiled.choose("off", [], COMPILED)
