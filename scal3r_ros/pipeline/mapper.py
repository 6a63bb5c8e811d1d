"""The method: frames in, one correct and bounded map out. Live and offline use this class."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from scal3r_ros.config import Config, LoopConfig
from scal3r_ros.io.exports.map_view import MapView
from scal3r_ros.mapping.submap import PointCloud
from scal3r_ros.pipeline import save
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.pipeline.map_change import GraphView, MapChange
from scal3r_ros.pipeline.map_view import map_view
from scal3r_ros.pipeline.mapping_state import MappingState
from scal3r_ros.pipeline.progress import Cancelled, Progress
from scal3r_ros.pipeline.refilled_floor import refilled_floor
from scal3r_ros.pipeline.steps import MappingSteps
from scal3r_ros.reconstruct.interface import Finalizes, Reconstructor
from scal3r_ros.records import (
    ChunkPrediction,
    Event,
    Frame,
    MapUpdate,
    ScaleEstimate,
    TrajectoryPose,
)
from scal3r_ros.scratch import ScratchFolder


class Mapper:
    """Frames that passed the frame gate, in order of time, become a map."""

    def __init__(
        self, config: Config, reconstructor: Reconstructor, records: str | Path | None = None
    ) -> None:
        """`records` is a folder of this mapper alone for what loops need of old frames; by default
        a temporary one."""
        self.config, self.reconstructor = config, reconstructor
        self._temporary: ScratchFolder | None = None
        if not records:
            self._temporary = ScratchFolder("scal3r_")
            records = self._temporary.path
        self._folder = Path(records)
        save.remove_files(self._folder)  # of a mapper that was killed
        self._steps = self._steps_on(MappingState.empty(config, self._new_records()))
        self._files = save.new_files()

    def add(self, frame: Frame, starts_session: bool = False) -> list[MapUpdate]:
        """Take the next frame; tells what changed, usually nothing until a chunk is full.

        If this or another call fails after something has changed, `take_updates` tells it.
        """
        state = self._state
        with self._steps.changing():
            self._steps.map_full_rounds()  # one can be left over from an interrupt
            if starts_session:
                self._steps.end_chain()
            state.next_frame_id = max(state.next_frame_id, frame.id + 1)
            state.last_stamp_ns = frame.stamp_ns
            state.counters["frames"] += 1
            if state.parallax.admit(frame.rgb, frame.stamp_ns):
                state.chunks.push(frame)
                self._steps.map_full_rounds()
            else:
                state.counters["no_parallax"] += 1
        return self.take_updates()

    def flush(self) -> list[MapUpdate]:
        """Map what is waiting and confirm provisional poses; the next frame continues the chain."""
        with self._steps.changing():
            self._steps.map_rest()
        return self.take_updates()

    def start_session(self) -> list[MapUpdate]:
        """End the chain of chunks: the next frame shares nothing with those before."""
        with self._steps.changing():
            self._steps.end_chain()
        return self.take_updates()

    def finalize(self, progress: Progress | None = None) -> list[MapUpdate]:
        """With memory.mode finalize: map all chunks again as if the memory had known all of them
        from the start. `Cancelled` leaves the map as it was."""
        self._steps.made = self.flush()
        state = self._state
        if not state.history.empty:
            self._files = save.new_files()  # what is recorded of the chunks changes
            outcomes = cast(Finalizes, self.reconstructor).finalize()
            records, told = self._new_records(), progress or Progress()
            try:
                again = state.history.build_again(
                    outcomes, state.live_map, state.loops, state.far, records, told
                )
            except Cancelled:
                shutil.rmtree(records, ignore_errors=True)
                raise
            shutil.rmtree(state.loops.records.folder, ignore_errors=True)
            state.live_map, state.loops = again.live_map, again.loops
            self._steps.tell(state.history.last, MapChange(), again.events, corrected=True)
        return self.take_updates()

    def take_updates(self) -> list[MapUpdate]:
        """What changed and was not told yet."""
        made, self._steps.made = self._steps.made, []
        return made

    @property
    def consistent(self) -> bool:
        """False while a chunk is half integrated: an interrupted map of that kind is not saved."""
        return self._steps.consistent

    def search_loops(self, config: LoopConfig) -> None:
        """Look for loops by other rules from now on, in the same map. Chunks that were mapped while
        the search was off can close none."""
        self.config = replace(self.config, loop=config)
        self._state.loops.follow(config)

    def reset(self) -> None:
        """Forget the map and the memory."""
        self.reconstructor.reset()
        self._replace(MappingState.empty(self.config, self._new_records()))

    def save(self, folder: str | Path) -> list[Event]:
        """Save everything needed to go on later in the same map frame; atomic. Returns what had to
        be left out.

        Raises `RuntimeError` if an interrupt left a chunk half integrated.
        """
        if not self.consistent:
            raise RuntimeError("a chunk is half integrated; go on from an earlier save")
        return save.write_state(self._state, self.reconstructor, Path(folder), self._files)

    def load(self, folder: str | Path) -> list[Event]:
        """Continue a saved map; raises `BadMapFile`, or `ValueError` for another network's memory,
        and then nothing has changed. Returns what could not be taken over."""
        records = self._new_records()
        try:
            loaded = save.read_state(self.config, self.reconstructor, Path(folder), records)
        except BaseException:
            shutil.rmtree(records, ignore_errors=True)
            raise
        if self.config.grid.enabled:
            loaded.state.live_map.floor = refilled_floor(loaded.state, self.config.grid)
        self._replace(loaded.state)
        self.counters.update(event.name for event in loaded.events)
        return list(loaded.events)

    def observe_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None:
        """A pose (4, 4) of the body in metres, for scale and to bridge failed alignments."""
        self.live_map.scale_and_level.observe_odometry(stamp_ns, T_odom_base)

    def observe_gravity(self, stamp_ns: int, up_camera: np.ndarray) -> None:
        """Accelerometer at rest (3,), in the camera's optical frame, for map.alignment imu."""
        self.live_map.scale_and_level.observe_gravity(stamp_ns, up_camera)

    def observe_imu(self, stamp_ns: int, reading: np.ndarray) -> None:
        """Specific force (m/s^2), turn rate (rad/s) and place (m) of an inertial sensor (9,), in
        the camera's optical axes, for scale.source imu."""
        self.live_map.scale_and_level.observe_imu(stamp_ns, reading)

    def observe_fix(self, stamp_ns: int, fix: np.ndarray) -> None:
        """Latitude, longitude (degrees) and altitude (m) (3,), for scale.source gnss."""
        self.live_map.scale_and_level.observe_fix(stamp_ns, fix)

    def observe_depth(self, stamp_ns: int, metres: np.ndarray) -> None:
        """Measured depth (H, W) of the frame with this stamp, for scale.source depth."""
        self.live_map.scale_and_level.observe_depth(stamp_ns, metres)

    def set_camera_mount(self, T_base_camera: np.ndarray) -> None:
        """Where the camera sits on the body whose odometry is observed; also after a reset."""
        mount = np.asarray(T_base_camera, dtype=np.float64)
        self.live_map.scale_and_level.T_base_camera = mount

    @property
    def live_map(self) -> LiveMap:
        """The map itself; it is another object after `reset`, `load` and `finalize`."""
        return self._state.live_map

    @property
    def counters(self) -> Counter[str]:
        """What has happened, by name."""
        return self._state.counters

    @property
    def seconds(self) -> Mapping[str, float]:
        """By stage of the method."""
        return self._state.seconds

    @property
    def mode(self) -> str:
        """`mapping`, or `localisation` where something else than mapping is possible."""
        return "mapping"

    @property
    def whereabouts(self) -> Any:
        """What is known of the camera's place in a map that stays as it is; None while mapping."""
        return None

    @property
    def next_frame_id(self) -> int:
        return self._state.next_frame_id

    @property
    def last_stamp_ns(self) -> int | None:
        return self._state.last_stamp_ns

    @property
    def unmapped(self) -> int:
        """Frames taken whose chunk is not finished yet; none after `flush`."""
        trajectory = self.live_map.trajectory
        return sum(frame.id not in trajectory for frame in self._state.chunks.untried)

    @property
    def map_revision(self) -> int:
        return self.live_map.revision

    @property
    def scale(self) -> ScaleEstimate:
        return self.live_map.scale

    @property
    def points_count(self) -> int:
        return len(self.live_map.points)

    @property
    def nbytes(self) -> int:
        """Bytes of the map's points."""
        return self.live_map.points.nbytes

    def trajectory(self) -> tuple[TrajectoryPose, ...]:
        """All poses at the present revision, in order of time."""
        return self.live_map.poses()

    def spread_poses(self, count: int) -> np.ndarray:
        """T_map_camera (N, 4, 4) of at most `count` frames, evenly spread over the run, in order of
        time."""
        trajectory = self.live_map.trajectory
        return trajectory.matrices(self.live_map.graph.nodes, trajectory.spread(count))

    def newest_poses(self, count: int) -> tuple[TrajectoryPose, ...]:
        """The last `count` poses; costs the same however long the trajectory is."""
        return self.live_map.poses(self.live_map.trajectory.newest(count))

    @property
    def connected(self) -> bool:
        """Whether the newest chunk hangs together with the one that holds the map's origin."""
        return self.live_map.graph.connected

    def cloud(self, max_points: int | None = None) -> PointCloud:
        """All points at the present revision."""
        return self.live_map.points.export(max_points)

    def view(self) -> MapView:
        """The largest connected part with its images, for exporters; of the present revision."""
        return map_view(self._state)

    def chunk_scale(self, chunk_index: int) -> float:
        """Map units per unit of the chunk's own coordinates, at the present revision."""
        return self.live_map.chunk_scale(chunk_index)

    def latest(self) -> ChunkPrediction | None:
        """What was predicted for the last frames of the newest chunk."""
        newest = self.live_map.open
        return newest.prediction if newest else None

    def graph(self) -> GraphView:
        """The pose graph at the present revision."""
        return self.live_map.graph_view()

    @property
    def _state(self) -> MappingState:
        return self._steps.state

    def _steps_on(self, state: MappingState) -> MappingSteps:
        return MappingSteps(self.config, self.reconstructor, state)

    def _replace(self, state: MappingState) -> None:
        """Another map takes the place of this one; where the camera is mounted stays."""
        state.live_map.scale_and_level.T_base_camera = self.live_map.scale_and_level.T_base_camera
        before, self._steps = self._state, self._steps_on(state)
        self._files = save.new_files()
        shutil.rmtree(before.loops.records.folder, ignore_errors=True)

    def _new_records(self) -> Path:
        """An empty folder, so that the records of two maps can be there at once."""
        return self._folder / save.new_files()
