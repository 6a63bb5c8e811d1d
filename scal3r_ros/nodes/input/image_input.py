"""Camera topics to queued frames: header checks, order of stamps, frame gate. Nothing is decoded in
a callback; the message itself waits in the queue."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from scal3r_ros.io.calibration import Calibration
from scal3r_ros.io.camera_info import calibration_from_info, is_rectified_topic
from scal3r_ros.io.image_decoding import ENCODINGS
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.video_packets import video_codec
from scal3r_ros.mapping.frame_gate import FrameGate
from scal3r_ros.nodes.base.conversions import frame_name, stamp_to_ns
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.base.time_guard import Released, TimeGuard
from scal3r_ros.nodes.base.trouble import InputTrouble
from scal3r_ros.nodes.input.adaptive_subscription import AdaptiveSubscription
from scal3r_ros.nodes.input.frame_queue import FrameQueue, Ticket
from scal3r_ros.nodes.input.video_images import VideoImages

CALIBRATION_WAIT = 2.0
"""Seconds of images that wait at most for the first camera_info."""
ANNOUNCEMENT_WAIT = 0.5
"""Seconds after the first image within which a publisher of camera_info may be discovered."""


class BackpressureGroup(MutuallyExclusiveCallbackGroup):
    """Input callbacks wait in the middleware while the queue is full (queue.policy block)."""

    def __init__(self, frames: FrameQueue) -> None:
        super().__init__()
        self._frames = frames

    def can_execute(self, entity) -> bool:
        return not self._frames.full and super().can_execute(entity)


class ImageInput:
    """Subscribes on construction; frames are admitted while `accepting`."""

    def __init__(
        self,
        node,
        config: NodeConfig,
        frames: FrameQueue,
        watch: Callable[[Ticket], None] | None = None,
    ) -> None:
        """`watch` is shown every image in order, also those that the gate leaves out."""
        self.config, self.frames, self._watch = config, frames, watch
        self.accepting = False
        self.counts: Counter[str] = Counter(uncalibrated=0, empty_camera_info=0)
        """Hops: received, unaccepted (inactive or paused), gated; and how many went on without the
        calibration that was asked for."""
        self.guard = TimeGuard(config.time)
        self.gate = FrameGate(config.gate)
        self.unstamped_in_row = 0
        self.camera_frame = ""
        self.encoding = self.encoding_problem = ""
        self.calibration: Calibration | None = None
        self.calibration_problem = ""
        self.trouble = InputTrouble(node.get_logger())
        self._video = VideoImages(config.input.max_pixels)
        self.callback_seconds: deque[float] = deque(maxlen=1000)
        """How long the callbacks of the last images took."""
        self._node = node
        self._arrivals: deque[float] = deque(maxlen=60)
        self._newest = (0, 0)
        self._uncalibrated: list[Ticket] | None = [] if config.input.camera_info else None
        """First frames, which wait for the first camera_info; None once that is settled."""
        self._uncalibrated_since = 0.0
        self._camera_info_topic = node.resolve_topic_name("camera_info")
        block = config.queue.policy == "block"
        group = BackpressureGroup(frames) if block else MutuallyExclusiveCallbackGroup()
        compressed = config.input.image_transport == "compressed"
        kind, topic = (CompressedImage, "image/compressed") if compressed else (Image, "image")
        self._rectified = is_rectified_topic(node.resolve_topic_name(topic))
        self._subscriptions = [
            AdaptiveSubscription(
                node,
                kind,
                topic,
                self._on_image,
                config.qos.image,
                group,
                self.trouble,
                "qos.image",
            )
        ]
        if config.input.camera_info:
            self._subscriptions.append(
                AdaptiveSubscription(
                    node,
                    CameraInfo,
                    "camera_info",
                    self._on_camera_info,
                    config.qos.image,
                    MutuallyExclusiveCallbackGroup(),
                    self.trouble,
                    "qos.image",
                )
            )

    def destroy(self) -> None:
        """From the executor's thread, or when it has ended."""
        for subscription in self._subscriptions:
            subscription.destroy()
        self._subscriptions = []

    def adapt(self) -> None:
        """Follow what the cameras offer; once a second, from the executor's thread."""
        for subscription in self._subscriptions:
            subscription.adapt()

    def reset(self) -> None:
        """Forget the stream and what waits of it."""
        self.guard.reset()
        self.gate.reset()
        self.frames.clear()
        if self._uncalibrated:
            self._uncalibrated = []

    def release_held(self) -> None:
        """Queue what the reordering still holds, for the end of the stream."""
        self._admit(self.guard.flush())
        self._settle_calibration()

    def release_stale(self) -> None:
        """Queue what is held when no further frame has come that it could be sorted with."""
        age = self.age()
        if age is not None and age > max(1.0, self.config.time.reorder_window):
            self._admit(self.guard.release())
            self._settle_calibration()

    def rate(self) -> float:
        """Frames per second over the last arrivals."""
        if len(self._arrivals) < 2:
            return 0.0
        return (len(self._arrivals) - 1) / max(1e-9, self._arrivals[-1] - self._arrivals[0])

    def age(self) -> float | None:
        """Seconds since the last frame arrived; None before the first."""
        return time.monotonic() - self._arrivals[-1] if self._arrivals else None

    def stream_now(self) -> int:
        """The stream's present time: its newest stamp and what the ROS clock has counted since.

        Follows images rather than the clock, so that a bag played without simulated time works too.
        Such a bag may be paused or over, which cannot be told apart, so its time stops soon after
        the last image; where stamps are those of the clock, time goes on whatever the camera does.
        """
        stamp_ns, heard_ns = self._newest
        elapsed = max(self._node.get_clock().now().nanoseconds - heard_ns, 0)
        limit = int(self.config.input.timeout * 1e9)
        of_the_clock = abs(heard_ns - stamp_ns) < limit
        return stamp_ns + (elapsed if of_the_clock else min(elapsed, limit)) if stamp_ns else 0

    def _on_image(self, message: Image | CompressedImage) -> None:
        began = time.monotonic()
        self.counts["received"] += 1
        self._arrivals.append(began)
        try:
            self._hear(message)
        finally:
            self.callback_seconds.append(time.monotonic() - began)

    def _hear(self, message: Image | CompressedImage) -> None:
        if not self.accepting:
            self.counts["unaccepted"] += 1
            return
        self._note_source(message)
        for image in self._unpacked(message):
            self._take(image)

    def _unpacked(self, message: Image | CompressedImage) -> list[Image | CompressedImage]:
        """The message itself, or the images of a packet of video."""
        codec = "" if isinstance(message, Image) else video_codec(message)
        if not codec:
            return [message]
        try:
            images = self._video.of(message, codec)
        except BadInput as error:  # the library is missing
            self.encoding_problem = f"{error}; or subscribe to JPEG"
            raise
        self.counts["lost_packets"] = self._video.lost
        return list(images)

    def _take(self, message: Image | CompressedImage) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        self.unstamped_in_row = 0 if stamp_ns > 0 else self.unstamped_in_row + 1
        if stamp_ns > 0:
            self._newest = (stamp_ns, self._node.get_clock().now().nanoseconds)
        self._admit(self.guard.push(stamp_ns, (message, self.calibration)))

    def _admit(self, released: list[Released]) -> None:
        for frame in released:
            if frame.jumped_back:
                self.gate.reset()
                self._node.get_logger().warning(
                    f"image stamps jumped back by {(self.guard.last_jump_ns or 0) * 1e-9:.3f} s: "
                    f"{self.config.time.on_jump_back}"
                )
            message, calibration = frame.item
            calibration = calibration or self.calibration
            if self._watch is not None:
                self._watch(Ticket(frame.stamp_ns, message, len(message.data), calibration))
            decision = self.gate.admit(frame.stamp_ns)
            if not decision.keep:
                self.counts["gated"] += 1
                continue
            resets = frame.jumped_back and self.config.time.on_jump_back == "reset"
            self._enqueue(
                Ticket(
                    stamp_ns=frame.stamp_ns,
                    message=message,
                    nbytes=len(message.data),
                    calibration=calibration,
                    starts_session=decision.starts_session or frame.jumped_back,
                    resets_map=resets,
                )
            )

    def _enqueue(self, ticket: Ticket) -> None:
        """Queue a frame; the first ones wait for their calibration if one is being published."""
        if self._uncalibrated is None:
            self._put(ticket)
            return
        if not self._uncalibrated:
            self._uncalibrated_since = time.monotonic()
        self._uncalibrated.append(ticket)
        waited = ticket.stamp_ns - self._uncalibrated[0].stamp_ns
        late = waited > CALIBRATION_WAIT * 1e9
        many = len(self._uncalibrated) >= self.config.queue.max_frames
        if self.calibration or late or many or not self._calibration_is_expected():
            self._settle_calibration()

    def _calibration_is_expected(self) -> bool:
        """Somebody publishes camera_info, or may just not be discovered yet."""
        if time.monotonic() - self._uncalibrated_since < ANNOUNCEMENT_WAIT:
            return True
        return self._node.count_publishers(self._camera_info_topic) > 0

    def _settle_calibration(self) -> None:
        """Whether or not there is a calibration, frames wait no longer."""
        waiting, self._uncalibrated = self._uncalibrated or [], None
        for ticket in waiting:
            self._put(replace(ticket, calibration=self.calibration))

    def _put(self, ticket: Ticket) -> None:
        self.counts["uncalibrated"] += ticket.calibration is None and self.config.input.camera_info
        self.frames.put(ticket)

    def _note_source(self, message: Image | CompressedImage) -> None:
        self._note_encoding(message)
        name = frame_name(message.header.frame_id) or self.config.tf.camera_frame
        if name == self.camera_frame:
            return
        if self.camera_frame:
            self._node.get_logger().warning(
                f"images changed their frame from {self.camera_frame} to {name}"
            )
        elif "optical" not in name:
            self._node.get_logger().warning(
                f"images are in frame {name!r}; poses are those of an optical frame (z forward, x "
                "right, y down), whose name usually ends in _optical_frame"
            )
        self.camera_frame = name

    def _note_encoding(self, message: Image | CompressedImage) -> None:
        """Told at the first image, long before the network is loaded and one is decoded."""
        encoding = message.encoding if isinstance(message, Image) else message.format
        if encoding == self.encoding:
            return
        self.encoding, self.encoding_problem = encoding, ""
        if isinstance(message, Image) and encoding not in ENCODINGS:
            self.encoding_problem = (
                f"image encoding {encoding!r} is not supported; let the driver send one of "
                f"{', '.join(ENCODINGS)}"
            )
            self._node.get_logger().error(self.encoding_problem, throttle_duration_sec=5.0)

    def _on_camera_info(self, message: CameraInfo) -> None:
        """A usable one replaces the one before; others, empty or wrong, leave it in force."""
        try:
            found = calibration_from_info(message, self._camera_info_topic, self._rectified)
        except BadInput as error:
            self.calibration_problem = str(error)
            raise
        if found is None:  # the first ones of a driver that has not read its file yet
            self.counts["empty_camera_info"] += 1
            return
        self.calibration_problem = ""
        if not found.same_as(self.calibration):
            self._tell_late(found)
            self.calibration = found
        self._settle_calibration()

    def _tell_late(self, calibration: Calibration) -> None:
        """The map so far is of images that the new calibration would have undistorted."""
        if self.counts["uncalibrated"] and calibration.distorted:
            self._node.get_logger().warning(
                f"{self.counts['uncalibrated']} images were mapped before the first camera_info, "
                "distorted as they came; call ~/reset if they bend the map"
            )
