"""A sequence of a data set as every runner gives it: images in order, true poses, and what was left
out of it and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.io.calibration import Calibration, calibrated_frame
from scal3r_ros.io.folder import read_file
from scal3r_ros.io.image_decoding import decode_compressed
from scal3r_ros.io.source import BadInput, SourceImage
from scal3r_ros.io.stretch import Stretch
from scal3r_ros.records import Frame

MAX_PIXELS = 120_000_000


@dataclass(frozen=True)
class Picture:
    """An image file, perhaps inside an archive."""

    stamp_ns: int
    path: Path
    member: str = ""
    """Name in the archive `path`."""

    def read(self) -> bytes:
        """Raises `BadInput`."""
        if not self.member:
            return read_file(self.path)
        try:
            with ZipFile(self.path) as archive:
                return archive.read(self.member)
        except (OSError, BadZipFile, KeyError) as error:
            raise BadInput(f"cannot read {self.member} of {self.path}: {error}") from error


Rectify = Callable[[int, int, np.ndarray], Frame]
"""Frame number, stamp and image (H, W, 3) to a frame of a pinhole camera."""


@dataclass(frozen=True)
class BenchmarkSequence:
    """What is mapped and what it is compared with."""

    name: str
    pictures: tuple[Picture, ...]
    truth: Mapping[int, np.ndarray]
    """T_world_camera (4, 4) by position of the picture; those without truth are absent."""
    rectify: Rectify
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Pictures without truth, and poses without picture, by reason."""
    notes: tuple[str, ...] = ()
    """What a reader of the score must know: which intrinsics, which camera, what was shortened."""
    depth: Callable[[int], np.ndarray] | None = None
    """Measured depth (H, W) float32 in metres of a picture, NaN where unknown."""
    depth_intrinsics: np.ndarray | None = None
    """(3, 3) in our convention, for `depth`."""


class SequenceSource:
    """The pictures of a sequence as the mapper reads them; implements `FrameSource`."""

    def __init__(self, sequence: BenchmarkSequence) -> None:
        self._sequence = sequence
        self.files = tuple(dict.fromkeys(picture.path for picture in sequence.pictures))
        self.stretch = Stretch()
        self.description = f"{len(sequence.pictures)} pictures of {sequence.name}"

    def __len__(self) -> int:
        return len(self._sequence.pictures)

    def __iter__(self) -> Iterator[SourceImage]:
        self.stretch.rewind()
        for number, picture in enumerate(self._sequence.pictures):
            yield SourceImage(number, picture.stamp_ns, partial(self._load, number, picture))

    def _load(self, number: int, picture: Picture) -> Frame:
        name = picture.member or str(picture.path)
        rgb = decode_compressed(picture.read(), name, MAX_PIXELS, self.stretch)
        return self._sequence.rectify(number, picture.stamp_ns, rgb)


def with_calibration(calibration: Calibration | None) -> Rectify:
    """The usual way to a pinhole image: distortion removed, same matrix."""
    return partial(_calibrated, calibration)


def _calibrated(
    calibration: Calibration | None, number: int, stamp_ns: int, rgb: np.ndarray
) -> Frame:
    return calibrated_frame(number, stamp_ns, rgb, calibration)


def pinhole(fx: float, fy: float, cx: float, cy: float, *distortion: float) -> Calibration:
    """A camera matrix as data sets print it: first pixel centre at (0, 0)."""
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    lens = np.array(distortion) if distortion else np.zeros(5)
    return Calibration(0, 0, K, lens)


def usable(poses: Mapping[int, np.ndarray], dropped: Counter[str]) -> dict[int, np.ndarray]:
    """Finite poses with orthonormal rotations; the others are counted."""
    good = {}
    for index, pose in poses.items():
        if not np.isfinite(pose).all():
            dropped["pose not finite"] += 1
            continue
        left, _, right = np.linalg.svd(pose[:3, :3])
        if np.linalg.det(left @ right) < 0 or abs(np.linalg.det(pose[:3, :3]) - 1) > 0.1:
            dropped["pose no rotation"] += 1
            continue
        good[index] = rigid.from_parts(left @ right, pose[:3, 3])
    return good


def at_times(
    pictures: Sequence[Picture],
    stamps: np.ndarray,
    poses: np.ndarray,
    reach_s: float,
    dropped: Counter[str],
) -> dict[int, np.ndarray]:
    """The pose nearest in time to each picture, within `reach_s` seconds; the rest is counted."""
    if not len(stamps):
        raise BadInput("the ground truth holds no pose")
    order = np.argsort(stamps, kind="stable")
    stamps, poses = stamps[order], poses[order]
    found = {}
    for index, picture in enumerate(pictures):
        after = int(np.searchsorted(stamps, picture.stamp_ns))
        near = [i for i in (after - 1, after) if 0 <= i < len(stamps)]
        best = min(near, key=lambda i: abs(int(stamps[i]) - picture.stamp_ns))
        if abs(int(stamps[best]) - picture.stamp_ns) <= reach_s * 1e9:
            found[index] = poses[best]
        else:
            dropped[f"no pose within {reach_s:g} s"] += 1
    return found


def by_index(count: int, poses: np.ndarray, dropped: Counter[str]) -> dict[int, np.ndarray]:
    """Pose n of picture n; what is left of the longer list is counted."""
    if len(poses) < count:
        dropped["picture without pose"] += count - len(poses)
    if len(poses) > count:
        dropped["pose without picture"] += len(poses) - count
    return dict(enumerate(poses[:count]))


def required(path: Path, what: str) -> Path:
    """The path; raises `BadInput` with a sentence if nothing is there."""
    if not path.exists():
        raise BadInput(f"{path} is missing: expected {what}")
    return path


def table_of_numbers(path: Path, columns: int, what: str, skip: int = 0) -> np.ndarray:
    """Rows of `columns` numbers (-inf and nan allowed); raises `BadInput`."""
    from scal3r_ros.io.text_files import read_text

    rows = []
    for number, line in enumerate(read_text(required(path, what)).splitlines(), 1):
        words = line.split()
        if number <= skip or not words or words[0].startswith("#"):
            continue
        try:
            row = [float(word) for word in words[:columns]]
        except ValueError as error:
            raise BadInput(f"{path} line {number}: expected {what}: {error}") from error
        if len(row) < columns:
            raise BadInput(f"{path} line {number}: {len(row)} numbers, expected {what}")
        rows.append(row)
    if not rows:
        raise BadInput(f"{path} is empty: expected {what}")
    return np.array(rows)
