"""A worker of any pipeline that is killed, or stopped, at a named step. Run as a process, like `headwater worker`.

HEADWATER_TEST_FAULT says at the how manieth time of which step, and optionally by which signal: `commit:after@3`,
`send:before@2:STOP`. The steps of a checkpoint are those that `streaming.checkpoint` and `streaming.engine` name.
"""

import itertools
import os
import signal
import sys

from app import worker
from app.settings import load_settings
from streaming.checkpoint import Step, no_step

CHECKPOINT = tuple(
    f"{step}:{when}" for step in ("cut", "begin", "send", "offsets", "commit") for when in ("before", "after")
)
"""The fault points of a checkpoint. Its steps 1 and 2 are one call without an await, and have one pair."""
RECOVERY = ("fence:before", "fence:after", "changelogs:after", "follow:after", "open:after")
"""Those of a recovery."""


def fault(said: str) -> Step:
    """The step hook that sends this process a signal where it is said."""
    name, _, rest = said.partition("@")
    times, _, how = rest.partition(":")
    if not name:
        return no_step
    what = signal.Signals[f"SIG{how or 'KILL'}"]
    left = itertools.count(int(times), -1)

    def step(at: str) -> None:
        if at == name and next(left) == 1:
            sys.stderr.write(f"{what.name} at {at}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), what)

    return step


def main() -> None:
    """Run the worker, as `headwater worker` does. Of a pair, the process ends that comes to its fault first."""
    worker.run(load_settings(), step=fault(os.environ.get("HEADWATER_TEST_FAULT", "")))


if __name__ == "__main__":
    main()
