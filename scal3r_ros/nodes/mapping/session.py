"""Everything that lives from configure to cleanup: input, queue, worker, publisher, transforms."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration

from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.input.frame_queue import FrameQueue
from scal3r_ros.nodes.input.image_input import ImageInput
from scal3r_ros.nodes.input.side_inputs import SideInputs
from scal3r_ros.nodes.mapping.commands import MapCommands
from scal3r_ros.nodes.mapping.localisation import InitialPose, LocalisationStatus
from scal3r_ros.nodes.mapping.worker import MappingWorker, Output
from scal3r_ros.nodes.output.earth_frame import EarthFrame
from scal3r_ros.nodes.output.floor_output import FloorOutput
from scal3r_ros.nodes.output.live_view import open_view
from scal3r_ros.nodes.output.output_planner import OutputPlanner
from scal3r_ros.nodes.output.publisher import MapPublisher
from scal3r_ros.nodes.output.publishers import Publishers
from scal3r_ros.nodes.output.transforms import Transforms
from scal3r_ros.nodes.tracking.live import open_tracking
from scal3r_ros.records import ChunkPrediction


class MappingSession:
    """Construct, `start`, and `end` from the executor's thread, or when it has ended."""

    def __init__(self, node, config: NodeConfig, make_mapper: Callable, run_id: str) -> None:
        self.node, self.config = node, config
        self.frames = FrameQueue(config.queue, config.chunk.size - config.chunk.overlap)
        self.publishers = Publishers.create(node)
        self.transforms = Transforms(node, config.tf)
        self.tracking = open_tracking(self)
        watch = None if self.tracking is None else self.tracking.put
        self.input = ImageInput(node, config, self.frames, watch)
        self.floor = FloorOutput(
            self.publishers, config.tf.map, self.input.stream_now, node.get_logger()
        )
        self.earth = EarthFrame(node, config.tf.map, "gnss" in config.scale.sources)
        self.publisher = MapPublisher(
            config, run_id, self.publishers, self.transforms, self.input.stream_now,
            node.get_logger(), self.floor,
        )  # fmt: skip
        self.planner = OutputPlanner(
            config,
            self.publisher,
            camera_frame=lambda: self.input.camera_frame or config.tf.camera_frame,
            last_prediction=self.last_prediction,
            map_listeners=lambda: self.publishers.map.get_subscription_count(),
            look_at_floor=self.floor.look,
        )
        self.worker = MappingWorker(
            config,
            self.frames,
            lambda settings: make_mapper(node, settings),
            self._deliver,
            node.get_logger(),
        )
        self.side_inputs = SideInputs(
            node, config, self.transforms, self.worker, lambda: self.input.camera_frame
        )
        self.commands = MapCommands(self)
        self.status = LocalisationStatus(self)
        self.initial_pose = InitialPose(self)
        self.view = open_view(config, node.get_logger())
        self._jump_handle = node.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            ),
            post_callback=self._on_clock_jump,
        )
        self._rebroadcast_at = time.monotonic()
        self._tf_timer = node.create_timer(
            1.0 / config.tf.rate,
            self._rebroadcast,
            MutuallyExclusiveCallbackGroup(),
            clock=node.steady_clock,
        )
        self._floor_timer = node.create_timer(
            1.0 / config.publish.obstacles_rate,
            self.floor.repeat,
            MutuallyExclusiveCallbackGroup(),
            clock=node.steady_clock,
        )

    def start(self) -> None:
        """Start the threads; the worker begins to load the network."""
        self.publisher.start()
        self.worker.start()
        self.commands.begin(self.config.load_path, self.config.mode)
        if self.tracking is not None:
            self.tracking.start()

    def set_accepting(self, accepting: bool) -> None:
        """Whether images that arrive are queued."""
        self.input.accepting = accepting

    def set_config(self, config: NodeConfig) -> None:
        """Parameters changed that take effect at once."""
        if config.loop != self.config.loop:
            self.worker.submit(lambda mapper: mapper.search_loops(config.loop))
        self.config = config
        for part in (self.input, self.publisher, self.planner, self.worker):
            part.config = config
        self.input.gate.config = config.gate
        self.frames.config = config.queue

    def keep_house(self) -> None:
        """Once a second: autosave, foreign parents in the TF tree, status of the view."""
        self.commands.autosave_if_due()
        self.input.release_stale()
        self.input.adapt()
        self.side_inputs.adapt()
        self.status.publish()
        if self.config.tf.mode != "none" and self.input.camera_frame:
            self.transforms.check_parents(self.input.camera_frame)
        if self.view is not None:
            self.view.show_status(self)

    def end(self, save: bool) -> list[str]:
        """Stop threads, save if asked to, free everything; returns what could not be stopped."""
        self.set_accepting(False)
        self.input.release_held()
        if self.tracking is not None:
            self.tracking.ask_to_stop()  # it ends while the worker is waited for
        left_behind = []
        last = self.commands.last_save if save else None
        if not self.worker.stop(self.config.worker.stop_timeout, last):
            left_behind.append("the network's computation")
        self._tell_unmapped()
        if self.tracking is not None and not self.tracking.stop(timeout=2.0):
            left_behind.append("a live pose")
        if not self.publisher.stop(timeout=0.5):
            left_behind.append("a publication")
        if self.view is not None:
            self.view.close()
        self._jump_handle.unregister()
        self.node.destroy_timer(self._tf_timer)
        self.node.destroy_timer(self._floor_timer)
        self.side_inputs.destroy()
        self.initial_pose.destroy()
        self.input.destroy()
        self.transforms.destroy()
        self.publishers.destroy(self.node)
        self.earth.destroy()
        return left_behind

    def _tell_unmapped(self) -> None:
        """Images that were received and are not in the map."""
        known = self.worker.mapper is not None and self.worker.ended
        begun, waiting = self.worker.mapper.unmapped if known else 0, self.frames.clear()
        if begun or waiting:
            fate = "are saved and go on after loading" if self.commands.saved_at_end else "are lost"
            self.node.get_logger().warning(
                f"stopped before the end of the stream: {begun} images of an unfinished chunk "
                f"{fate}, {waiting} that waited are lost; call ~/flush first to map them all"
            )

    def last_prediction(self) -> ChunkPrediction | None:
        """Of the chunk that was reconstructed last."""
        reconstructor = self.worker.reconstructor
        return None if reconstructor is None else reconstructor.last_prediction

    def _deliver(self, output: Output) -> None:
        """On the worker's thread, after each of its steps."""
        if self.tracking is not None:
            self.tracking.deliver(output, self.last_prediction())
        self.planner(output)
        if output.updates:
            self.earth.follow(output.mapper, self.input.stream_now())
        if output.updates or output.replaced:
            self.status.publish()
        if self.view is not None:
            self.view.show(output)

    def _rebroadcast(self) -> None:
        now = time.monotonic()
        self.transforms.rebroadcast(self.input.stream_now(), now - self._rebroadcast_at)
        self._rebroadcast_at = now

    def _on_clock_jump(self, jump) -> None:
        if jump.delta.nanoseconds < 0:
            self.input.guard.clock_jumped_back()
            self.transforms.clear()
