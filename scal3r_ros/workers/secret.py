"""What the processes of a group have in common and strangers have not: the bytes of one file."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

_SHORTEST = 16  # bytes


def group_secret(path: str) -> bytes:
    """Content of `path`, which only its owner may read; without a path, of a file in the user's
    ROS folder that is made when it is needed first, so that one machine needs no set-up.

    Raises `ValueError` for a file that others may read or that is too short to be a secret.
    """
    file = Path(path).expanduser() if path else default_file()
    if not path:
        _make(file)
    try:
        mode, secret = stat.S_IMODE(file.stat().st_mode), file.read_bytes().strip()
    except OSError as error:
        raise ValueError(
            f"distributed.secret_file {file} cannot be read ({error.strerror}); copy it from the "
            f"machine of context_sync_node, with mode 600"
        ) from error
    if mode & 0o077:
        raise ValueError(
            f"distributed.secret_file {file} has mode {mode:o}, others may read it; chmod 600 it"
        )
    if len(secret) < _SHORTEST:
        raise ValueError(
            f"distributed.secret_file {file} holds {len(secret)} bytes, at least {_SHORTEST} are "
            f"needed; fill it with: openssl rand -hex 32"
        )
    return secret


def default_file() -> Path:
    """In `ROS_HOME`, or `~/.ros`."""
    home = os.environ.get("ROS_HOME") or Path.home() / ".ros"
    return Path(home) / "scal3r_ros" / "group_secret"


def _make(file: Path) -> None:
    """Completely or not at all, also if several processes do it at once; the first one counts."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as written:
            written.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)
