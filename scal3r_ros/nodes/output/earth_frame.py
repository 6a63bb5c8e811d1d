"""Where the map lies on earth, from satellite fixes: `earth` to `map` on /tf_static (REP 105)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from scal3r_ros.nodes.base.conversions import matrix_to_transform

EARTH = "earth"
PERIOD = 5.0
"""Seconds between two fits of the whole way."""
MOVED = 0.05
"""Metres by which the map's origin must have moved on earth for the transform to be sent again."""
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class EarthFrame:
    """Only where `scale.source` or `scale.also` names gnss; `follow` from the worker's thread."""

    def __init__(self, node: Any, map_frame: str, wanted: bool) -> None:
        self._node, self._map_frame = node, map_frame
        self._publisher = (
            node.create_publisher(TFMessage, "/tf_static", _LATCHED) if wanted else None
        )
        self._sent: np.ndarray | None = None
        self._fitted_at = -PERIOD

    def follow(self, mapper: Any, stamp_ns: int) -> None:
        """Say where the map is, once it is in metres and the fixes tell, and when that changes."""
        now = time.monotonic()
        if self._publisher is None or not mapper.scale.frozen or now - self._fitted_at < PERIOD:
            return
        self._fitted_at = now
        T_earth_map = mapper.live_map.map_in_earth()
        if T_earth_map is None:
            return
        if self._sent is not None:
            change = np.linalg.norm(T_earth_map[:3, 3] - self._sent[:3, 3])
            turned = np.linalg.norm(T_earth_map[:3, :3] - self._sent[:3, :3])
            if change < MOVED and turned < 1e-3:
                return
        self._sent = T_earth_map
        item = matrix_to_transform(T_earth_map, EARTH, self._map_frame, stamp_ns)
        self._publisher.publish(TFMessage(transforms=[item]))

    def destroy(self) -> None:
        """From the executor's thread, or when it has ended."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
