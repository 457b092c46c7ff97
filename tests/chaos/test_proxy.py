"""The proxy of the network scenarios does to a connection what they say it does."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import HOST, Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that answers what it is told."""
    server = socket.create_server((HOST, 0))

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while said := connection.recv(1000):
                connection.sendall(said.upper())

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with Proxy(server.getsockname()[1]) as made:
        yield made
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), 5)


def said(proxy: Proxy, words: bytes) -> bytes:
    with connected(proxy) as connection:
        connection.sendall(words)
        return connection.recv(99)


def is_silent(connection: socket.socket, seconds: float = 0.3) -> bool:
    connection.settimeout(seconds)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)


def test_what_is_said_is_answered(proxy: Proxy) -> None:
    with connected(proxy) as one, connected(proxy) as other:
        one.sendall(b"one")
        other.sendall(b"other")
        assert (one.recv(9), other.recv(9)) == (b"ONE", b"OTHER")


def test_cut_resets_old_and_new_connections_until_it_is_healed(proxy: Proxy) -> None:
    with connected(proxy) as one:
        one.sendall(b"one")
        assert one.recv(9) == b"ONE"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            one.recv(9)
    with pytest.raises(ConnectionResetError):
        said(proxy, b"other")
    proxy.heal()
    with connected(proxy) as third:
        third.sendall(b"third")
        assert third.recv(9) == b"THIRD"


def test_drop_resets_what_there_is_and_serves_what_comes(proxy: Proxy) -> None:
    with connected(proxy) as one:
        one.sendall(b"one")
        assert one.recv(9) == b"ONE"
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            one.recv(9)
    with connected(proxy) as other:
        other.sendall(b"other")
        assert other.recv(9) == b"OTHER"


@pytest.mark.parametrize("directions", [(), ("up",), ("down",)])
def test_what_was_held_back_in_silence_comes_late(proxy: Proxy, directions: tuple[str, ...]) -> None:
    with connected(proxy) as one:
        one.sendall(b"one")
        assert one.recv(9) == b"ONE"
        proxy.silence(*directions)  # type: ignore[arg-type]
        one.sendall(b"late")
        assert is_silent(one)
        with connected(proxy) as new:
            new.sendall(b"new")
            assert is_silent(new)
        proxy.heal()
        assert one.recv(9) == b"LATE"


def test_delay_holds_each_direction_for_so_long(proxy: Proxy) -> None:
    with connected(proxy) as one:
        proxy.delay(0.1)
        started = time.monotonic()
        one.sendall(b"slow")
        assert one.recv(9) == b"SLOW"
        assert time.monotonic() - started >= 0.2
