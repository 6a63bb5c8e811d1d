"""Which files of a folder are one recording, and what can be saved of a damaged one."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scal3r_ros.files import open_regular
from scal3r_ros.io.image_files import natural_key
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.text_files import read_yaml

SUFFIXES = (".db3", ".mcap")
_MCAP_MAGIC = b"\x89MCAP0\r\n"
_MCAP_END = (
    b"\x0f" + (4).to_bytes(8, "little") + bytes(4)  # end of data, without a checksum
    + b"\x02" + (20).to_bytes(8, "little") + bytes(20)  # footer, without a summary
    + _MCAP_MAGIC
)  # fmt: skip
log = logging.getLogger(__name__)


def is_bag(path: Path) -> bool:
    """Whether a path looks like a recording of ROS, readable or not."""
    if path.is_dir():
        names = [item.name for item in path.iterdir()]
        return "metadata.yaml" in names or any(map(_is_bag_name, names))
    return _is_bag_name(path.name)


def _is_bag_name(name: str) -> bool:
    return Path(name.removesuffix(".zstd")).suffix in (*SUFFIXES, ".bag")


def bag_paths(path: Path) -> list[Path]:
    """What the library is to open: a folder with sound metadata, or files; raises `BadInput`."""
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    if path.is_file():
        _require_readable_kind(path)
        return [path]
    files = sorted((p for p in path.iterdir() if p.suffix in SUFFIXES), key=natural_key)
    trouble = _metadata_trouble(path)
    if not trouble:
        return [path]
    if not files:
        for other in sorted(path.iterdir()):
            _require_readable_kind(other)
        raise BadInput(f"{path} holds no bag file ({' '.join(SUFFIXES)})")
    log.warning("%s: %s; its %d files are read in order", path, trouble, len(files))
    return files


def _metadata_trouble(folder: Path) -> str:
    """Why `metadata.yaml` is not used; empty if it is sound."""
    path = folder / "metadata.yaml"
    if not path.is_file():
        return "no metadata.yaml"
    try:
        values = read_yaml(path)
        names = values["rosbag2_bagfile_information"]["relative_file_paths"]
        missing = [name for name in names if not (folder / name).is_file()]
    except BadInput as error:
        return str(error)
    except (KeyError, TypeError):
        return "metadata.yaml is empty or incomplete"
    return f"metadata.yaml names {', '.join(missing[:3])}, which is not there" if missing else ""


def _require_readable_kind(path: Path) -> None:
    if path.suffix == ".bag":
        raise BadInput(
            f"{path} is a ROS 1 bag; convert it: rosbags-convert --src {path.name} --dst "
            f"{path.stem}"
        )
    if path.suffix == ".zstd":
        raise BadInput(
            f"{path} is a compressed bag without metadata.yaml; unpack it: zstd -d {path.name}"
        )
    if path.suffix == ".mcap":
        with open_regular(path) as file:
            start = file.read(64)
        profile = start[21 : 21 + int.from_bytes(start[17:21], "little")]
        if start.startswith(_MCAP_MAGIC) and profile == b"ros1":
            raise BadInput(
                f"{path} holds messages of ROS 1; convert the ROS 1 bag with rosbags-convert"
            )


def cut_files(path: Path) -> list[Path]:
    """MCAP files of a recording that begin as such but lack their end."""
    files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
    return [file for file in files if file.suffix == ".mcap" and _is_cut(file)]


def _is_cut(path: Path) -> bool:
    with open_regular(path) as file:
        if file.read(8) != _MCAP_MAGIC:
            return False
        size = file.seek(0, 2)
        file.seek(max(8, size - 8))
        return file.read() != _MCAP_MAGIC


@contextmanager
def closed_copy(path: Path) -> Iterator[Path]:
    """The complete records of a cut MCAP file as one that can be read; raises `BadInput`."""
    with tempfile.TemporaryDirectory(prefix="scal3r_bag_") as folder, open_regular(path) as file:
        size, at = file.seek(0, 2), 8
        while at + 9 <= size:
            file.seek(at)
            head = file.read(9)
            end = at + 9 + int.from_bytes(head[1:], "little")
            if end > size or head[0] == 0x0F:
                break
            at = end
        file.seek(0)
        copy = Path(folder) / path.name
        with copy.open("wb") as target:
            shutil.copyfileobj(file, target)
            target.truncate(at)
            target.seek(at)
            target.write(_MCAP_END)
        yield copy
