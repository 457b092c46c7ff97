"""What recovery refuses to believe, without a broker."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import GroupLoadInProgressError, KafkaError

from streaming import recovery
from streaming.config import EngineConfig
from streaming.errors import EngineError

TPS = [TopicPartition("events", 0), TopicPartition("events", 1)]
LOADING = SimpleNamespace(error_code=14, topics=[])
LOADED = SimpleNamespace(error_code=0, topics=[("events", [(0, 41, "", 0), (1, -1, "", 0)])])


class Coordinator:
    """An admin client whose group coordinator gives these answers, one after the other, and then the last again."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def find_coordinator(self, group: str) -> int:
        return 1

    async def _send_request(self, request: Any, node: int) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def asked(*answers: Any, patience: float = 30.0) -> dict[TopicPartition, int]:
    config = EngineConfig(bootstrap="nowhere:1", app_id="g", request_timeout=patience)
    coordinator: Any = Coordinator(*answers)
    return asyncio.run(recovery._patiently(config, coordinator, TPS))


def test_a_coordinator_that_is_still_loading_is_not_a_group_without_offsets() -> None:
    """After a broker's restart it answers with an empty list and an error that aiokafka passes over."""
    assert asked(LOADING, LOADING, LOADED) == {TPS[0]: 41}
    with pytest.raises(GroupLoadInProgressError):
        asyncio.run(recovery.stored_offsets(Coordinator(LOADING), "g", TPS))


def test_a_coordinator_that_never_has_loaded_ends_the_worker() -> None:
    with pytest.raises(EngineError, match="committed offsets of group g cannot be read: GroupLoadInProgressError"):
        asked(LOADING, patience=0.3)


@pytest.mark.parametrize(
    "answer",
    [
        SimpleNamespace(error_code=0, topics=[("events", [(0, 41, "", 0)])]),
        SimpleNamespace(error_code=0, topics=[("events", [(0, 41, "", 0), (1, -1, "", 3)])]),
    ],
)
def test_an_answer_about_some_partitions_only_is_none(answer: Any) -> None:
    with pytest.raises((KafkaError, EngineError)):
        asked(answer, patience=0.1)


def test_a_changelog_without_its_head_is_refused_by_name() -> None:
    recovery.refuse_without_head(dict.fromkeys(TPS, 0))
    with pytest.raises(EngineError, match=r"events-1 at offset 7, expected 0.*cleanup\.policy=compact"):
        recovery.refuse_without_head({TPS[0]: 0, TPS[1]: 7})


def test_the_collector_comes_back_after_a_recovery_that_failed() -> None:
    """And stays away where it was away before."""

    def fail() -> None:
        with recovery.no_collector():
            assert not gc.isenabled()
            message = "a broker went away"
            raise EngineError(message)

    assert gc.isenabled()
    with pytest.raises(EngineError):
        fail()
    assert gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(EngineError):
            fail()
        assert not gc.isenabled()
    finally:
        gc.enable()
