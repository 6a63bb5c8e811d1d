"""What a recording measures beside images: odometry, gravity, depth. For scale and a level map."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from scal3r_ros.io.source import BadInput

AHEAD_NS = 1_000_000_000
"""Measurements are handed on this long before the image that they belong to: some are recorded
late."""
DEPTH_NS = 20_000_000
"""Largest time between an image and its depth."""
TUM_DEPTH = 5000.0
"""Depth images in a folder count this much per metre, as in the TUM RGB-D benchmark."""


@dataclass(frozen=True)
class Measurement:
    """One measurement, not yet decoded."""

    stamp_ns: int
    kind: str
    """`odometry`: T_odom_base (4, 4) in metres. `gravity`: accelerometer (3,) in the camera's
    optical axes. `depth`: (H, W) in metres, 0 or not finite where unknown."""
    read: Callable[[], np.ndarray]


class Measurements(Protocol):
    """Measurements of a recording in order of time."""

    description: str
    T_base_camera: np.ndarray | None
    """Where the camera is mounted on the body whose odometry is measured, if it is."""

    def __iter__(self) -> Iterator[Measurement]: ...


class Observer(Protocol):
    """Whoever takes measurements; the mapper does."""

    def observe_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None: ...

    def observe_gravity(self, stamp_ns: int, up_camera: np.ndarray) -> None: ...

    def observe_depth(self, stamp_ns: int, metres: np.ndarray) -> None: ...


class MeasurementFeed:
    """Hands measurements to an observer just before it gets the image they belong to."""

    def __init__(self, measurements: Measurements) -> None:
        self._coming = iter(measurements)
        self._next: Measurement | None = next(self._coming, None)
        self._depth: deque[Measurement] = deque()

    def until(self, stamp_ns: int, observer: Observer) -> None:
        """All that is known at the time of the next image."""
        while self._next is not None and self._next.stamp_ns <= stamp_ns + AHEAD_NS:
            self._hand_over(self._next, observer)
            self._next = next(self._coming, None)
        while self._depth and self._depth[0].stamp_ns < stamp_ns - DEPTH_NS:
            self._depth.popleft()
        near = [m for m in self._depth if m.stamp_ns <= stamp_ns + DEPTH_NS]
        if near:
            nearest = min(near, key=lambda m: abs(m.stamp_ns - stamp_ns))
            observer.observe_depth(stamp_ns, nearest.read())

    def _hand_over(self, measurement: Measurement, observer: Observer) -> None:
        if measurement.kind == "depth":
            self._depth.append(measurement)
        elif measurement.kind == "odometry":
            observer.observe_odometry(measurement.stamp_ns, measurement.read())
        else:
            observer.observe_gravity(measurement.stamp_ns, measurement.read())


class FolderDepth:
    """Depth images that `depth.txt` lists beside the colour images, as in the TUM benchmark."""

    T_base_camera: np.ndarray | None = None

    def __init__(self, index: Path) -> None:
        from scal3r_ros.io.folder import read_index

        self._images = read_index(index)
        self.description = f"{len(self._images)} depth images of {index.name}"

    def __iter__(self) -> Iterator[Measurement]:
        for stamp_ns, path in self._images:
            yield Measurement(stamp_ns, "depth", partial(_read_depth, path))


def open_measurements(
    path: str | Path,
    wanted: Mapping[str, str],
    image_topic: str = "",
    topics: Mapping[str, str] | None = None,
    T_base_camera: np.ndarray | None = None,
) -> Measurements | None:
    """Measurements beside the images of `path`; None if none are wanted.

    wanted: by kind, the option that asks for it, for messages. topics: by kind, the topic of a bag
    if there are several. Raises `BadInput` if the input has none of a wanted kind.
    """
    path = Path(path)
    if not wanted:
        return None
    if image_topic:
        from scal3r_ros.io.bag_measurements import BagMeasurements

        return BagMeasurements(path, wanted, image_topic, dict(topics or {}), T_base_camera)
    index = next((d / "depth.txt" for d in (path, path.parent) if _has_depth(d)), None)
    for kind, option in wanted.items():
        if kind != "depth" or index is None or not path.is_dir():
            why = "no depth.txt lies beside its images" if kind == "depth" else "only bags do"
            raise BadInput(f"{option}: {path} offers no {kind}, {why}; {ALTERNATIVES[kind]}")
    assert index is not None  # or the loop has raised
    return FolderDepth(index)


ALTERNATIVES = {
    "odometry": "take scale.source camera_height or known_distance, or none for unknown scale",
    "depth": "take scale.source camera_height or known_distance, or none for unknown scale",
    "gravity": "take map.alignment first_camera, floor or none",
}
"""What a user can do if something is not measured."""


def wanted_measurements(
    scale_source: str, map_alignment: str, named: Collection[str] = ()
) -> dict[str, str]:
    """Kinds that the configuration needs and the option that says so; `named`: kinds whose topic
    was given."""
    wanted = {"odometry": "--odometry-topic"} if "odometry" in named else {}
    if scale_source in ("odometry", "depth"):
        wanted[scale_source] = f"scale.source {scale_source}"
    if map_alignment == "imu":
        wanted["gravity"] = "map.alignment imu"
    return wanted


def _has_depth(folder: Path) -> bool:
    return (folder / "depth.txt").is_file()


def _read_depth(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2 or image.dtype != np.uint16:
        raise BadInput(f"{path} is no readable 16-bit depth image")
    return image.astype(np.float32) / np.float32(TUM_DEPTH)
