"""What a bag offers to the demo: its camera topic and, if it has one, the true trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scal3r_ros.io.bag import COMPRESSED, INFO, RAW, choose_topic, open_bag

_TRUTH = {
    "geometry_msgs/msg/PoseStamped": lambda message: message.pose,
    "geometry_msgs/msg/PoseWithCovarianceStamped": lambda message: message.pose.pose,
    "nav_msgs/msg/Odometry": lambda message: message.pose.pose,
}
_TRUTH_WORDS = ("truth", "groundtruth", "gt")


@dataclass(frozen=True)
class Recording:
    """A bag as the demo plays it."""

    bag: Path
    image_topic: str
    """Base topic, without /compressed."""
    transport: str
    """`raw` or `compressed`."""
    camera_info_topic: str
    """Empty if the bag has none beside the images."""
    truth_topic: str
    """Empty if the bag has no ground truth."""
    images: int
    seconds: float

    @property
    def played_topics(self) -> list[str]:
        """Names of the topics to publish."""
        info = [self.camera_info_topic] if self.camera_info_topic else []
        return [self.subscribed_topic, *info]

    @property
    def subscribed_topic(self) -> str:
        suffix = "/compressed" if self.transport == "compressed" else ""
        return f"{self.image_topic}{suffix}"


def inspect(bag: Path, image_topic: str) -> Recording:
    """Find the topics of a bag; `image_topic` may be empty if there is only one camera."""
    with open_bag(bag) as reader:
        types = {connection.topic: connection.msgtype for connection in reader.connections}
        counts = {name: info.msgcount for name, info in reader.topics.items()}
        seconds = reader.duration / 1e9
    topic = choose_topic(types, counts, image_topic, bag)
    compressed = types[topic] == COMPRESSED
    assert compressed or types[topic] == RAW
    base = topic.removesuffix("/compressed") if compressed else topic
    info = f"{base.rsplit('/', 1)[0]}/camera_info"
    truth = sorted(
        name
        for name, kind in types.items()
        if kind in _TRUTH and any(word in name.lower() for word in _TRUTH_WORDS)
    )
    return Recording(
        bag=bag,
        image_topic=base,
        transport="compressed" if compressed else "raw",
        camera_info_topic=info if types.get(info) == INFO else "",
        truth_topic=truth[0] if truth else "",
        images=counts[topic],
        seconds=seconds,
    )


def true_trajectory(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Stamps (N,) int64 nanoseconds and poses (N, 7): position, quaternion x y z w."""
    stamps, poses = [], []
    with open_bag(recording.bag) as reader:
        chosen = [c for c in reader.connections if c.topic == recording.truth_topic]
        for connection, _, data in reader.messages(chosen):
            message = reader.deserialize(data, connection.msgtype)
            pose = _TRUTH[connection.msgtype](message)
            stamp = message.header.stamp
            stamps.append(stamp.sec * 10**9 + stamp.nanosec)
            position, orientation = pose.position, pose.orientation
            poses.append([
                position.x, position.y, position.z,
                orientation.x, orientation.y, orientation.z, orientation.w,
            ])  # fmt: skip
    return np.array(stamps, np.int64), np.array(poses).reshape(-1, 7)
