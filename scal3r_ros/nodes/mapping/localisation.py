"""Where the camera is in the map, told on `~/localisation`; and what others say about it, heard on
`initialpose`."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from scal3r_ros import rigid
from scal3r_ros.msg import Localisation
from scal3r_ros.nodes.base.conversions import (
    frame_name,
    header,
    ns_to_stamp,
    pose_message,
    pose_to_matrix,
)
from scal3r_ros.nodes.base.trouble import InputTrouble
from scal3r_ros.nodes.output.transforms import ROBOT_MODES
from scal3r_ros.pipeline.localisation import LOCALISATION, Whereabouts
from scal3r_ros.pipeline.localiser import Guess

BODY_OPTICAL = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
"""Optical axes in a body whose x points where the camera looks (REP 103)."""


class InitialPose:
    """Subscribes to `initialpose`; a pose is handed to the mapper as a guess, to be checked."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.trouble = InputTrouble(session.node.get_logger())
        heard = self.trouble.guarded("initialpose", self._on_pose)
        self._subscription = session.node.create_subscription(
            PoseWithCovarianceStamped, "initialpose", heard, 1,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )  # fmt: skip

    def destroy(self) -> None:
        self._session.node.destroy_subscription(self._subscription)

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        """A pose of the robot's base, or of a hand-held camera as a body that looks along x."""
        session, tf = self._session, self._session.config.tf
        frame = frame_name(message.header.frame_id)
        if frame != tf.map:
            raise ValueError(f"initialpose is in frame {frame!r}; give it in {tf.map!r}")
        mapper = session.worker.mapper
        if mapper is None or mapper.whereabouts is None:
            raise ValueError("initialpose is used in mode localisation only; call ~/set_mode")
        T_body_camera = BODY_OPTICAL
        if tf.mode in ROBOT_MODES:
            camera = session.input.camera_frame or tf.camera_frame
            T_body_camera = session.transforms.extrinsic(camera, session.input.stream_now())
        T_map_camera = pose_to_matrix(message.pose.pose) @ T_body_camera
        covariance = np.array(message.pose.covariance).reshape(6, 6)
        lever = T_map_camera[:3, 3] - pose_to_matrix(message.pose.pose)[:3, 3]
        guess = Guess(T_map_camera, rigid.carried(covariance, lever))
        session.worker.submit(lambda mapper: mapper.guess(guess))
        session.node.get_logger().info("initialpose is compared with the map by the next chunk")


class LocalisationStatus:
    """Publishes `~/localisation` when something has changed, and once a second."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def publish(self) -> None:
        """From any thread."""
        session = self._session
        mapper = session.worker.mapper
        if mapper is None:
            return
        message = status_message(
            mapper.mode, mapper.whereabouts, session.config.tf.map, session.input.stream_now()
        )
        session.publishers.localisation.publish(message)


def status_message(
    mode: str, known: Whereabouts | None, map_frame: str, now_ns: int
) -> Localisation:
    """What is known about the camera's place at a time of the images' clock."""
    message = Localisation(header=header(map_frame, now_ns), mode=mode)
    if known is None or mode != LOCALISATION:
        return message
    message.state, message.reason, message.compared = known.state, known.reason, known.compared
    message.since, message.checked = ns_to_stamp(known.since_ns), ns_to_stamp(known.checked_ns)
    T = np.eye(4) if known.T_map_camera is None else known.T_map_camera
    pose = pose_message(T, known.covariance_at(now_ns), map_frame, known.stamp_ns)
    message.pose = pose.pose
    return message
