"""Starts workers and commands by forking a process that has imported everything: that takes two seconds of a core else.

`python -m tests.chaos.nursery` is that process. It takes orders on its standard input, one JSON object a line, answers
with a process id, and leaves each exit code in a file. When its input ends, it ends its workers and itself.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Forked:
    """A worker, with as much of `subprocess.Popen` as is needed."""

    def __init__(self, pid: int, code: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._code = code

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None and self._code.exists():
            self.returncode = int(self._code.read_text("ascii"))
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """The exit code, when it has ended. Raises `subprocess.TimeoutExpired`."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return code

    def send_signal(self, what: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, what)

    def terminate(self) -> None:
        """Tell it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks, and its owner's end of it."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nursery"],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "120"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it has imported everything

    def start(self, environment: Mapping[str, str], log: Path, command: Sequence[str] = ()) -> Forked:
        """Start a worker, or `headwater` with this command, with these HEADWATER_* variables and no others.

        What a worker says goes into the log; what a command says on its standard error into another file beside it.
        """
        log.touch()
        code, errors = log.with_suffix(".code"), log.with_suffix(".errors") if command else log
        order = {"environment": dict(environment), "command": command}
        order |= {"log": str(log), "errors": str(errors), "code": str(code)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return Forked(int(self._process.stdout.readline()), code)

    def called(self, environment: Mapping[str, str], log: Path, *command: str) -> "subprocess.CompletedProcess[str]":
        """What a command comes to. Raises `subprocess.TimeoutExpired` after a minute."""
        code = self.start(environment, log, command).wait()
        return subprocess.CompletedProcess(command, code, log.read_text(), log.with_suffix(".errors").read_text())

    def close(self) -> None:
        """End all workers that still run."""
        self._process.communicate()


def main() -> None:
    """Fork a process for each order."""
    from app import cli
    from tests.chaos import worker

    alive: set[int] = set()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := _line():
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(order["environment"], order["log"], order["errors"])
            if order["command"]:
                cli.main(order["command"], prog_name="headwater")  # exits
            worker.main()
            os._exit(0)
        alive.add(pid)
        threading.Thread(target=_await, args=(pid, Path(order["code"]), alive), daemon=True).start()
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    for pid in alive.copy():
        os.kill(pid, signal.SIGKILL)


def _line() -> str:
    """One line of the orders, unbuffered: a child must not inherit what is meant for its parent."""
    data = b""
    while (byte := os.read(0, 1)) not in {b"", b"\n"}:
        data += byte
    return data.decode()


def _become(environment: Mapping[str, str], log: str, errors: str) -> None:
    """Be a process of one's own: its settings, and its output in its files."""
    for name in [name for name in os.environ if name.startswith("HEADWATER_")]:
        del os.environ[name]
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    err = out if errors == log else os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(number, target)


def _await(pid: int, code: Path, alive: set[int]) -> None:
    """Leave a worker's exit code, whole or not at all, when it has ended."""
    _, status = os.waitpid(pid, 0)
    alive.discard(pid)
    part = code.with_suffix(".part")
    part.write_text(str(os.waitstatus_to_exitcode(status)), "ascii")
    part.rename(code)


if __name__ == "__main__":
    main()
