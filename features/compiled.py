"""The choice between the hot loops in Python and the same loops compiled by numba, which is optional.

Both give the same bits (docs/decisions/0013-compiled.md). Nothing is compiled, and numba is not imported, before
`choose` is called; it is the process that chooses, once, at its start, since compiling takes seconds.

The loops are plain functions over NumPy arrays, each module of them complete in itself: numba's cache looks at nothing
but the file that a function is in.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

Mode = Literal["auto", "on", "off"]


class CompiledError(Exception):
    """Compiled loops were asked for and cannot be had; the message says why and what to do."""


class Choice(NamedTuple):
    """What runs in this process.

    Attributes:
        compiled: whether the hot loops are compiled.
        reason: why, for people.
    """

    compiled: bool
    reason: str


_INSTALL = "install Headwater's extra [fast], which is numba"
_state = {"choice": Choice(False, "not asked for")}
_cache: list[Path] = []


def chosen() -> Choice:
    """What was chosen."""
    return _state["choice"]


def choose(mode: Mode, parts: Sequence[Callable[[], None]], cache: Path) -> Choice:
    """Choose for this process.

    Args:
        mode: "on" raises where the loops cannot be compiled, "auto" goes on in Python, "off" does not try.
        parts: each compiles some loops and holds them against Python; raises `CompiledError` where they differ.
        cache: folder for compiled code, so that only the first process compiles. What lies there is executed, so one
            that others can write to is not used.
    """
    _state["choice"] = Choice(False, "switched off")
    if mode == "off":
        return chosen()
    _cache[:] = [cache]
    try:
        for part in parts:
            part()
    except Exception as error:
        reason = str(error) if isinstance(error, CompiledError) else f"{type(error).__name__}: {error}"
        if mode == "on":
            message = f"the hot loops cannot be compiled: {reason}"
            raise CompiledError(message) from error
        _state["choice"] = Choice(False, reason)
        return chosen()
    _state["choice"] = Choice(True, f"numba {version('numba')}, equal to Python's to the last bit")
    return chosen()


def available() -> bool:
    """Whether numba is installed; it is not imported."""
    try:
        version("numba")
    except PackageNotFoundError:
        return False
    return True


def jit(function: Callable[..., Any], signature: str) -> Any:
    """The function as machine code. Raises `CompiledError` where there is no numba.

    Without numba's `fastmath`, floating-point operations stay as they are written, one by one.
    """
    if not available():
        message = f"numba is not installed; {_INSTALL}"
        raise CompiledError(message)
    # Intel's vector library, where installed, would be used for powers in loops, and rounds otherwise than libm.
    os.environ.setdefault("NUMBA_DISABLE_INTEL_SVML", "1")
    import numba  # noqa: PLC0415  # optional, and it takes half a second

    before = numba.config.CACHE_DIR
    # numba tells versions of a file by its time and size, which a package manager may keep; its hash is surer.
    source = Path(function.__code__.co_filename)
    numba.config.CACHE_DIR = str(_folder() / hashlib.sha256(source.read_bytes()).hexdigest()[:16])
    try:
        return numba.njit(signature, cache=True, error_model="numpy", fastmath=False)(function)
    finally:
        numba.config.CACHE_DIR = before


def _folder() -> Path:
    """The cache folder; one for this process only where that cannot be used, or others could have written there."""
    folder = _cache[0]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK) and _is_ours(folder)
    except OSError:
        usable = False
    if not usable:
        _cache[0] = folder = Path(tempfile.mkdtemp(prefix="headwater-compiled-"))
    return folder


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can write there; what lies there is executed. Unknown, and so believed, without user ids."""
    found = folder.stat()
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
