"""Fetch Scal3R's official checkpoint from its public model repository.

A partial file is kept and continued by the next call; the checkpoint appears under its name only
when it is complete and its checksum agrees with the repository's.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

REPOSITORY = "xbillowy/Scal3R"
OFFICIAL_FILE = "scal3r.pt"
LOGER_WEIGHTS = (
    "no public place of LoGeR's weights is known to this package for certain, and they come "
    "without a licence: get latest.pt and the yaml beside it from the authors' project page, put "
    "both into a folder of their own and name the file in model.checkpoint (docs/loger.md)"
)
_BLOCK = 16 << 20


class DownloadFailed(RuntimeError):
    """The checkpoint could not be fetched; what has arrived is kept for the next attempt."""


def default_path() -> Path:
    """Where the official checkpoint is kept: the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "scal3r_ros" / OFFICIAL_FILE


def download(
    target: Path | None = None,
    sha256: str = "",
    repository: str = REPOSITORY,
    progress: bool = True,
) -> Path:
    """Fetch the checkpoint to `target` and return its path; nothing is fetched if it is there.

    With `sha256` that checksum is demanded too. Raises `DownloadFailed`.
    """
    target = target or default_path()
    if not target.exists():
        _fetch(repository, target, progress)
    elif not sha256:
        return target
    found = _hash_of(target).hexdigest()
    if sha256 and found != sha256.lower():
        raise DownloadFailed(
            f"{target} has sha256 {found}, expected {sha256.lower()}; delete it to fetch it again"
        )
    return target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `scal3r download`."""
    parser.add_argument(
        "network",
        nargs="?",
        default="scal3r",
        choices=("scal3r", "loger", "loger-star"),
        help="whose weights (default: scal3r); for the others it is said where to put the file",
    )
    parser.add_argument("--out", type=Path, default=None, help="file to write")
    parser.add_argument("--sha256", default="", help="expected checksum")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> Path:
    """`scal3r download`; returns the path of the checkpoint."""
    if args.network != "scal3r":
        raise DownloadFailed(LOGER_WEIGHTS)
    return download(args.out, args.sha256, progress=not args.quiet)


def _fetch(repository: str, target: Path, progress: bool) -> None:
    try:
        from huggingface_hub import HfApi, HfFileSystem
        from huggingface_hub.errors import RepositoryNotFoundError
    except ModuleNotFoundError as missing:
        raise DownloadFailed(f"{missing}; pip install huggingface_hub") from missing

    name = f"{repository}/{OFFICIAL_FILE}"
    try:
        found = HfApi().get_paths_info(repository, [OFFICIAL_FILE])
        if not found:
            raise DownloadFailed(f"{name} is not on the model hub")
        (entry,) = cast("list[RepoFile]", found)  # it is no folder
        checksum = entry.lfs.sha256 if entry.lfs else ""
        files = HfFileSystem(skip_instance_cache=True)
        with files.open(name, "rb", block_size=_BLOCK, cache_type="none") as source:
            _complete(source, entry.size, checksum, target, progress)
    except RepositoryNotFoundError as error:
        raise DownloadFailed(f"{name} is not on the model hub: {_first_line(error)}") from error
    except _transport_errors() as error:
        raise DownloadFailed(_offline(name, target, error)) from error


def _complete(source: BinaryIO, size: int, checksum: str, target: Path, progress: bool) -> None:
    """Append what is missing to the partial file, verify it and give it its name."""
    from tqdm import tqdm

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{(checksum or str(size))[:12]}.part")
    digest = _hash_of(partial) if partial.exists() else hashlib.sha256()
    with (
        open(partial, "ab") as sink,
        tqdm(
            total=size,
            initial=sink.tell(),
            unit="B",
            unit_scale=True,
            desc=target.name,
            disable=not progress,
        ) as bar,
    ):
        source.seek(sink.tell())
        while block := source.read(_BLOCK) if sink.tell() < size else b"":
            sink.write(block)
            digest.update(block)
            bar.update(len(block))
        sink.flush()
        os.fsync(sink.fileno())
        arrived = sink.tell()
    if arrived != size or (checksum and digest.hexdigest() != checksum):
        partial.unlink()
        raise DownloadFailed(
            f"{target.name} arrived damaged ({arrived} of {size} bytes, sha256 "
            f"{digest.hexdigest()}, expected {checksum or 'unknown'}); try again"
        )
    os.replace(partial, target)


def _hash_of(path: Path) -> Any:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest


def _transport_errors() -> tuple[type[Exception], ...]:
    """Errors of whichever HTTP client the installed hub library uses: the ancestors of its own."""
    from huggingface_hub.errors import HfHubHTTPError

    own = (c for c in HfHubHTTPError.__mro__ if issubclass(c, Exception))
    return (ConnectionError, *(c for c in own if c not in (Exception, OSError)))


def _offline(name: str, target: Path, error: Exception) -> str:
    return (
        f"cannot fetch {name} from the model hub ({_first_line(error)}); connect to the internet "
        f"and run `scal3r download` again, or copy the file to {target}"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
