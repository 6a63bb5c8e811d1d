"""Gathers the node's state and publishes it on /diagnostics, in every lifecycle state."""

from __future__ import annotations

import sys
from collections import Counter

from diagnostic_msgs.msg import DiagnosticArray

from scal3r_ros.nodes.base.trouble import snapshot
from scal3r_ros.nodes.mapping import diagnostics
from scal3r_ros.nodes.mapping.diagnostics import Concern, InputHealth
from scal3r_ros.records import ScaleEstimate


class HealthReport:
    """`publish` once a second from a steady timer, whether or not the ROS clock runs."""

    def __init__(self, node) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reported: Counter[str] = Counter()
        """Counts as the last report had them."""

    def publish(self) -> None:
        """One message with every concern."""
        session = self._node.session
        concerns = self._without_session() if session is None else self._concerns(session)
        hardware = session.input.camera_frame if session is not None else ""
        self._publisher.publish(
            diagnostics.diagnostic_array(
                diagnostics.status_name(self._node),
                hardware,
                concerns,
                self._node.get_clock().now().to_msg(),
            )
        )

    def _without_session(self) -> list[Concern]:
        message = f"{self._node.lifecycle_state}: trigger configure and activate"
        names = ("input", "inference", "gpu", "map", "localisation", "scale", "time", "tf")
        return [Concern(name, [(diagnostics.OK, message)]) for name in names]

    def _concerns(self, session) -> list[Concern]:
        active = self._node.lifecycle_state == "active" and not self._node.paused
        return [
            self._input(session, active),
            self._inference(session),
            diagnostics.gpu_concern(
                gpu_memory(), session.config.model.device, session.worker.counts
            ),
            self._map(session),
            self._localisation(session, active),
            diagnostics.scale_concern(
                session.worker.mapper.scale if session.worker.mapper else ScaleEstimate()
            ),
            self._time(session),
            diagnostics.tf_concern(
                session.config.tf.mode, session.transforms.problem, session.transforms.refused,
                active,
                session.transforms.correction,
                self._unseen(session),
                list(session.publisher.latency),
                session.config.tf.buffer,
            ),
            *self._tracking(session, active),
            *self._floor(session),
        ]  # fmt: skip

    def _tracking(self, session, active: bool) -> list[Concern]:
        """One status where live poses are asked for."""
        tracking = session.tracking
        if tracking is None:
            return []
        counts, latency = snapshot(tracking.counts), list(tracking.latency)
        return [diagnostics.tracking_concern(tracking.lost, active, counts, latency)]

    def _floor(self, session) -> list[Concern]:
        """One status where a grid is asked for."""
        if not session.config.grid.enabled:
            return []
        mapper = session.worker.mapper
        dropped = mapper.live_map.floor.occupancy.dropped if mapper else 0
        return [diagnostics.grid_concern(session.floor.refusal, dropped)]

    def _unseen(self, session) -> float:
        """Seconds for which map to odom has been repeated without an image; 0 if it is not."""
        age = session.input.age() or 0.0
        return age if session.transforms.repeating and age > session.config.input.timeout else 0.0

    def _input(self, session, active: bool) -> Concern:
        counts: Counter[str] = Counter()
        rooms = (session.input.trouble, session.side_inputs.trouble, session.transforms.trouble,
                 session.initial_pose.trouble)  # fmt: skip
        parts = (session.input.counts, session.frames.counts, session.worker.counts)
        for part in (*parts, *(room.counts for room in rooms)):
            counts.update(snapshot(part))
        new = counts - self._reported
        self._reported = counts
        transport = session.config.input.image_transport
        topic = "image" if transport == "raw" else "image/compressed"
        return diagnostics.input_concern(
            InputHealth(
                active=active,
                topic=self._node.resolve_topic_name(topic),
                rate=session.input.rate(),
                age=session.input.age(),
                timeout=session.config.input.timeout,
                encoding=session.input.encoding,
                counts=counts,
                incompatible=[sentence for room in rooms for sentence in room.incompatible],
                calibration_problem=session.worker.statistics.calibration_problem
                or session.input.calibration_problem,
                calibrated=session.input.calibration is not None
                and not session.worker.statistics.calibration_problem,
                recent_drops=new["dropped"],
                recent_malformed={k: n for k, n in new.items() if k.startswith("malformed")},
                recent_lost={k: n for k, n in new.items() if k.startswith("lost_")},
                failed_callbacks=self._node.failed_callbacks,
                encoding_problem=session.input.encoding_problem,
                unstamped_in_row=session.input.unstamped_in_row,
                malformed_in_row=session.worker.statistics.malformed_in_row,
                malformed_reason=session.worker.statistics.malformed_reason,
                callback_seconds=list(session.input.callback_seconds),
            )
        )

    def _inference(self, session) -> Concern:
        worker = session.worker
        statistics = worker.statistics
        events = {
            name: value
            for name, value in snapshot(worker.counts).items()
            if name not in diagnostics.HOPS
        }
        return diagnostics.inference_concern(
            worker.state,
            worker.reason,
            list(statistics.chunk_seconds),
            list(statistics.video_seconds),
            len(session.frames),
            statistics.failures_in_row,
            events,
            worker.reconstructor.limits if worker.reconstructor else "",
            statistics.unmapped_in_row,
            statistics.unmapped_reason,
            session.commands.progress(),
        )

    def _map(self, session) -> Concern:
        mapper, options = session.worker.mapper, session.config.map
        if mapper is None:
            return Concern("map", [(diagnostics.OK, "no map yet")])
        return diagnostics.map_concern(
            mapper.points_count,
            mapper.nbytes,
            options.max_megabytes,
            mapper.map_revision,
            mapper.next_frame_id,
            options.alignment,
        )

    def _localisation(self, session, active: bool) -> Concern:
        mapper = session.worker.mapper
        mode, known = ("mapping", None) if mapper is None else (mapper.mode, mapper.whereabouts)
        return diagnostics.localisation_concern(mode, known, active, session.input.stream_now())

    def _time(self, session) -> Concern:
        counts = {**session.input.guard.counts, "gap": session.input.gate.counts["gap"]}
        return diagnostics.time_concern(
            bool(self._node.get_parameter("use_sim_time").value),
            self._node.get_clock().now().nanoseconds,
            counts,
            session.input.guard.last_jump_ns,
        )


def gpu_memory() -> dict[str, float] | None:
    """Megabytes used, peak and total of the current CUDA device; None if none is in use.

    Asks only a torch that the worker has imported and started; importing it here would block.
    """
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None
    free, total = cuda.mem_get_info()
    return {
        "used": (total - free) / 1e6,
        "peak": cuda.max_memory_reserved() / 1e6,
        "total": total / 1e6,
    }
