"""The reader of pickles: River's detectors get in, nothing that runs does."""

import collections
import datetime
import functools
import os
import pickle
import random
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from river import drift as river_drift
from river import linear_model, proba
from river import stats as river_stats

from learning import pickles

drift: Any = river_drift  # River's constructors carry no types
stats: Any = river_stats
gaussian: Any = proba.Gaussian


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "detector",
    [
        drift.ADWIN(),
        drift.PageHinkley(),
        drift.KSWIN(seed=1),
        drift.DummyDriftDetector(),
        drift.NoDrift(),
        drift.binary.DDM(),
        drift.binary.EDDM(),
        drift.binary.FHDDM(),
        drift.binary.HDDMA(),
        drift.binary.HDDMW(),
    ],
    ids=lambda d: type(d).__name__,
)
def test_detector_continues_from_its_pickle(detector: Any) -> None:
    rng = random.Random(2)
    for _ in range(300):
        detector.update(rng.random() < 0.2)
    again = pickles.loads(pickle.dumps(detector))
    for i in range(300):
        value = rng.random() < 0.2 + 0.6 * (i > 100)
        detector.update(value)
        again.update(value)
        assert again.drift_detected == detector.drift_detected


@pytest.mark.parametrize(
    "bad",
    [
        pickle.dumps(Calls(os.system, "true")),
        pickle.dumps(Calls(subprocess.check_output, ["true"])),
        pickle.dumps(Calls(eval, "1")),
        b"cbuiltins\nexec\n(S'1'\ntR.",
        pickle.dumps(linear_model.LinearRegression()),
        b"criver.drift.kswin\nstats\n.",  # a module that a River module imports
        b"criver.drift.kswin\nstats.ks_2samp\n.",
        b"\x80\x04\x8c\x0briver.drift\x8c\x1akswin.collections.OrderedDict\x93.",  # protocol 4 walks along dots
        b"criver.drift.kswin\ncollections\n.",
        b"cbuiltins\ngetattr\n(cbuiltins\ndict\nS'fromkeys'\ntR.",
        b"cbuiltins\ngetattr\n(criver.drift.adwin\nADWIN\nS'clone'\ntR.",
        b"cbuiltins\ngetattr\n(criver.drift.adwin\nADWIN\n(tRS'__class__'\ntR.",
    ],
)
def test_pickle_that_names_anything_else_is_refused(bad: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        pickles.loads(bad)


@pytest.mark.parametrize("bad", [b"", b"\x80", b"no pickle", b"\x80\x05K"])
def test_bytes_that_are_no_pickle_are_refused_the_same_way(bad: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        pickles.loads(bad)


def test_plain_containers_get_in() -> None:
    value = {"a": [1, (2.0, None)], "b": collections.deque([b"x"], maxlen=3), "c": {1}}
    assert pickles.loads(pickle.dumps(value)) == value


def again(value: Any) -> Any:
    return pickles.loads(pickles.dumps(value), allow=pickles.models())


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -(2**80), 2.5, float("inf"), True, None, "text", b"bytes", (), ("a", (1,))]},
        {1, "a", (2, "b")},
        frozenset({1, 2}),
        bytearray(b"xyz"),
        complex(1, 2),
        range(1, 9, 2),
        slice(1, None),
        collections.OrderedDict(a=1),
        collections.Counter("abca"),
        collections.deque([1, 2], maxlen=2),
        datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.UTC),
        datetime.timedelta(days=2),
        datetime.date(2024, 1, 2),
        np.float64(0.1),
        np.int32(7),
        np.bool_(True),
        np.str_("text"),
        float,
        linear_model.LinearRegression,
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_that_a_model_may_hold_gets_in(value: Any) -> None:
    for protocol in (4, 5):
        read = pickles.loads(pickle.dumps(value, protocol), allow=pickles.models())
        assert read == value
        assert type(read) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(12.0)[::2],
        np.zeros((0, 3), "i4"),
        np.array(["a", "bc"]),
        np.array([True, False]),
        np.arange(3, dtype=">i8"),
    ],
)
def test_array_gets_in(array: Any) -> None:
    for protocol in (4, 5):
        data = pickle.dumps(array, protocol)
        read, plain = pickles.loads(data, allow=pickles.models()), pickle.loads(data)
        assert (read.dtype, read.flags, read.strides) == (plain.dtype, plain.flags, plain.strides)
        assert read.tolist() == array.tolist()


def test_random_generators_go_on_where_they_were() -> None:
    ours, states, generators = random.Random(1), np.random.RandomState(2), np.random.default_rng(3)
    for _ in range(1000):
        ours.gauss(0, 1), states.normal(), generators.normal()
    read = again([ours, states, generators])
    assert [read[0].gauss(0, 1), read[0].random()] == [ours.gauss(0, 1), ours.random()]
    assert (read[1].normal(size=700) == states.normal(size=700)).all()
    assert (read[2].normal(size=700) == generators.normal(size=700)).all()


def test_factories_and_methods_get_in() -> None:
    chance = random.Random(1)
    read = again(
        {
            "factory": collections.defaultdict(functools.partial(stats.RollingMax, 3)),
            "method": chance.gauss,
            "its own": chance,
            "iterator": iter([1, 2, 3]),
        }
    )
    assert read["factory"]["new"].window_size == 3
    assert read["method"].__self__ is read["its own"]
    assert list(read["iterator"]) == [1, 2, 3]


def test_generators_that_no_model_uses_are_left_out() -> None:
    many = [gaussian() for _ in range(100)]
    for i, one in enumerate(many):
        one.update(i)
        one.update(i + 1)
    assert len(pickles.dumps(many)) < len(pickle.dumps(many)) / 10
    read = again(many)
    assert [one.mu for one in read] == [one.mu for one in many]
    assert isinstance(read[0].sample(), float)


def test_generator_of_a_seeded_gaussian_goes_on() -> None:
    one = gaussian(seed=1)
    one.update(1)
    one.update(3)
    one.sample()
    assert again(one).sample() == one.sample()
