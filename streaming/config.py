"""What the engine needs to be told, in one frozen record; built by `app.settings`."""

from pathlib import Path
from typing import Literal

import msgspec

from streaming.security import Security

Guarantee = Literal["exactly_once", "at_least_once"]
Store = Literal["memory", "disk"]
Predictions = Literal["transactional", "immediate"]
Role = Literal["pair", "all", "serve", "watch"]
"""What of the work a worker does: predict and join labels, watch the training log and the data, or all of it.

A `pair` is two processes, of which one serves and one watches; what is asked of a worker of that role is of both.
"""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of the engine. Durations in seconds unless the name says otherwise."""

    bootstrap: str
    app_id: str
    role: Role = "all"
    guarantee: Guarantee = "exactly_once"
    predictions: Predictions = "transactional"
    checkpoint_interval: float = 0.5
    chunk: int = 500
    session_timeout: float = 10.0
    request_timeout: float = 30.0  # for an answer, for a checkpoint, and for something to come in a recovery
    max_ahead_ms: int = 86_400_000
    max_bytes: int = 1_000_000
    dead_letter_limit: float = 0.5
    settle: float = 5.0  # how long a producer may take to write records that belong together
    transaction_timeout_ms: int = 15_000
    replication_factor: int = 1
    partitions: int = 4
    create_topics: bool = True
    store: Store = "memory"
    store_cache_mb: int = 256
    data_dir: Path = Path(".headwater")
    security: Security = Security()

    @property
    def serves(self) -> bool:
        """Whether the worker takes events and labels."""
        return self.role != "watch"

    @property
    def watches(self) -> bool:
        """Whether it may own the training log's quality, drift and incidents, and the model's snapshots."""
        return self.role != "serve"

    @property
    def group(self) -> str:
        """A process's consumer group. Members of one read the same topics, so those that only watch have their own."""
        return self.watching_group if self.role == "watch" else self.app_id

    @property
    def groups(self) -> tuple[str, ...]:
        """The consumer groups of all processes of a worker."""
        return (self.app_id, self.watching_group) if self.role == "pair" else (self.group,)

    @property
    def watching_group(self) -> str:
        """The consumer group of workers that only watch."""
        return f"{self.app_id}-watch"
