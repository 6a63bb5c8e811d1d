"""Where the processes of a group meet: a table of keys and bytes that one process serves.

Takes the place of torch's TCPStore, which listens on all addresses and lets everybody in. This one
listens on one address, closes the connection of whoever does not know the group's secret before
it reads anything of what they say, bounds all sizes, and bounds every wait.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

from scal3r_ros.workers.admission import (
    StoreError,
    admitted,
    introduced,
    receive_frame,
    send_frame,
)

MAX_TOTAL = 4 << 30
MAX_KEYS = 100_000
MAX_CONNECTIONS = 1024
_SET, _GET, _ADD, _DELETE, _CHECK, _WAIT, _COMPARE, _COUNT = range(8)
_DONE, _ABSENT, _REFUSED = range(3)


class StoreServer:
    """Serves the table in threads of its own until `close`."""

    def __init__(self, address: str, port: int, secret: bytes):
        self._secret = secret
        self._values: dict[str, bytes] = {}
        self._bytes = 0
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self.refused = 0
        """Connections that did not know the secret, or were too many."""
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        self._listener = socket.create_server((address, port), family=family, backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="store", daemon=True).start()

    def close(self) -> None:
        """Give the port back and end all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for connection in list(self._connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def keys(self) -> list[str]:
        with self._changed:
            return list(self._values)

    def forget(self, old: Callable[[str], bool]) -> None:
        """Drop all keys that are `old`."""
        with self._changed:
            for key in [key for key in self._values if old(key)]:
                self._put(key, None)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if len(self._connections) >= MAX_CONNECTIONS:
                self.refused += 1
                connection.close()
                continue
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                if not admitted(connection, self._secret):
                    self.refused += 1
                    return
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while True:
                    send_frame(connection, self._answer(receive_frame(connection)))
        except (OSError, StoreError):
            pass  # gone, or sends what is no request: its connection ends
        finally:
            self._connections.discard(connection)

    def _answer(self, request: bytes) -> bytes:
        operation, key, value = _split(request)
        with self._changed:
            present = self._values.get(key)
            if operation == _GET or operation == _WAIT:
                (wait,) = struct.unpack("!d", value)
                there = self._changed.wait_for(lambda: key in self._values, wait)
                found = self._values[key] if there and operation == _GET else b""
                return bytes([_DONE if there else _ABSENT]) + found
            if operation == _SET:
                return self._put(key, value)
            if operation == _ADD:
                number = int(present or b"0") + struct.unpack("!q", value)[0]
                return self._put(key, str(number).encode(), struct.pack("!q", number))
            if operation == _COMPARE:
                length = struct.unpack_from("!I", value)[0]
                expected, desired = value[4 : 4 + length], value[4 + length :]
                if present == expected or present is None and not expected:
                    return self._put(key, desired, desired)
                return bytes([_DONE]) + (expected if present is None else present)
            if operation == _DELETE:
                self._put(key, None)
                return bytes([_DONE, present is not None])
            if operation == _CHECK:
                return bytes([_DONE, present is not None])
            if operation == _COUNT:
                return bytes([_DONE]) + struct.pack("!q", len(self._values))
        raise StoreError(f"no operation {operation}")

    def _put(self, key: str, value: bytes | None, answer: bytes = b"") -> bytes:
        """Call with the lock held; None removes the key."""
        old = self._values.pop(key, b"")
        size = self._bytes - len(old) + len(value or b"")
        if value is not None and (size > MAX_TOTAL or len(self._values) >= MAX_KEYS):
            self._bytes -= len(old)
            return bytes([_REFUSED]) + f"the store is full ({self._bytes} bytes)".encode()
        self._bytes = size
        if value is not None:
            self._values[key] = value
            self._changed.notify_all()
        return bytes([_DONE]) + answer


class StoreClient(dist.Store):
    """One connection to a `StoreServer`, for torch's process groups and for us; thread-safe."""

    def __init__(self, address: str, port: int, secret: bytes, timeout: float):
        super().__init__()
        self._lock = threading.Lock()
        self._wait = timeout
        try:
            self._socket = socket.create_connection((address, port), timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            known = introduced(self._socket, secret)
        except OSError as error:
            raise StoreError(f"no store at {address}:{port}: {error}") from error
        if not known:
            self._socket.close()
            raise StoreError(
                f"the store at {address}:{port} does not share our secret; give both the same "
                f"distributed.secret_file"
            )

    def set_timeout(self, timeout: timedelta) -> None:
        self._wait = timeout.total_seconds()

    def set(self, key: str, value: str | bytes) -> None:
        self._ask(_SET, key, value.encode() if isinstance(value, str) else bytes(value))

    def get(self, key: str) -> bytes:
        """The value, once it is there."""
        return self._ask(_GET, key, struct.pack("!d", self._wait), self._wait)

    def add(self, key: str, value: int) -> int:
        return struct.unpack("!q", self._ask(_ADD, key, struct.pack("!q", value)))[0]

    def delete_key(self, key: str) -> bool:
        return bool(self._ask(_DELETE, key)[0])

    def check(self, keys: list[str]) -> bool:
        return all(self._ask(_CHECK, key)[0] for key in keys)

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        pair = [v.encode() if isinstance(v, str) else bytes(v) for v in (expected, desired)]
        return self._ask(_COMPARE, key, struct.pack("!I", len(pair[0])) + pair[0] + pair[1])

    def num_keys(self) -> int:
        return struct.unpack("!q", self._ask(_COUNT, ""))[0]

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Until all keys are there."""
        seconds = self._wait if timeout is None else timeout.total_seconds()
        deadline = time.monotonic() + seconds
        for key in keys:
            left = max(0.0, deadline - time.monotonic())
            self._ask(_WAIT, key, struct.pack("!d", left), left)

    deleteKey, getNumKeys = delete_key, num_keys
    """As torch's own wrappers (`PrefixStore`) call them."""

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _ask(self, operation: int, key: str, value: bytes = b"", patience: float = 0.0) -> bytes:
        name = key.encode()
        request = struct.pack("!BI", operation, len(name)) + name + value
        with self._lock:
            try:
                self._socket.settimeout(max(self._wait, 1.0) + patience)
                send_frame(self._socket, request)
                answer = receive_frame(self._socket)
            except OSError as error:
                self.close()  # an answer that comes late would be taken for the next one's
                raise StoreError(f"the store does not answer about {key!r}: {error}") from error
        if answer[0] == _ABSENT:
            raise StoreError(f"nothing was stored as {key!r} in time")
        if answer[0] == _REFUSED:
            raise StoreError(answer[1:].decode())
        return answer[1:]


class HostedStore(StoreClient):
    """The store, served by this process, with a connection to it."""

    def __init__(self, address: str, port: int, secret: bytes, timeout: float):
        self.server = StoreServer(address, port, secret)
        self.port = self.server.port
        super().__init__(address, self.port, secret, timeout)

    def close(self) -> None:
        super().close()
        self.server.close()


def _split(request: bytes) -> tuple[int, str, bytes]:
    try:
        operation, length = struct.unpack_from("!BI", request)
        key = request[5 : 5 + length].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise StoreError(f"not a request: {error}") from error
    return operation, key, request[5 + length :]
