"""The thread that tells a pose for every camera image between two chunks.

The input hands it every image before the frame gate; the worker hands it every mapped chunk. Its
queue is short and drops the oldest: a live pose that comes late is of no use.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable

import numpy as np

from scal3r_ros.io.stretch import Stretch
from scal3r_ros.io.tracked import TrackedImage
from scal3r_ros.nodes.base.conversions import odometry_message
from scal3r_ros.nodes.base.node_config import RECURRENT, NodeConfig
from scal3r_ros.nodes.input.frame_decoder import decode
from scal3r_ros.nodes.input.frame_queue import Ticket
from scal3r_ros.nodes.mapping.worker import Output
from scal3r_ros.records import ChunkPrediction, ScaleEstimate
from scal3r_ros.tracking.features import FeatureTracker
from scal3r_ros.tracking.interface import LiveTracker, Submap, TrackingLost
from scal3r_ros.tracking.live_pose import LivePose, LivePoses
from scal3r_ros.tracking.submaps import submap_of

_WAITING = 8
"""Images that wait at most."""
_RECORDED = 100_000
"""Images whose live poses are remembered for `~/export`: about an hour at 30 Hz."""


class LiveTracking:
    """`put` images, give it what the worker delivers; `publish` gets every pose, on its thread."""

    def __init__(
        self,
        config: NodeConfig,
        make_poses: Callable[[], LivePoses],
        publish: Callable[[LivePose, ScaleEstimate], None],
        logger,
    ) -> None:
        self.config = config
        self.counts: Counter[str] = Counter(tracked=0, lost=0, dropped=0)
        self.lost = "no chunk has been mapped yet"
        """Why there is no pose for the newest image; empty when there is one."""
        self.latency: deque[float] = deque(maxlen=200)
        """Seconds from the arrival of an image to its pose, the newest ones."""
        self.record: deque[TrackedImage] = deque(maxlen=_RECORDED)
        """What was told of every image since the first chunk, for `~/export`."""
        self._make_poses, self._publish, self._logger = make_poses, publish, logger
        self._changed = threading.Condition()
        self._images: deque[tuple[float, Ticket]] = deque()
        self._submap: Submap | None = None
        self._scale = ScaleEstimate()
        self._left_map = self._stopping = self._mapped = False
        self._number, self._stretch = 0, Stretch()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Take no more images: the thread ends behind the one in hand. Never waits."""
        with self._changed:
            self._stopping = True
            self._images.clear()
            self._changed.notify()

    def stop(self, timeout: float) -> bool:
        """End the thread; False if it is still busy after `timeout` seconds."""
        self.ask_to_stop()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def put(self, ticket: Ticket) -> None:
        """The next image, not decoded yet; never waits."""
        with self._changed:
            if self._stopping:
                return
            if len(self._images) >= _WAITING:
                self._note(TrackedImage(self._images.popleft()[1].stamp_ns))
                self.counts["dropped"] += 1
            self._images.append((time.monotonic(), ticket))
            self._changed.notify()

    def deliver(self, output: Output, prediction: ChunkPrediction | None) -> None:
        """On the worker's thread: the newest chunk, once it is in the map."""
        if output.replaced or not output.mapper.connected:
            self._leave_map()
        if not output.updates or prediction is None or not output.mapper.connected:
            return
        update = output.updates[-1]
        if update.scale.applied != self._scale.applied:
            self._leave_map()
        self._scale = update.scale
        if prediction.chunk_index != update.chunk_index:
            return
        scale = output.mapper.chunk_scale(prediction.chunk_index)
        submap = submap_of(prediction, update.poses, scale)
        if submap is not None:
            with self._changed:
                self._submap, self._mapped = submap, True

    def _leave_map(self) -> None:
        """Forget the submap that live poses refer to: the map is another one, or in other units."""
        with self._changed:
            self._submap, self._left_map, self._mapped = None, True, False
            self.record.clear()

    def _run(self) -> None:
        try:
            self._poses = self._make_poses()  # weights may take seconds
        except (ValueError, OSError, RuntimeError) as error:
            self.lost = f"tracking cannot begin: {error}"
            self._logger.error(self.lost)
            return
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._images or self._stopping)
                if self._stopping:
                    return
                arrived, ticket = self._images.popleft()
                left, self._left_map = self._left_map, False
                submap, self._submap = self._submap, None
                scale = self._scale
            try:
                if left:
                    self._poses.leave_map()
                if submap is not None:
                    self._poses.anchor(submap)
                self._track(ticket, arrived, scale)
            except Exception:  # the thread's border: the map goes on without live poses
                self.counts["failed"] += 1
                self._logger.error(
                    f"tracking failed:\n{traceback.format_exc()}", throttle_duration_sec=5.0
                )

    def _track(self, ticket: Ticket, arrived: float, scale: ScaleEstimate) -> None:
        self._number += 1
        try:
            frame = decode(ticket, self._number, self.config.input, self._stretch).frame
            pose = self._poses.step(frame)
        except (ValueError, TrackingLost) as problem:
            self.counts["lost"] += 1
            self.lost = str(problem)
            self._note(TrackedImage(ticket.stamp_ns))
            return
        self.counts["tracked"] += 1
        self.lost = ""
        self._publish(pose, scale)
        seconds = time.monotonic() - arrived
        self.latency.append(seconds)
        self._note(TrackedImage(ticket.stamp_ns, seconds, pose.T_map_camera))

    def _note(self, image: TrackedImage) -> None:
        """Before the first chunk there is nothing to tell poses of."""
        if self._mapped:
            self.record.append(image)


