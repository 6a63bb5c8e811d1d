"""Oxford Spires: `sequences/<name>/raw/images.zip` (fisheye, 20 Hz), `gt-tum.txt` (base to world),
`calibration/cam0.yaml` and `cam-lidar-imu.yaml`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import cv2
import numpy as np

from scal3r_ros import rigid
from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.sequence import (
    BenchmarkSequence,
    Picture,
    at_times,
    required,
    usable,
)
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.stamps import parse_number, to_nanoseconds
from scal3r_ros.io.text_files import read_yaml
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.records import Frame

REACH = 0.025
TRUTH = "processed/trajectory/gt-tum.txt"
T_BASE_LIDAR = rigid.from_parts(np.diag([-1.0, -1.0, 1.0]), np.array([0.0, 0.0, 0.124]))
"""Half a turn about z, 12.4 cm up."""


@dataclass(frozen=True)
class CentredFisheye:
    """A fisheye lens made a pinhole of the same focal lengths whose centre is that of the image."""

    K: tuple[float, ...]
    """Nine numbers, row-major."""
    lens: tuple[float, ...]
    """Four of OpenCV's fisheye model."""

    def __call__(self, number: int, stamp_ns: int, rgb: np.ndarray) -> Frame:
        height, width = rgb.shape[:2]
        maps = _maps(self.K, self.lens, width, height)
        image = cv2.remap(rgb, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        intrinsics = self.pinhole(width, height)
        intrinsics[:2, 2] += 0.5
        return Frame(number, stamp_ns, image, intrinsics)

    def pinhole(self, width: int, height: int) -> np.ndarray:
        """(3, 3) of the rectified image, first pixel centre at (0, 0)."""
        K = np.array(self.K).reshape(3, 3).copy()
        K[:2, 2] = width / 2, height / 2
        return K


@lru_cache(maxsize=2)
def _maps(K: tuple[float, ...], lens: tuple[float, ...], width: int, height: int):
    fisheye = CentredFisheye(K, lens)
    return cv2.fisheye.initUndistortRectifyMap(
        np.array(K).reshape(3, 3), np.array(lens), np.eye(3), fisheye.pinhole(width, height),
        (width, height), cv2.CV_32FC1,
    )  # fmt: skip


def find(root: Path) -> list[str]:
    names = sorted(path.parents[2].name for path in root.glob(f"sequences/*/{TRUTH}"))
    if not names:
        raise BadInput(f"{root} is no Oxford Spires: expected sequences/<name>/{TRUTH}")
    return names


def read(root: Path, name: str) -> BenchmarkSequence:
    folder, dropped = root / "sequences" / name, Counter[str]()
    pictures = _pictures(folder / "raw")
    stamps, T_world_base = read_trajectory(required(folder / TRUTH, "the true trajectory"))
    T_cam_lidar = _matrix(root / "calibration/cam-lidar-imu.yaml", "cam0", "T_cam_lidar")
    T_base_camera = rigid.inverse(T_cam_lidar @ rigid.inverse(T_BASE_LIDAR))
    first, last = int(stamps.min()) - int(REACH * 1e9), int(stamps.max()) + int(REACH * 1e9)
    within = [p for p in pictures if first <= p.stamp_ns <= last]
    dropped["outside of the truth's time"] += len(pictures) - len(within)
    truth = at_times(within, stamps, T_world_base @ T_base_camera, REACH, dropped)
    note = "truth moved from the base to camera 0; fisheye made a pinhole, principal point centred"
    return BenchmarkSequence(
        name,
        tuple(within),
        usable(truth, dropped),
        _camera(root / "calibration/cam0.yaml"),
        +dropped,
        (note,),
    )


def _pictures(raw: Path) -> list[Picture]:
    """`cam0/<seconds>.jpg`, unpacked or inside images.zip."""
    folders = [folder for folder in (raw / "cam0", raw / "images/cam0") if folder.is_dir()]
    if folders:
        paths = sorted(folders[0].glob("*.jpg"), key=lambda p: float(p.stem))
        return [Picture(s, p) for s, p in zip(_stamps([p.stem for p in paths], raw), paths)]
    archive = required(raw / "images.zip", "cam0/<seconds>.jpg in it, or unpacked beside it")
    try:
        with ZipFile(archive) as opened:
            names = [n for n in opened.namelist() if "cam0/" in n and n.endswith(".jpg")]
    except (OSError, BadZipFile) as error:
        raise BadInput(f"cannot read {archive}: {error}") from error
    names.sort(key=lambda n: float(Path(n).stem))
    stamps = _stamps([Path(n).stem for n in names], archive)
    return [Picture(stamp, archive, name) for stamp, name in zip(stamps, names)]


def _stamps(stems: Sequence[str], where: Path) -> list[int]:
    if not stems:
        raise BadInput(f"{where} holds no cam0/<seconds>.jpg")
    return to_nanoseconds([parse_number(stem) for stem in stems], str(where))[0]


def _camera(path: Path) -> CentredFisheye:
    values = read_yaml(required(path, "camera_matrix and distortion_coefficients"))
    try:
        K = tuple(float(x) for x in values["camera_matrix"]["data"])
        lens = tuple(float(x) for x in values["distortion_coefficients"]["data"])
    except (LookupError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: expected camera_matrix and distortion_coefficients") from error
    if (len(K), len(lens)) != (9, 4):
        raise BadInput(f"{path}: expected 9 and 4 numbers, found {len(K)} and {len(lens)}")
    return CentredFisheye(K, lens)


def _matrix(path: Path, camera: str, name: str) -> np.ndarray:
    values = read_yaml(required(path, "the poses of the sensors"))
    try:
        return np.array(values[camera][name], np.float64).reshape(4, 4)
    except (LookupError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: expected {camera} with a 4x4 {name}") from error


OXFORD_SPIRES = Dataset(
    "oxford-spires",
    "Oxford Spires",
    "cam0 at 20 Hz, all frames inside the truth's time, nearest pose within 0.025 s",
    find,
    read,
    segments="kitti",
)
