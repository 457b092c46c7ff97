"""A run whose commands are called as people call them, each in a process of its own."""

import itertools
import tempfile
from pathlib import Path
from subprocess import CompletedProcess

from tests.chaos.nursery import Nursery
from tests.chaos.run import Run


class Told(Run):
    """A run, and what calls commands for it."""

    def __init__(self, kafka: str, logs: Path) -> None:
        super().__init__(kafka, logs)
        self._caller, self._calls = Nursery(), itertools.count()
        self._said = tempfile.TemporaryDirectory()

    @property
    def environment(self) -> dict[str, str]:
        """HEADWATER_* variables of its commands."""
        return {
            "HEADWATER_BROKER": self.config.bootstrap,
            "HEADWATER_PIPELINE": "tests.integration.flights_run:pipeline",
            "HEADWATER_TEST_RUN": self.name,
        }

    def called(self, *arguments: str, **settings: str) -> "CompletedProcess[str]":
        """What a command comes to, with some more of the variables."""
        out = Path(self._said.name) / f"{next(self._calls)}.out"
        return self._caller.called({**self.environment, **settings}, out, *arguments)

    def end(self) -> None:
        """End all workers, and what calls commands."""
        super().end()
        self._caller.close()
        self._said.cleanup()
