"""Law of snapshots, for many of River's models: one that was saved and loaded midway is the same to the last bit."""

import functools
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from learning import pickles, snapshots
from learning.backtest import backtest
from learning.learn import Learner
from learning.records import Example, LogRecord
from tests.laws.test_models import MODELS, build, stream


class Sharing(pickle._Unpickler):
    """Loads equal texts as one object, and sets of texts in their order.

    Whether two texts are one object, and which was added first, are no part of a model's state, yet a pickle tells it.
    """

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch}
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def _text(self) -> None:
        read: Any = pickle._Unpickler.dispatch[pickle.SHORT_BINUNICODE[0]]
        read(self)
        self.stack[-1] = sys.intern(self.stack[-1])

    dispatch[pickle.SHORT_BINUNICODE[0]] = _text

    def _set(self) -> None:
        values = self.pop_mark()
        texts = all(isinstance(value, str) for value in values)
        self.stack[-1].update(sorted(values) if texts else values)

    dispatch[pickle.ADDITEMS[0]] = _set


def state_of(learner: Learner) -> bytes:
    shared: Any = Sharing
    return pickles.dumps(shared(io.BytesIO(pickles.dumps(tuple(learner.state())))).load())


@functools.cache
def log_of(name: str) -> list[tuple[int, LogRecord]]:
    log: list[tuple[int, LogRecord]] = []
    backtest(build(name), stream(MODELS[name][0]), on_record=lambda o, r: log.append((o, r)))
    return log


@pytest.mark.parametrize("at", [0, 1, 300])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("default")  # River's own
def test_a_model_continues_from_its_snapshot_as_if_nothing_had_been(name: str, at: int) -> None:
    log = log_of(name)
    whole, before = Learner(build(name)), Learner(build(name))
    for offset, record in log[:at]:
        whole.apply(offset, record)
        before.apply(offset, record)
    manifest, chunks = snapshots.dump(before, build(name), created_ms=1, keys=[b"k"])
    after = snapshots.load(manifest, chunks, build(name), [b"k"])
    assert state_of(after) == state_of(whole)
    for offset, record in log[at:]:
        assert isinstance(record, Example)
        assert after.predict(record.features) == whole.predict(record.features)
        whole.apply(offset, record)
        after.apply(offset, record)
    assert state_of(after) == state_of(whole)
