"""The kinds of listeners and mechanisms that `test_listeners` leaves out, each with a whole worker: `make security`.

Not collected by `make test`: what differs from there is in aiokafka alone.
"""

import asyncio

import pytest

from tests.security.broker import SecuredKafka
from tests.security.runs import Done, assert_clean, worked

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]

KINDS = [
    ("SASL", "SCRAM-SHA-256"),
    ("SASL", "SCRAM-SHA-512"),
    ("TLS", "PLAIN"),
    ("SASLTLS", "PLAIN"),
    ("SASLTLS", "SCRAM-SHA-256"),
]


@pytest.fixture(scope="module")
def done(secured: SecuredKafka, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Done]:
    return asyncio.run(worked(secured, tmp_path_factory.mktemp("logs"), KINDS))


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_whole_worker_behind_a_listener(done: dict[tuple[str, str], Done], kind: tuple[str, str]) -> None:
    assert_clean(done[kind])
