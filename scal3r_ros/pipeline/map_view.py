"""What can be asked of a map and told to it, whoever builds it."""

from __future__ import annotations

from collections import Counter

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.mapping.chunking import Chunker
from scal3r_ros.mapping.point_map import PointCloud
from scal3r_ros.pipeline.live_map import MapAssembly
from scal3r_ros.pipeline.outlines import GraphView, joined_cloud
from scal3r_ros.reconstruct.interface import Reconstructor
from scal3r_ros.records import Chunk, ChunkPrediction, ScaleEstimate, TrajectoryPose


class MapView:
    """Views of a map at its present revision, and measurements from outside for it."""

    config: Config
    reconstructor: Reconstructor
    counters: Counter[str]
    """What has happened, by name."""
    seconds: dict[str, float]
    """By stage of the method."""
    _assembly: MapAssembly
    _chunker: Chunker
    _waiting: list[Chunk]

    def observe_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None:
        """A pose (4, 4) of the body in metres, for scale and to bridge failed alignments."""
        self._assembly.references.scale.observe_odometry(stamp_ns, T_odom_base)

    def observe_gravity(self, stamp_ns: int, up_camera: np.ndarray) -> None:
        """Accelerometer at rest (3,), in the camera's optical frame, for map.alignment imu."""
        self._assembly.references.observe_gravity(stamp_ns, up_camera)

    def observe_depth(self, stamp_ns: int, metres: np.ndarray) -> None:
        """Measured depth (H, W) of the frame with this stamp, for scale.source depth."""
        self._assembly.references.observe_depth(stamp_ns, metres)

    def set_camera_mount(self, T_base_camera: np.ndarray) -> None:
        """Where the camera sits on the body whose odometry is observed."""
        self._assembly.references.T_base_camera = np.asarray(T_base_camera, dtype=np.float64)

    @property
    def map_revision(self) -> int:
        return self._assembly.revision

    @property
    def scale(self) -> ScaleEstimate:
        return self._assembly.references.scale.estimate

    @property
    def points_count(self) -> int:
        return len(self._assembly.points)

    @property
    def nbytes(self) -> int:
        """Bytes of the map's points."""
        return self._assembly.points.nbytes

    @property
    def unmapped(self) -> int:
        """Frames taken whose chunk is not finished yet."""
        chunks = [*(chunk.frames for chunk in self._waiting), self._chunker.pending]
        taken = {frame.id for frames in chunks for frame in frames}
        return len(taken - {pose.frame_id for pose in self.trajectory()})

    def trajectory(self) -> tuple[TrajectoryPose, ...]:
        """All poses at the present revision, in order of time."""
        return self._assembly.poses()

    def cloud(self, max_points: int | None = None) -> PointCloud:
        """All points at the present revision."""
        return self._assembly.points.export(max_points)

    def chunk_scale(self, chunk_index: int) -> float:
        """Map units per unit of the chunk's own coordinates, at the present revision."""
        return float(self._assembly.graph.nodes[chunk_index].scale)

    def part_clouds(self) -> dict[int, PointCloud]:
        """The points of each connected part, by the name that `graph().parts` gives it."""
        parts = self._assembly.graph.components() if self._assembly.graph.nodes else {}
        clouds: dict[int, list[PointCloud]] = {}
        for submap in self._assembly.points.submaps:
            clouds.setdefault(parts[submap.anchor], []).append(submap.cloud())
        return {part: joined_cloud(items) for part, items in clouds.items()}

    def latest(self) -> ChunkPrediction | None:
        """What was predicted for the last frames of the newest chunk."""
        return self._assembly.open.prediction if self._assembly.open else None

    def graph(self) -> GraphView:
        """The pose graph at the present revision."""
        return self._assembly.graph_view()
