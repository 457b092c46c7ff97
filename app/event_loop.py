"""The event loop of this process: uvloop's where it is installed and wanted, else asyncio's own."""

import asyncio
import importlib.util
from typing import Literal

from streaming.errors import StartupError

Wanted = Literal["auto", "uvloop", "asyncio"]


def choose(wanted: Wanted) -> str:
    """Choose, before there is any loop; the choice in a line, for people.

    A prediction passes some twenty turns of the loop between two clients, and uvloop's cost less.

    Raises `StartupError` where uvloop is wanted and not to be had.
    """
    found = wanted != "asyncio" and importlib.util.find_spec("uvloop") is not None
    if not found and wanted == "uvloop":
        message = (
            "HEADWATER_EVENT_LOOP=uvloop needs uvloop, which is not installed: pip install 'headwater[fast]'"
            " (not on Windows), or set it to auto"
        )
        raise StartupError(message)
    if found:
        import uvloop  # noqa: PLC0415  # an extra

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    why = "wanted" if wanted != "auto" else "installed" if found else "the extra [fast] is not installed"
    return f"event loop: {'uvloop' if found else 'asyncio'} ({why})"
