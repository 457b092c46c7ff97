"""aiokafka clients as the engine wants them: one place for timeouts, sizes, isolation and security."""

from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streaming.config import EngineConfig
from streaming.fetching import tuned

MAX_BATCH_BYTES = 900_000  # below the broker's default message.max.bytes of 1,048,588
FETCH_MAX_WAIT_MS = 100  # that a broker keeps a fetch for which it has nothing
MAX_REQUEST_BYTES = 4_000_000  # a dead letter carries a record of any size that the broker accepted


def timeout_ms(config: EngineConfig) -> int:
    """How long a client waits for an answer."""
    return int(config.request_timeout * 1000)


def producer(
    config: EngineConfig, transactional_id: str | None = None, *, idempotent: bool = False
) -> AIOKafkaProducer:
    """A producer that waits for all replicas; transactional when an id is given. Idempotent: no retry writes twice."""
    extra: dict[str, Any] = {"enable_idempotence": idempotent}
    if transactional_id is not None:
        extra = {
            "transactional_id": transactional_id,
            "transaction_timeout_ms": config.transaction_timeout_ms,
            "enable_idempotence": True,
        }
    return AIOKafkaProducer(
        bootstrap_servers=config.bootstrap,
        acks="all",
        max_batch_size=MAX_BATCH_BYTES,
        max_request_size=MAX_REQUEST_BYTES,
        request_timeout_ms=timeout_ms(config),
        **extra,
        **config.security.options(),
    )


def consumer(config: EngineConfig, *topics: str, **extra: Any) -> AIOKafkaConsumer:
    """A consumer outside any group that sees committed records only."""
    options: dict[str, Any] = {
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": 4_000_000,
        "fetch_max_wait_ms": FETCH_MAX_WAIT_MS,
        "request_timeout_ms": timeout_ms(config),
        **extra,
    }
    return tuned(AIOKafkaConsumer(*topics, bootstrap_servers=config.bootstrap, **options, **config.security.options()))
