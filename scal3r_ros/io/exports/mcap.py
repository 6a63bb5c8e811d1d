"""The results as a rosbag2 recording in MCAP: plays with `ros2 bag`, opens in Foxglove."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scal3r_ros import rigid
from scal3r_ros.io.exports.images import files_in, replaced_folder
from scal3r_ros.io.exports.map_view import MapView, View, library
from scal3r_ros.records import TrajectoryPose

MAP, CAMERA = "map", "camera_optical_frame"
TOPICS = {
    "/tf": "tf2_msgs/msg/TFMessage",
    "/scal3r/pose": "geometry_msgs/msg/PoseStamped",
    "/scal3r/path": "nav_msgs/msg/Path",
    "/scal3r/map": "sensor_msgs/msg/PointCloud2",
    "/scal3r/camera_info": "sensor_msgs/msg/CameraInfo",
    "/scal3r/image/compressed": "sensor_msgs/msg/CompressedImage",
}
_QUALITY = 80
_POINT = [("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("rgb", 12, 7), ("confidence", 16, 7)]
"""Fields of a point: name, offset, FLOAT32."""


def write(view: MapView, folder: Path) -> list[Path]:
    """`recording/`: poses and images at their stamps, path and points at the last one."""
    target = folder / "recording"
    rosbag2 = library("rosbags.rosbag2", "bags")
    with replaced_folder(target) as partial:
        partial.rmdir()  # the writer makes it
        with rosbag2.Writer(partial, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as bag:
            messages = _Messages(library("rosbags.typesys", "bags"), bag)
            for pose in view.poses:
                messages.pose(pose)
            for item in view.views():
                messages.image(item)
            if view.poses:
                messages.path(view.poses)
                messages.cloud(view, view.poses[-1].stamp_ns)
    # The metadata name the file, which has the folder's name while it was made.
    made = target / f".{target.name}.part.mcap"
    if made.exists():
        made.replace(target / f"{target.name}.mcap")
        facts = target / "metadata.yaml"
        facts.write_text(facts.read_text().replace(made.name, f"{target.name}.mcap"))
    return files_in(target)


class _Messages:
    """Makes messages and writes them."""

    def __init__(self, typesys: Any, bag: Any) -> None:
        self._store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
        self._bag = bag
        self._topics = {
            topic: bag.add_connection(topic, kind, typestore=self._store)
            for topic, kind in TOPICS.items()
        }

    def pose(self, pose: TrajectoryPose) -> None:
        header = self._header(pose.stamp_ns, MAP)
        place, turn = self._place(pose.T_map_camera)
        transform = self._make("geometry_msgs/msg/Transform", self._vector(place), turn)
        stamped = self._make("geometry_msgs/msg/TransformStamped", header, CAMERA, transform)
        self._write("/tf", pose.stamp_ns, [stamped])
        self._write("/scal3r/pose", pose.stamp_ns, header, self._pose(pose.T_map_camera))

    def path(self, poses: tuple[TrajectoryPose, ...]) -> None:
        items = [
            self._make(
                "geometry_msgs/msg/PoseStamped",
                self._header(pose.stamp_ns, MAP),
                self._pose(pose.T_map_camera),
            )
            for pose in poses
        ]
        newest = poses[-1].stamp_ns
        self._write("/scal3r/path", newest, self._header(newest, MAP), items)

    def image(self, item: View) -> None:
        header = self._header(item.stamp_ns, CAMERA)
        buffer = io.BytesIO()
        Image.fromarray(item.rgb).save(buffer, "JPEG", quality=_QUALITY)
        data = np.frombuffer(buffer.getvalue(), np.uint8)
        self._write("/scal3r/image/compressed", item.stamp_ns, header, "jpeg", data)
        height, width = item.rgb.shape[:2]
        K = item.intrinsics.copy()
        K[:2, 2] -= 0.5  # in ROS the first pixel's centre is (0, 0)
        P = np.hstack([K, np.zeros((3, 1))]).ravel()
        region = self._make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        self._write(
            "/scal3r/camera_info", item.stamp_ns, header, height, width, "plumb_bob", np.zeros(5),
            K.ravel(), np.eye(3).ravel(), P, 0, 0, region,
        )  # fmt: skip

    def cloud(self, view: MapView, stamp_ns: int) -> None:
        cloud = view.cloud
        rows = np.zeros((len(cloud), 5), "<f4")
        rows[:, :3], rows[:, 4] = cloud.points, cloud.confidence
        red, green, blue = cloud.colors.astype(np.uint32).T
        rows[:, 3] = (red << 16 | green << 8 | blue).astype("<u4").view("<f4")
        fields = [self._make("sensor_msgs/msg/PointField", *field, 1) for field in _POINT]
        data = rows.view(np.uint8).ravel()
        self._write(
            "/scal3r/map", stamp_ns, self._header(stamp_ns, MAP), 1, len(cloud), fields, False,
            20, 20 * len(cloud), data, True,
        )  # fmt: skip

    def _write(self, topic: str, stamp_ns: int, *fields: Any) -> None:
        message = self._make(TOPICS[topic], *fields)
        data = self._store.serialize_cdr(message, TOPICS[topic])
        self._bag.write(self._topics[topic], stamp_ns, data)

    def _make(self, kind: str, *fields: Any) -> Any:
        return self._store.types[kind](*fields)

    def _header(self, stamp_ns: int, frame: str) -> Any:
        time = self._make("builtin_interfaces/msg/Time", *divmod(stamp_ns, 10**9))
        return self._make("std_msgs/msg/Header", time, frame)

    def _vector(self, values: np.ndarray) -> Any:
        return self._make("geometry_msgs/msg/Vector3", *(float(value) for value in values))

    def _place(self, T: np.ndarray) -> tuple[np.ndarray, Any]:
        turn = (float(value) for value in rigid.quaternion(T[:3, :3]))
        return T[:3, 3], self._make("geometry_msgs/msg/Quaternion", *turn)

    def _pose(self, T: np.ndarray) -> Any:
        place, turn = self._place(T)
        point = self._make("geometry_msgs/msg/Point", *(float(value) for value in place))
        return self._make("geometry_msgs/msg/Pose", point, turn)
