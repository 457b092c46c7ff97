"""The reader of pickles: River's detectors get in, nothing that runs does."""

import collections
import os
import pickle
import random
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from river import drift as river_drift
from river import linear_model

from learning import pickles

drift: Any = river_drift  # River's constructors carry no types


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
