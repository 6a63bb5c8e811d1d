"""What a recording measures beside images: odometry, IMU, fixes, depth. For metres and level."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

AHEAD_NS = 1_000_000_000
"""Measurements are handed on this long before the image that they belong to: some are recorded
late."""
DEPTH_NS = 20_000_000
"""Largest time between an image and its depth."""


@dataclass(frozen=True)
class Measurement:
    """One measurement, not yet decoded."""

    stamp_ns: int
    kind: str
    """`odometry`: T_odom_base (4, 4) in metres. `imu`: specific force, turn rate and place of the
    sensor (9,) in the camera's optical axes.
    `gnss`: latitude, longitude, altitude (3,). `depth`: (H, W) in metres, 0 or not finite where
    unknown."""
    read: Callable[[], np.ndarray]


class Measurements(Protocol):
    """Measurements of a recording in order of time."""

    description: str
    T_base_camera: np.ndarray | None
    """Where the camera is mounted on the body whose odometry is measured, if it is."""

    def __iter__(self) -> Iterator[Measurement]: ...


class Observer(Protocol):
    """What takes measurements: the mapper."""

    def observe_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None: ...

    def observe_imu(self, stamp_ns: int, reading: np.ndarray) -> None: ...

    def observe_fix(self, stamp_ns: int, fix: np.ndarray) -> None: ...

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
        elif measurement.kind == "gnss":
            observer.observe_fix(measurement.stamp_ns, measurement.read())
        else:
            observer.observe_imu(measurement.stamp_ns, measurement.read())


ALTERNATIVES = {
    "odometry": "take scale.source camera_height or known_distance, or none for unknown scale",
    "depth": "take scale.source camera_height or known_distance, or none for unknown scale",
    "imu": "take another scale.source, and map.alignment first_camera, floor or none",
    "gnss": "take another scale.source, or none for unknown scale",
}
"""What a user can do if something is not measured."""


def wanted_measurements(
    scale_sources: Collection[str], map_alignment: str, named: Collection[str] = ()
) -> dict[str, str]:
    """Kinds that the configuration needs and the option that says so; `named`: kinds whose topic
    was given."""
    wanted = {"odometry": "--odometry-topic"} if "odometry" in named else {}
    for source in ("odometry", "depth", "imu", "gnss"):
        if source in scale_sources:
            wanted[source] = f"scale.source {source}"
    if map_alignment == "imu":
        wanted.setdefault("imu", "map.alignment imu")
    return wanted
