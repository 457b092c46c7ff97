"""What `headwater relearn --last` finds in the log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app import control, replay
from learning.learn import Learner
from learning.negatives import is_kept
from learning.records import Example
from tests.doubles import TinyFeatures, tiny_pipeline
from tests.integration.test_explain_export import Paper

SHARE = 0.25


def example(number: int, *, vectors: bool) -> Example:
    """One in five is True; negatives have a vector if they are kept, or all have."""
    name, outcome = f"e{number}", number % 5 == 0
    kept = vectors or outcome or is_kept(name, SHARE)
    vector = [1.0, float(number)] if kept else []
    return Example(name, "k", 0, 1, 0.5, 0, vector, TinyFeatures.schema, outcome, "label", kept)


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_the_newest_examples_are_so_many_that_are_learned(
    n: int, vectors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negatives that are left out do not count, or the new model would learn a fraction of what was asked for."""
    pipeline = tiny_pipeline(negatives=SHARE, training_log_topic="log")
    log = [example(number, vectors=vectors) for number in range(300)]

    @asynccontextmanager
    async def opened(*_: Any) -> AsyncIterator[Paper]:
        yield Paper(*log)

    monkeypatch.setattr(replay, "opened", opened)
    since = asyncio.run(control.newest(pipeline, None, n))  # type: ignore[arg-type]  # nothing is connected to
    learner = Learner(pipeline)
    for offset, record in enumerate(log[since:], since):
        learner.apply(offset, record)
    assert learner.examples == n
