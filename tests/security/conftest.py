"""The secured broker, once for all tests of this folder."""

from collections.abc import Iterator

import pytest

from streaming.jars import BrokerError
from tests.missing import missing
from tests.security.broker import SecuredKafka


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A local Kafka with every kind of listener and with ACLs. Skipped where none can be had, failed with CI=true."""
    broker = SecuredKafka(tmp_path_factory.mktemp("secured"))
    try:
        broker.kafka.start()
    except BrokerError as error:
        missing(f"no secured Kafka: {error}")
    yield broker
    broker.kafka.stop()
