"""Processes that the demo starts, and that must end with it however it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from streaming.brokers import free_port

__all__ = ["end_with", "free_port", "start", "stop"]

ROOT = Path(__file__).parent.parent
# The folder that the user is in may hold an `app` of its own, so it must not come first in sys.path, as -m has it.
PROGRAM = "import sys; sys.path.append(sys.argv.pop(1)); from app.cli import main; main(prog_name='headwater')"


def start(arguments: list[str], env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Start `headwater ARGUMENTS` in a session of its own, so that Ctrl-C reaches the demo alone."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, str(ROOT), *arguments],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: "subprocess.Popen[bytes]", patience: float = 10.0) -> None:
    """SIGTERM, then SIGKILL for whoever does not listen."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with(parent: int) -> None:
    """End this process when its parent is gone, also after the parent's SIGKILL."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
