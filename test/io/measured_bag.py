"""Writes a bag of a drive through the known city with odometry, accelerometer and depth."""

from pathlib import Path

import numpy as np
from oracle import City
from recordings import STORAGE
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

T_BASE_CAMERA = np.eye(4)
"""The camera looks forward from the front of the car: its optical axes in those of the body."""
T_BASE_CAMERA[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
T_BASE_CAMERA[:3, 3] = [1.5, 0.2, 1.0]
R_BASE_IMU = Rotation.from_euler("xyz", [10, -20, 120], degrees=True).as_matrix()
"""The accelerometer is mounted askew."""
IMAGES = "/camera/image_raw"


def write_measured_bag(
    folder: Path,
    city: City,
    frames: int,
    storage: str = "mcap",
    static: bool = True,
    leave_out: tuple[str, ...] = (),
    second_odometry: bool = False,
    depth_encoding: str = "16UC1",
    late_ns: int = 0,
    fixes: bool = False,
) -> Path:
    """`fixes`: a satellite receiver too, every fifth time without a fix. `leave_out` names topics
    without slash; `late_ns`: odometry is recorded so much later."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    bag = _Bag(store.types)
    T_world_base = city.T_world_camera @ np.linalg.inv(T_BASE_CAMERA)
    messages = [(0, "/tf_static", bag.static_transforms())] if static else []
    for i in range(frames):
        stamp = city.stamp_ns(i)
        depth, rgb = city.render(np.array([i]))
        pose = np.linalg.inv(T_world_base[0]) @ T_world_base[i]
        up = R_BASE_IMU.T @ T_world_base[i, :3, :3].T @ [0, 0, 9.81]
        messages += [
            (stamp, IMAGES, bag.image(stamp, rgb[0])),
            (stamp + late_ns, "/odom", bag.odometry(stamp, pose)),
            (stamp, "/imu", bag.acceleration(stamp, up)),
            (stamp + 4_000_000, "/camera/depth/image", bag.depth(stamp, depth[0], depth_encoding)),
        ]
        if fixes:
            place = city.T_world_camera[i, :3, 3] if i % 5 else np.full(3, np.nan)
            messages.append((stamp, "/fix", bag.fix(stamp, place, -1 if i % 5 == 0 else 0)))
        if second_odometry:
            messages.append((stamp, "/other_odom", bag.odometry(stamp, pose)))
    kept = [item for item in messages if item[1].strip("/").split("/")[-1] not in leave_out]
    with Writer(folder, version=8, storage_plugin=STORAGE[storage]) as writer:
        lines = {}
        for time, topic, message in sorted(kept, key=lambda item: item[0]):
            kind = message.__msgtype__
            if topic not in lines:
                lines[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(lines[topic], time, store.serialize_cdr(message, kind))
    return folder


class _Bag:
    """Messages of this recording."""

    def __init__(self, types) -> None:
        self._types = types

    def _make(self, name, *values):
        return self._types[name](*values)

    def _header(self, stamp_ns: int, frame: str):
        time = self._make("builtin_interfaces/msg/Time", stamp_ns // 10**9, stamp_ns % 10**9)
        return self._make("std_msgs/msg/Header", time, frame)

    def image(self, stamp_ns: int, rgb: np.ndarray):
        height, width = rgb.shape[:2]
        header = self._header(stamp_ns, "camera_optical")
        pixels = np.ascontiguousarray(rgb).ravel()
        name = "sensor_msgs/msg/Image"
        return self._make(name, header, height, width, "rgb8", 0, 3 * width, pixels)

    def depth(self, stamp_ns: int, metres: np.ndarray, encoding: str):
        header = self._header(stamp_ns + 4_000_000, "camera_optical")
        height, width = metres.shape
        if encoding == "32FC1":
            data, size = np.asarray(metres, "<f4"), 4
        else:
            data, size = np.nan_to_num(1000 * metres).astype("<u2"), 2
        pixels = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        name = "sensor_msgs/msg/Image"
        return self._make(name, header, height, width, encoding, 0, size * width, pixels)

    def odometry(self, stamp_ns: int, T_odom_base: np.ndarray):
        pose = self._make(
            "geometry_msgs/msg/Pose", self._point(T_odom_base[:3, 3]), self._turn(T_odom_base)
        )
        zero = self._make("geometry_msgs/msg/Vector3", 0.0, 0.0, 0.0)
        still = self._make("geometry_msgs/msg/Twist", zero, zero)
        return self._make(
            "nav_msgs/msg/Odometry",
            self._header(stamp_ns, "odom"),
            "base_link",
            self._make("geometry_msgs/msg/PoseWithCovariance", pose, np.zeros(36)),
            self._make("geometry_msgs/msg/TwistWithCovariance", still, np.zeros(36)),
        )

    def acceleration(self, stamp_ns: int, reading: np.ndarray):
        zero = self._make("geometry_msgs/msg/Vector3", 0.0, 0.0, 0.0)
        found = self._make("geometry_msgs/msg/Vector3", *map(float, reading))
        turn = self._make("geometry_msgs/msg/Quaternion", 0.0, 0.0, 0.0, 1.0)
        header, unknown = self._header(stamp_ns, "imu_link"), np.zeros(9)
        name = "sensor_msgs/msg/Imu"
        return self._make(name, header, turn, unknown, zero, unknown, found, unknown)

    def fix(self, stamp_ns: int, place: np.ndarray, status: int):
        """East, north, up as degrees at the equator, where they are alike but for one per cent."""
        per_radian = np.array([6378137.0, 6335439.3])
        longitude, latitude = np.degrees(place[:2] / per_radian)
        state = self._make("sensor_msgs/msg/NavSatStatus", status, 1)
        return self._make(
            "sensor_msgs/msg/NavSatFix", self._header(stamp_ns, "gnss"), state, latitude, longitude,
            place[2], np.zeros(9), 0,
        )  # fmt: skip

    def static_transforms(self):
        T_base_imu = np.eye(4)
        T_base_imu[:3, :3] = R_BASE_IMU
        mounts = (("camera_optical", T_BASE_CAMERA), ("imu_link", T_base_imu))
        items = [
            self._make(
                "geometry_msgs/msg/TransformStamped",
                self._header(0, "/base_link"),
                child,
                self._make(
                    "geometry_msgs/msg/Transform",
                    self._make("geometry_msgs/msg/Vector3", *map(float, T[:3, 3])),
                    self._turn(T),
                ),
            )
            for child, T in mounts
        ]
        return self._make("tf2_msgs/msg/TFMessage", items)

    def _point(self, position: np.ndarray):
        return self._make("geometry_msgs/msg/Point", *map(float, position))

    def _turn(self, T: np.ndarray):
        quaternion = Rotation.from_matrix(T[:3, :3]).as_quat()
        return self._make("geometry_msgs/msg/Quaternion", *map(float, quaternion))
