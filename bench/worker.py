"""Workers as processes of their own, on a broker that is given, and what they say of themselves."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from app.children import free_port
from app.metrics import parse

ROOT = Path(__file__).parent.parent
PATIENCE = 300.0  # seconds for whatever is waited for
SAID = 2_000  # characters of a worker's log that an error shows


def samples(port: int) -> Mapping[str, float]:
    """The metrics of the worker at this port; empty where it does not answer yet."""
    try:
        return parse(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
    except OSError:
        return {}


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def behind(found: Mapping[str, float]) -> bool:
    """Whether there is something that a worker of these metrics has not done; yes, where it has not said."""
    lags = [value for name, value in found.items() if name.startswith("consumer_lag") or name == "model_lag"]
    return not lags or any(lags)


class Worker:
    """A worker, from when it is made on. As a context, ended in good order with it.

    It is one process unless told otherwise, so that what it takes is of everything that it does.

    Args:
        bootstrap: the broker.
        pipeline: as HEADWATER_PIPELINE has it.
        module: what runs it when it is told `worker`.
        settings: others by their names in lower case, without the prefix.
    """

    def __init__(self, bootstrap: str, pipeline: str, module: str = "app.cli", /, **settings: object) -> None:
        self.port = free_port()
        self.started = time.monotonic()
        self._log = tempfile.NamedTemporaryFile(prefix="headwater-worker-", suffix=".log")  # noqa: SIM115  # until `end`
        given = {"broker": bootstrap, "pipeline": pipeline, "web_port": self.port, "log_level": "WARNING"}
        given |= {"role": "all"} | settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "worker"],
            env={**os.environ, **{f"HEADWATER_{name.upper()}": str(value) for name, value in given.items()}},
            cwd=ROOT,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.end()

    def samples(self) -> Mapping[str, float]:
        """Its metrics. Raises RuntimeError with its last words where it has ended."""
        if self.process.poll() is not None:
            message = f"the worker ended with code {self.process.returncode}: {self.said()}"
            raise RuntimeError(message)
        return samples(self.port)

    def cpu(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(self.cpus())

    def cpus(self) -> tuple[float, float]:
        """CPU seconds so far of the process that predicts, and of the one that watches beside it, if one does."""
        pid = self.process.pid
        return cpu_seconds(pid), sum(map(cpu_seconds, children(pid)))

    def wait(
        self, what: str, reached: Callable[[Mapping[str, float]], bool], every: float = 0.02
    ) -> Mapping[str, float]:
        """Its metrics, as soon as they say so. Raises TimeoutError."""
        until = time.monotonic() + PATIENCE
        while not reached(found := self.samples()):
            if time.monotonic() > until:
                message = f"waited {PATIENCE:.0f} s for a worker until {what}; it says {dict(found)}: {self.said()}"
                raise TimeoutError(message)
            time.sleep(every)
        return found

    def ready(self) -> None:
        """Return when it predicts."""
        self.wait("it is ready", lambda found: any(found.get(name) for name in found if name.startswith("ready")))

    def said(self) -> str:
        """The end of its log."""
        return Path(self._log.name).read_text("utf-8", "replace")[-SAID:]

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """End it in good order; nothing where it has ended."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()
