"""KITTI odometry (`times.txt`, `calib.txt`, `image_2`) and raw (`image_02/data`,
`timestamps.txt`, `calib_cam_to_cam.txt`); the left colour camera, else the left grey one."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scal3r_ros.io.calibration import Calibration
from scal3r_ros.io.layouts.listing import Listing, decimals, first_file, paired
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.stamps import to_nanoseconds
from scal3r_ros.io.text_files import read_text


def find(folder: Path) -> Listing | None:
    """From the sequence (or drive), or from one camera's folder."""
    return _odometry(folder) or _raw(folder)


def _odometry(folder: Path) -> Listing | None:
    sequence = folder.parent if re.fullmatch(r"image_\d", folder.name) else folder
    times = sequence / "times.txt"
    choices = [folder] if sequence != folder else [folder / f"image_{n}" for n in (2, 0, 3, 1)]
    camera = next((path for path in choices if path.is_dir()), None)
    if camera is None or not times.is_file():
        return None
    try:
        values = decimals(read_text(times).split())
    except ValueError as error:
        raise BadInput(f"{times}: expected one time in seconds a line, but {error}") from error
    images = paired(to_nanoseconds(values, str(times))[0], camera, times)
    read = _projection(sequence / "calib.txt", f"P{camera.name[-1]}")
    where = f"KITTI layout, {camera.name}, stamps from times.txt"
    return Listing(images, where, read, (camera, sequence))


def _raw(folder: Path) -> Listing | None:
    here = folder.parent if folder.name == "data" else folder
    names = [f"image_0{n}" for n in (2, 0, 3, 1)]
    choices = [here] if here.name in names else [folder / name for name in names]
    camera = next((c for c in choices if (c / "data").is_dir()), None)
    if camera is None or not (camera / "timestamps.txt").is_file():
        return None
    index = camera / "timestamps.txt"
    lines = [line for line in read_text(index).splitlines() if line.strip()]
    images = paired([_date_ns(line, index) for line in lines], camera / "data", index)
    file = first_file((camera.parent, camera.parent.parent), ["calib_cam_to_cam.txt"])
    read = _projection(file, f"P_rect_{camera.name[-2:]}") if file else None
    return Listing(images, f"KITTI raw layout, {camera.name}, stamps from {index.name}", read)


def _date_ns(line: str, path: Path) -> int:
    """Nanoseconds since 1970 of `2011-09-26 13:02:25.964389445`, in UTC."""
    found = re.fullmatch(
        r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?", line.strip()
    )
    if not found:
        raise BadInput(f"{path}: expected `2011-09-26 13:02:25.964389445`, found {line[:60]!r}")
    seconds = calendar.timegm(tuple(int(word) for word in found.groups()[:6]))
    return seconds * 1_000_000_000 + int((found[7] or "0").ljust(9, "0"))


def _projection(path: Path, name: str) -> Callable[[], Calibration] | None:
    """Reads one camera's 3x4 matrix of rectified images."""

    def read() -> Calibration:
        fields = dict(line.partition(":")[::2] for line in read_text(path).splitlines())
        try:
            values = np.array(fields[name].split(), dtype=np.float64).reshape(3, 4)
        except (KeyError, ValueError) as error:
            raise BadInput(f"{path}: expected a line `{name}: ` with 12 numbers") from error
        from scal3r_ros.io.camera_info import check_pinhole

        check_pinhole(values[:, :3], str(path))
        return Calibration(0, 0, values[:, :3].copy(), name=str(path))

    return read if path.is_file() else None
