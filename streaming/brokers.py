"""A local Apache Kafka: one node, loopback only, for the demo, for tests and for `headwater kafka up`.

Real Kafka, started from its jars (`streaming.jars`) under a keeper process (`streaming.keeper`) that ends it
with its owner. Not for production: one copy of the data, a heap of 192 MB, no retention by time.
"""

import base64
import contextlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from streaming import keeper
from streaming.jars import BrokerError, find_jars, find_java

__all__ = ["NODE_SETTINGS", "BrokerError", "LocalKafka", "answers", "free_port"]

HOST = "127.0.0.1"

# How one small node differs from Kafka's defaults, wherever it runs (here, or in a container of the tests).
NODE_SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # An unknown topic is an error to see, not a topic with one partition.
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # After a SIGKILL the node is taken back only when its old session has ended; the default is 9 s.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # With the default of 128 MB the cleaner does not fit into a small heap, and the broker does not start.
    "log.cleaner.dedupe.buffer.size": "4194304",
    "log.cleaner.io.buffer.size": "65536",
    # Two index files per partition are allocated in full where the file system knows no holes.
    "log.index.size.max.bytes": "1048576",
    # Data sets of years ago keep their own times; retention by time would delete them at once.
    "log.retention.ms": "-1",
}

JAVA_OPTIONS = (
    "-Xms64m",
    "-Xmx192m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":  # there the option would allow two listeners at once
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka itself does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def answers(host: str, port: int, timeout: float = 1.0) -> bool:
    """Whether a broker there processes requests: it accepts connections some time before it does.

    Asks ApiVersions version 0: key 18, version 0, correlation id, no client id.
    """
    request = struct.pack(">hhih", 18, 0, 7, -1)
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as reply:
                head = reply.read(10)  # size, correlation id, error code
    except OSError:
        return False
    return len(head) == 10 and struct.unpack(">iih", head)[1:] == (7, 0)


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment that Java gets: it needs none of our settings, and shows its environment when it crashes."""
    return {name: value for name, value in environment.items() if not name.upper().startswith("HEADWATER_")}


class LocalKafka:
    """A Kafka of one node in a folder of its own; it ends with this process, also when that is killed.

    Args:
        folder: where data, settings and log go. None: a temporary folder, removed by `stop`.
        port: of the listener; None for a free one (the one of the last time, where the folder has one).
        settings: more of Kafka's settings, or other values for those of `NODE_SETTINGS`.
        listeners: more listeners by name and port, on loopback; their security is for `settings` to say.
        formatting: more arguments for the one time that the data folder is formatted, as `--add-scram=...`.
        patience: seconds to wait for the start.
        cluster: id of the cluster that a new folder belongs to, 22 characters of base64; None for one of its own.

    As a context manager it starts and stops. `kill` and then `start` keeps data and port.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        listeners: Mapping[str, int] | None = None,
        formatting: Sequence[str] = (),
        patience: float = 90.0,
        cluster: str | None = None,
    ) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._folder = folder.absolute() if folder else None
        self._port = port
        self._controller_port: int | None = None
        self._settings = dict(settings or {})
        self._listeners = dict(listeners or {})
        self._formatting = list(formatting)
        self._patience = patience
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self.pid: int | None = None

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def bootstrap(self) -> str:
        """Address for clients, `host:port`."""
        if self._port is None:
            message = "this Kafka has not been started yet, so it has no port: call start() first"
            raise BrokerError(message)
        return f"{HOST}:{self._port}"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def folder(self) -> Path:
        """Where data, settings and log are."""
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="headwater-kafka-", ignore_cleanup_errors=True)
            self._folder = Path(self._temporary.name)
        return self._folder

    @property
    def log(self) -> Path:
        """What Kafka says: warnings and errors."""
        return self.folder / "kafka.log"

    def start(self) -> Self:
        """Start, or start again on the same data and port; return when the broker answers."""
        if self.running:
            message = f"this Kafka runs already, at {self.bootstrap}"
            raise BrokerError(message)
        java, jars = find_java(), find_jars()
        command = [str(java), *JAVA_OPTIONS, "-cp", _classpath(jars)]
        try:
            self._prepare(command)
            self._spawn([*command, "kafka.Kafka", str(self.folder / "server.properties")])
            self._await_answer()
        except OSError as error:
            self.kill()
            message = f"Kafka cannot be started in {self.folder}: {error}"
            raise BrokerError(message) from error
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, patience: float = 15.0) -> None:
        """End in good order, by force after PATIENCE seconds; remove the folder if it is temporary."""
        self._order(keeper.TERMINATE, patience)
        self.kill()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = self._folder = None

    def kill(self) -> None:
        """End at once, as SIGKILL or a power cut would; the data stays."""
        self._order(keeper.KILL, 10.0)
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._process.wait(10.0)
            self._process = self.pid = None

    def restart(self) -> Self:
        """Stop in good order and start again on the same data and port."""
        self._order(keeper.TERMINATE, 15.0)
        self.kill()
        return self.start()

    def _order(self, order: bytes, patience: float) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):  # it has ended by itself
            self._process.stdin.write(order)
            self._process.stdin.flush()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)

    def _prepare(self, command: list[str]) -> None:
        """Choose ports, write the settings, format the data folder once."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        self._choose_ports()
        others = [f"{name}://{HOST}:{port}" for name, port in self._listeners.items()]
        for_clients = ",".join([f"PLAINTEXT://{self.bootstrap}", *others])
        settings = {
            **NODE_SETTINGS,
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": f"{for_clients},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": for_clients,
            "log.dirs": data.as_posix(),
            **self._settings,
        }
        properties = self.folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), "utf-8")
        if (data / "meta.properties").exists():
            return
        cluster = self._cluster or base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # As one word: one id in 64 begins with a dash and would be taken for an option.
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--config", str(properties)]
        words, environment = [*command, *tool, *self._formatting], without_settings(os.environ)
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            message = f"Kafka's data folder {data} cannot be formatted:\n{(done.stdout + done.stderr)[-2000:]}"
            raise BrokerError(message)

    def _choose_ports(self) -> None:
        remembered = self.folder / "port"
        if self._port is None:
            with contextlib.suppress(OSError, ValueError):
                last = int(remembered.read_text("ascii"))
                self._port = last if _is_free(last) else None
        if self._port is None:
            self._port = free_port()
        elif not _is_free(self._port):
            message = (
                f"Port {self._port} on {HOST} is taken by another program, so Kafka cannot listen there. "
                "End that program or choose another port."
            )
            raise BrokerError(message)
        remembered.write_text(str(self._port), "ascii")
        self._controller_port = free_port()

    def _spawn(self, command: list[str]) -> None:
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the owner alone, which ends its broker last.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=without_settings(os.environ),
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.pid = int(line) if line else None

    def _await_answer(self) -> None:
        assert self._process is not None
        assert self._port is not None
        deadline = time.monotonic() + self._patience
        while not answers(HOST, self._port):
            if self._process.poll() is not None:
                message = f"Kafka ended while it was starting (status {self._process.returncode}).{self._said()}"
                raise BrokerError(message)
            if time.monotonic() > deadline:
                message = f"Kafka did not answer at {self.bootstrap} within {self._patience:.0f} s.{self._said()}"
                raise BrokerError(message)
            time.sleep(0.1)

    def _said(self) -> str:
        """The end of the log, for a message: the folder may be gone when somebody reads it."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join([f" Its last words ({self.log}):", *lines[-25:]])


def _classpath(jars: list[Path]) -> str:
    separator = ";" if sys.platform == "win32" else ":"
    return separator.join(map(str, jars))