class LiveOutput:
    """Publishes live poses on /tf and `~/odometry`, with the stamp of the image."""

    def __init__(self, config: NodeConfig, session) -> None:
        self.config, self._session = config, session

    def __call__(self, pose: LivePose, scale: ScaleEstimate) -> None:
        """From the tracking thread."""
        session, tf = self._session, self.config.tf
        camera_frame = session.input.camera_frame or tf.camera_frame
        if not session.transforms.live(pose.T_map_camera, camera_frame, scale, pose.stamp_ns):
            return
        still = np.zeros(6)
        unknown = np.diag(np.full(6, np.inf))
        session.publishers.odometry.publish(
            odometry_message(
                pose.T_map_camera, pose.covariance, still, unknown, tf.map, camera_frame,
                pose.stamp_ns,
            )
        )  # fmt: skip


def open_tracking(session) -> LiveTracking | None:
    """The configured tracking of a mapping session; None without one, and where odometry fills the
    time between chunks."""
    config = session.config
    if config.tracking.kind == "none" or config.tf.mode == "map_to_odom":
        return None
    output = LiveOutput(config, session)
    return LiveTracking(
        config, lambda: LivePoses(open_tracker(config)), output, session.node.get_logger()
    )


def open_tracker(config: NodeConfig) -> LiveTracker:
    """What `tracking.kind` names; raises `ValueError` for weights of the other network."""
    tracking = config.tracking
    if tracking.kind not in RECURRENT:
        return FeatureTracker()
    from scal3r_ros.networks.mem3r.checkpoint import load_network
    from scal3r_ros.reconstruct.devices import resolve_device
    from scal3r_ros.tracking.recurrent import RecurrentTracker
    from scal3r_ros.tracking.recurrent_live import RecurrentLiveTracker

    device = resolve_device(config.model.device)
    network = load_network(tracking.checkpoint, device)
    found = "cut3r" if network.uses_slots else "mem3r"
    if found != tracking.kind:
        raise ValueError(
            f"{tracking.checkpoint} holds weights of {found}; set tracking.kind to {found}"
        )
    tracker = RecurrentTracker(network, tracking.rule, str(device))
    return RecurrentLiveTracker(tracker, tracking.block)
