"""What was done in one run of a scenario, and when; printed where something is wrong afterwards."""

import collections
import time
from typing import Any


class History:
    """Acts with their times, under the seed that chose them.

    The seed decides what is done next and how long is waited; where exactly that meets a worker is up to the machine.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.acts: list[tuple[float, str, dict[str, Any]]] = []
        self._began = time.monotonic()

    def note(self, act: str, **what: Any) -> None:
        """Something was done now."""
        self.acts.append((time.monotonic() - self._began, act, what))

    def counts(self) -> dict[str, int]:
        """How often each act was done."""
        return dict(collections.Counter(act for _, act, _ in self.acts))

    def __str__(self) -> str:
        """One line for the seed, and one for each act."""
        lines = [f"seed {self.seed}"]
        for at, act, what in self.acts:
            lines.append(f"{at:9.2f} s  {act} " + " ".join(f"{name}={value}" for name, value in what.items()))
        return "\n".join(lines)
