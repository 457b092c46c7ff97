"""What tests need and a machine may lack."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]


def missing(reason: str) -> NoReturn:
    """Skip the test that needs something, or, with CI=true, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def of_prometheus(program: str) -> str:
    """The path of a program out of Debian's package `prometheus`."""
    found = shutil.which(program, path=os.pathsep.join([os.environ["PATH"], str(ROOT / "build" / "prometheus")]))
    if found is None:
        missing(f"no {program}; Debian's package `prometheus` has it, and .ci/run fetches it to build/prometheus")
    return found
