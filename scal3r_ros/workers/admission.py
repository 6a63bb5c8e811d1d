"""Who may talk to the store of a group, and in which frames.

Admission (HMAC-SHA256 over both sides' random numbers, so nothing secret travels):
server: nonce of 32 bytes; client: nonce of 32 bytes and proof; server: proof. Then requests
follow, each one frame: length (4 bytes), operation (1), length of the key (4), key, value.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import struct

MAX_FRAME = 8 << 20
"""Bytes of one request or answer; larger values travel in parts (`packing.upload`)."""
ADMISSION_TIME = 5.0
"""Seconds in which a client has to prove itself."""
_NONCE = 32


class StoreError(RuntimeError):
    """The store refused a request, is gone, or did not answer in time."""


def admitted(connection: socket.socket, secret: bytes) -> bool:
    """The server's side: whether the other one knows the secret."""
    connection.settimeout(ADMISSION_TIME)
    ours = secrets.token_bytes(_NONCE)
    try:
        connection.sendall(ours)
        theirs, proof = _exactly(connection, _NONCE), _exactly(connection, _NONCE)
        if not hmac.compare_digest(proof, _proof(secret, b"client", ours, theirs)):
            return False
        connection.sendall(_proof(secret, b"server", ours, theirs))
    except OSError:
        return False
    connection.settimeout(None)
    return True


def introduced(connection: socket.socket, secret: bytes) -> bool:
    """The client's side: whether both know the secret."""
    theirs, ours = _exactly(connection, _NONCE), secrets.token_bytes(_NONCE)
    connection.sendall(ours + _proof(secret, b"client", theirs, ours))
    try:
        proof = _exactly(connection, _NONCE)
    except ConnectionError:
        return False
    return hmac.compare_digest(proof, _proof(secret, b"server", theirs, ours))


def _proof(secret: bytes, role: bytes, server: bytes, client: bytes) -> bytes:
    return hmac.digest(secret, role + server + client, "sha256")


def send_frame(connection: socket.socket, body: bytes) -> None:
    """Raises `StoreError` if it is too long, `OSError` if the connection is gone."""
    if len(body) > MAX_FRAME:
        raise StoreError(f"{len(body)} bytes are more than one message may have ({MAX_FRAME})")
    connection.sendall(struct.pack("!I", len(body)) + body)


def receive_frame(connection: socket.socket) -> bytes:
    """Likewise; nothing of what is too long is read."""
    (length,) = struct.unpack("!I", _exactly(connection, 4))
    if not 0 < length <= MAX_FRAME:
        raise StoreError(f"a message of {length} bytes; at most {MAX_FRAME} are taken")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts, missing = [], count
    while missing:
        part = connection.recv(min(missing, 1 << 20))
        if not part:
            raise ConnectionError("the other side has closed the connection")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
