"""Real brokers in the shapes that the scenarios need: one whose every worker has a proxy, and a cluster of three."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from streaming.brokers import HOST, BrokerError, LocalKafka, free_port
from tests.chaos.proxy import Proxy

CLUSTER = "chaos-chaos-chaos-chaQ"  # 22 characters of base64, as Kafka wants


class ProxiedKafka:
    """A Kafka with a listener for each worker, whose advertised address leads through that worker's proxy.

    Whoever asks at a proxy is told the proxy's address again, so nothing goes round it. Who asks at `bootstrap` goes
    straight.

    Args:
        folder: where the broker keeps its data.
        workers: how many proxies there are.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        port, controller = free_port(), free_port()
        ports = [free_port() for _ in range(workers)]
        self.proxies = [Proxy(target) for target in ports]
        names = [f"WORKER{number}" for number in range(workers)]
        bound = [f"{name}://{HOST}:{at}" for name, at in zip(names, ports, strict=True)]
        advertised = [f"{name}://{HOST}:{proxy.port}" for name, proxy in zip(names, self.proxies, strict=True)]
        straight = f"PLAINTEXT://{HOST}:{port}"
        self.kafka = LocalKafka(
            folder,
            port=port,
            settings={
                "controller.quorum.voters": f"1@{HOST}:{controller}",
                "listeners": ",".join([straight, f"CONTROLLER://{HOST}:{controller}", *bound]),
                "advertised.listeners": ",".join([straight, *advertised]),
                "listener.security.protocol.map": ",".join(
                    f"{n}:PLAINTEXT" for n in ("PLAINTEXT", "CONTROLLER", *names)
                ),
                "inter.broker.listener.name": "PLAINTEXT",
            },
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for proxy in self.proxies:
                stack.enter_context(proxy)
            stack.enter_context(self.kafka)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def kill(self) -> None:
        """SIGKILL the broker; its data stays."""
        self.kafka.kill()

    def start(self) -> None:
        """Start it again on the same data and ports."""
        self.kafka.start()

    @property
    def bootstrap(self) -> str:
        """Straight to the broker: for producers, and for whoever checks."""
        return self.kafka.bootstrap

    def through(self, worker: int) -> str:
        """The address for one worker, through its proxy."""
        return f"{HOST}:{self.proxies[worker].port}"


class Cluster:
    """Nodes that are broker and controller each; every topic, also the internal ones, has a copy on each.

    Args:
        folder: where the nodes keep their data.
        nodes: how many; a write needs all but one of them.

    Attributes:
        copies: how many of each partition there are to be.
    """

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        self.copies = nodes
        ports = [free_port() for _ in range(nodes)]
        controllers = [free_port() for _ in range(nodes)]
        voters = ",".join(f"{number + 1}@{HOST}:{port}" for number, port in enumerate(controllers))
        copies = {
            "default.replication.factor": str(nodes),
            "offsets.topic.replication.factor": str(nodes),
            "transaction.state.log.replication.factor": str(nodes),
            "min.insync.replicas": str(nodes - 1),
            "transaction.state.log.min.isr": str(nodes - 1),
        }
        self.nodes = [
            LocalKafka(
                folder / f"node-{number + 1}",
                port=port,
                cluster=CLUSTER,
                patience=180,
                settings={
                    **copies,
                    "node.id": str(number + 1),
                    "controller.quorum.voters": voters,
                    "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controllers[number]}",
                },
            )
            for number, port in enumerate(ports)
        ]
        self.bootstrap = ",".join(f"{HOST}:{port}" for port in ports)

    def __enter__(self) -> Self:
        try:
            self.start(range(len(self.nodes)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for node in self.nodes:
            node.kill()

    def start(self, numbers: Sequence[int]) -> None:
        """Start these nodes at once: none of them answers before a majority is there."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda number: self.nodes[number].start(), numbers))

    def kill(self, *numbers: int) -> None:
        """SIGKILL these nodes; their data stays."""
        for number in numbers:
            self.nodes[number].kill()


class SmallDisk:
    """A Kafka whose data is on a file system of its own, that can be filled and made empty again. Needs root on Linux.

    Raises BrokerError where nothing can be mounted.

    Args:
        folder: where the broker keeps its data.
        size: of the file system in bytes.
    """

    def __init__(self, folder: Path, size: int = 96 << 20) -> None:
        self._data = folder / "data"
        self._filler = self._data / "filler"
        self._size = size
        self.kafka = LocalKafka(folder)

    def __enter__(self) -> Self:
        self._data.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", str(self._data)]
        try:
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
        except OSError as error:
            message = f"no file system can be mounted for a disk that is full: {error}"
            raise BrokerError(message) from error
        if done.returncode:
            message = f"no file system can be mounted for a disk that is full: {done.stderr.strip()} (root can)"
            raise BrokerError(message)
        try:
            self.kafka.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.kafka.kill()
        subprocess.run(["umount", "--lazy", str(self._data)], check=False)

    @property
    def bootstrap(self) -> str:
        """The broker's address."""
        return self.kafka.bootstrap

    def fill(self, leave: int) -> None:
        """Fill the disk but for so many bytes."""
        with self._filler.open("wb") as filler:
            while (free := shutil.disk_usage(self._data).free) > 2 * leave:
                with suppress(OSError):  # the broker has taken some of it meanwhile
                    os.posix_fallocate(filler.fileno(), filler.tell(), free - leave)
                    filler.seek(0, os.SEEK_END)

    def make_room(self) -> None:
        """Make it as empty as it was."""
        self._filler.unlink()

    def kill(self) -> None:
        """SIGKILL the broker, if it has not ended by itself."""
        self.kafka.kill()

    def start(self) -> None:
        """Start it again on the same data and port."""
        self.kafka.start()
