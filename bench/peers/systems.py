"""Who is measured, what each promises, and how to start one run of it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.peers.work import Order
from streaming.config import Role

ROOT = Path(__file__).parents[2]
OURS, THEIRS = sys.executable, str(ROOT / ".venv-peers" / "bin" / "python")
PATIENCE = 900.0


class System(NamedTuple):
    """One row of the table.

    Attributes:
        name: its short name, for `ONLY`.
        label: its name in the table.
        promise: what it promises, in a few words.
        module: what runs it.
        share: share of the events that it gets, since the slow would take minutes otherwise.
        guarantee: what it is told to promise, in its own words.
        compiled: HEADWATER_COMPILED.
        role: HEADWATER_ROLE of the worker that is measured; where it only serves, nobody watches here.
    """

    name: str
    label: str
    promise: str
    module: str
    share: float
    guarantee: str = ""
    compiled: str = "auto"
    role: Role = "all"

    @property
    def is_headwater(self) -> bool:
        """Whether it is Headwater itself."""
        return self.module == "headwater"

    @property
    def is_floor(self) -> bool:
        """Whether it only reads and writes what Headwater does."""
        return self.module == "floor"

    @property
    def is_ours(self) -> bool:
        """Whether it works on Headwater's topics, with what is installed for it."""
        return self.is_headwater or self.is_floor

    @property
    def needs_kafka(self) -> bool:
        """Whether it reads from Kafka."""
        return self.module != "file"


EXACTLY = "state, predictions and learning exactly once"
SYSTEMS = (
    System("headwater", "Headwater", EXACTLY, "headwater", 1.0, "exactly_once"),
    System("headwater-apart", "Headwater, watched apart", EXACTLY, "headwater", 1.0, "exactly_once", role="serve"),
    System("headwater-alo", "Headwater, at least once", "all at least once", "headwater", 1.0, "at_least_once"),
    System("headwater-python", "Headwater, not compiled", EXACTLY, "headwater", 0.5, "exactly_once", "off"),
    System("floor", "Headwater's records alone", "exactly once, and nothing computed", "floor", 1.0),
    System("faust", "Faust with tables", "state at least once, no model", "stock_faust", 0.06),
    System("quix", "Quix Streams, at least once", "state at least once, no model", "quix", 0.3, "at-least-once"),
    System(
        "quix-eos",
        "Quix Streams, exactly once",
        "state and predictions exactly once, no model",
        "quix",
        0.3,
        "exactly-once",
    ),
    System("bytewax", "Bytewax with recovery", "state at least once, no model", "bytewax_flow", 0.6),
    System("aiokafka", "bare aiokafka loop", "nothing", "aiokafka_loop", 0.6),
    System("file", "bare loop over a file", "nothing, and no Kafka", "file", 0.6),
)


class Run(msgspec.Struct, frozen=True):
    """What a run says in its last line.

    Attributes:
        events: events done.
        lessons: examples learned.
        timed: events after the warm-up.
        cpu_s: CPU seconds of the process, with threads and children, after the warm-up.
        wall_s: seconds after the warm-up.
    """

    events: int
    lessons: int
    timed: int
    cpu_s: float
    wall_s: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.timed / self.wall_s

    @property
    def cpu(self) -> float:
        """CPU seconds per 100,000 events."""
        return self.cpu_s / self.timed * 100_000


def run(system: System, told: Order) -> Run:
    """One run in a process of its own. Raises RuntimeError with what it said where it failed or did not do all."""
    python = OURS if system.is_ours else THEIRS
    arguments = [f"--{name}={value}" for name, value in told._asdict().items()]
    command = [python, "-m", f"bench.peers.{system.module}", *arguments]
    environment = {**os.environ, "HEADWATER_COMPILED": system.compiled, "HEADWATER_ROLE": system.role}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        message = f"{system.label} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        raise RuntimeError(message)
    found = msgspec.json.decode(lines[-1], type=Run, strict=False)
    if (found.events, found.lessons) != (told.events, told.lessons):
        message = (
            f"{system.label} did {found.events:,} events and {found.lessons:,} lessons,"
            f" expected {told.events:,} and {told.lessons:,}"
        )
        raise RuntimeError(message)
    return found
