"""Odometry, IMU, satellite and depth topics of a rosbag2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scal3r_ros.io.bag import COMPRESSED, RAW, open_bag
from scal3r_ros.io.depth_image import depth_in_metres
from scal3r_ros.io.measurements import ALTERNATIVES, Measurement
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.static_transforms import StaticTransforms, pose_matrix

ODOMETRY = "nav_msgs/msg/Odometry"
POSE = "geometry_msgs/msg/PoseStamped"
IMU = "sensor_msgs/msg/Imu"
FIX = "sensor_msgs/msg/NavSatFix"
TYPES = {
    "odometry": (ODOMETRY, POSE),
    "imu": (IMU,),
    "gnss": (FIX,),
    "depth": (RAW, COMPRESSED),
}
OPTIONS = {
    "odometry": "--odometry-topic",
    "imu": "--imu-topic",
    "gnss": "--fix-topic",
    "depth": "--depth-topic",
}


class BagMeasurements:
    """Topics found by their type, or named. Axes follow from the bag's /tf_static.

    Depth images must be registered to the colour camera.
    """

    def __init__(
        self,
        path: Path,
        wanted: Mapping[str, str],
        image_topic: str,
        topics: Mapping[str, str],
        T_base_camera: np.ndarray | None,
    ) -> None:
        self._path = path
        with open_bag(path) as reader:
            self._topics = {
                kind: _choose(reader, kind, option, topics.get(kind, ""), image_topic, path)
                for kind, option in wanted.items()
            }
            static = StaticTransforms.of_bag(reader)
            image = _first(reader, image_topic)
            camera = getattr(image, "header", image).frame_id  # foxglove's have no header
            self.T_base_camera, self._T_camera_imu = T_base_camera, np.eye(4)
            if "odometry" in wanted and T_base_camera is None:
                message = _first(reader, self._topics["odometry"])
                body = getattr(message, "child_frame_id", "")
                self.T_base_camera = _mount(static, body, camera, wanted["odometry"], path)
            if "imu" in wanted:
                sensor = _first(reader, self._topics["imu"]).header.frame_id
                self._T_camera_imu = _known(static, camera, sensor, wanted["imu"], path)
        self.description = ", ".join(f"{kind} {topic}" for kind, topic in self._topics.items())

    def __iter__(self) -> Iterator[Measurement]:
        kinds = {topic: kind for kind, topic in self._topics.items()}
        with open_bag(self._path) as reader:
            connections = [c for c in reader.connections if c.topic in kinds]
            for connection, _, data in reader.messages(connections):
                message: Any = reader.deserialize(data, connection.msgtype)
                stamp = message.header.stamp
                stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
                kind = kinds[connection.topic]
                if kind == "gnss" and not has_fix(message):
                    continue
                yield Measurement(stamp_ns, kind, partial(self._read, kind, message))

    def _read(self, kind: str, message: Any) -> np.ndarray:
        if kind == "odometry":
            inner = message.pose
            return pose_matrix(getattr(inner, "pose", inner), f"{self._topics[kind]}")
        if kind == "imu":
            turn, place = self._T_camera_imu[:3, :3], self._T_camera_imu[:3, 3]
            force, rate = (
                turn @ np.array([vector.x, vector.y, vector.z])
                for vector in (message.linear_acceleration, message.angular_velocity)
            )
            return np.concatenate([force, rate, place])
        if kind == "gnss":
            return np.array([message.latitude, message.longitude, message.altitude])
        return depth_in_metres(message, f"{self._path}: {self._topics[kind]}")


def has_fix(message: Any) -> bool:
    """Whether a NavSatFix tells a place: the status of one without a fix is negative."""
    values = (message.latitude, message.longitude, message.altitude)
    return message.status.status >= 0 and bool(np.isfinite(values).all())


def _choose(reader: Any, kind: str, option: str, named: str, image_topic: str, path: Path) -> str:
    """The named topic, or the only one of its kind."""
    usable = {c.topic for c in reader.connections if c.msgtype in TYPES[kind] and c.msgcount}
    if named in usable:
        return named
    likely = sorted(_likely(reader, kind, usable - {image_topic}))
    listing = ", ".join(likely) or "none"
    if named:
        raise BadInput(f"{path} has no {kind} on {named}; {kind} topics: {listing}")
    if not likely:
        there = ", ".join(sorted({c.topic for c in reader.connections}))
        raise BadInput(
            f"{option}: {path} holds no {kind} topic; topics: {there}; {ALTERNATIVES[kind]}"
        )
    if len(likely) > 1:
        raise BadInput(
            f"{path} has several {kind} topics; choose one with {OPTIONS[kind]}: {listing}"
        )
    return likely[0]


def _likely(reader: Any, kind: str, topics: set[str]) -> set[str]:
    """Poses may be anything and images any camera: only what says that it is meant."""
    if kind == "depth":
        return {t for t in topics if "depth" in t.lower() and "compressedDepth" not in t}
    if kind == "odometry":
        return {c.topic for c in reader.connections if c.topic in topics and c.msgtype == ODOMETRY}
    return topics


def _first(reader: Any, topic: str) -> Any:
    for connection, _, data in reader.messages([c for c in reader.connections if c.topic == topic]):
        return reader.deserialize(data, connection.msgtype)
    raise BadInput(f"{topic} has no messages")


def _mount(static: StaticTransforms, body: str, camera: str, option: str, path: Path) -> np.ndarray:
    if not body:
        raise BadInput(
            f"{option}: the messages do not name the body that they locate; say with "
            f"--camera-mount where the camera is on it"
        )
    try:
        return _known(static, body, camera, option, path)
    except BadInput as error:
        raise BadInput(f"{error}, or say with --camera-mount where the camera is") from error


def _known(static: StaticTransforms, target: str, source: str, option: str, path: Path):
    T = static.lookup(target, source)
    if T is None:
        raise BadInput(
            f"{option}: /tf_static of {path} does not connect {source!r} with {target!r} (it knows "
            f"{static}); record /tf_static too"
        )
    return T
