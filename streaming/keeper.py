"""Runs one child process and ends it when the owner is gone, however the owner ended.

`streaming.brokers` starts this file by path, as a process of its own; it imports the standard library only.
The owner holds the other end of our stdin: the system closes it when the owner dies, also by SIGKILL.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

TERMINATE = b"t"
KILL = b"k"


def die_with_parent() -> None:
    """Ask Linux to kill this process with its parent: the case where the keeper itself is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, 9)


def obey(child: "subprocess.Popen[bytes]") -> None:
    """Carry out the owner's one-byte orders; the end of the pipe means that the owner is gone."""
    while order := os.read(0, 1):
        if order == TERMINATE:
            child.terminate()
        elif order == KILL:
            child.kill()
    child.kill()


def watch_parent(child: "subprocess.Popen[bytes]", parent: int) -> None:
    """End the child when we are handed to another parent.

    A process that the owner forked may hold the pipe open for longer than the owner lives.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    child.kill()


def main(command: list[str]) -> int:
    """Run COMMAND, say its process id on stdout, and return its exit status."""
    parent = os.getppid()
    preparation: Callable[[], None] | None = die_with_parent if sys.platform == "linux" else None
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=preparation,  # noqa: PLW1509  # no thread runs yet
    )
    signal.signal(signal.SIGTERM, lambda *_: child.kill())
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()
    threading.Thread(target=obey, args=(child,), daemon=True).start()
    threading.Thread(target=watch_parent, args=(child, parent), daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    # 128 + N is the shell's way to say "ended by signal N".
    status = main(sys.argv[1:])
    os._exit(status if status >= 0 else 128 - status)
