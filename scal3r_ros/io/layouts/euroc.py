"""EuRoC MAV (ASL): `mav0/cam0` with `data.csv`, `data/` and `sensor.yaml`; the left camera."""

from __future__ import annotations

from pathlib import Path

from scal3r_ros.io.calibration_files import load_calibration
from scal3r_ros.io.image_files import list_images
from scal3r_ros.io.image_index import read_index
from scal3r_ros.io.layouts.listing import Listing


def find(folder: Path) -> Listing | None:
    """From the sequence, `mav0`, the camera's folder or its `data`."""
    choices = [folder / place / cam for cam in ("cam0", "cam1") for place in ("mav0", "")]
    choices += [folder, *([folder.parent] if folder.name == "data" else [])]
    for camera in choices:
        if (camera / "data").is_dir() and _is_camera(camera):
            return _listing(camera)
    return None


def _is_camera(camera: Path) -> bool:
    return (camera / "data.csv").is_file() or (camera / "sensor.yaml").is_file()


def _listing(camera: Path) -> Listing | None:
    if (camera / "data.csv").is_file():
        images, stamps = read_index(camera / "data.csv", camera / "data").images, "data.csv"
    else:  # the names are nanoseconds
        paths = list_images(camera / "data").paths
        if not paths or not all(p.stem.isdecimal() and len(p.stem) == 19 for p in paths):
            return None
        images, stamps = tuple((int(path.stem), path) for path in paths), "the file names"
    sensor = camera / "sensor.yaml"
    read = (lambda: load_calibration(sensor)) if sensor.is_file() else None
    return Listing(images, f"EuRoC layout, stamps from {stamps}", read, (camera,))
