"""The node's outputs: topics, types and quality of service in one table."""

from __future__ import annotations

from dataclasses import dataclass

from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import OccupancyGrid, Odometry, Path
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from scal3r_ros.msg import ChunkTrajectory, Localisation

STREAM = QoSProfile(depth=10)
"""Reliable: with best effort a lost fragment loses the whole message."""
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Reliable and kept for who joins later."""
CLOUD_SLICES = QoSProfile(depth=100)
"""As `STREAM`, deep enough for the slices of one chunk."""


@dataclass(frozen=True)
class Publishers:
    """All publishers except /tf and /diagnostics."""

    odometry: Publisher
    pose: Publisher
    path: Publisher
    trajectory: Publisher
    cloud: Publisher
    map: Publisher
    depth: Publisher
    confidence: Publisher
    depth_info: Publisher
    graph: Publisher
    grid: Publisher
    obstacles: Publisher
    localisation: Publisher

    @staticmethod
    def create(node) -> Publishers:
        """Plain publishers: lifecycle ones drop silently while inactive, latched ones must not."""
        make = node.create_publisher
        return Publishers(
            odometry=make(Odometry, "~/odometry", QoSProfile(depth=100)),
            pose=make(PoseWithCovarianceStamped, "~/pose", STREAM),
            path=make(Path, "~/path", LATCHED),
            trajectory=make(ChunkTrajectory, "~/trajectory", STREAM),
            cloud=make(PointCloud2, "~/cloud", CLOUD_SLICES),
            map=make(PointCloud2, "~/map", LATCHED),
            depth=make(Image, "~/depth", STREAM),
            confidence=make(Image, "~/confidence", STREAM),
            depth_info=make(CameraInfo, "~/camera_info", STREAM),
            graph=make(MarkerArray, "~/graph", LATCHED),
            grid=make(OccupancyGrid, "~/grid", LATCHED),
            obstacles=make(PointCloud2, "~/obstacles", STREAM),
            localisation=make(Localisation, "~/localisation", LATCHED),
        )

    def destroy(self, node) -> None:
        """From the executor's thread, or when it has ended."""
        for publisher in vars(self).values():
            node.destroy_publisher(publisher)
