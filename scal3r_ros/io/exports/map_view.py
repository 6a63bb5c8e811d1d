"""What every exporter is given: the largest connected part of a map, at one revision."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from scal3r_ros.mapping.occupancy import OccupancyGrid
from scal3r_ros.mapping.submap import PointCloud
from scal3r_ros.records import TrajectoryPose


class ExportNotPossible(RuntimeError):
    """This map cannot become such a file; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class View:
    """One image of the map and where it was taken."""

    frame_id: int
    stamp_ns: int
    rgb: np.ndarray
    """(H, W, 3) uint8."""
    intrinsics: np.ndarray
    """(3, 3) of `rgb`; the centre of the first pixel is (0.5, 0.5)."""
    T_map_camera: np.ndarray
    """(4, 4), optical axes."""
    depth: np.ndarray
    """(h, w) float32 z-depth in units of the map, NaN where unknown; smaller than `rgb`."""
    depth_intrinsics: np.ndarray
    """(3, 3) of `depth`."""


@dataclass(frozen=True, eq=False)
class MapView:
    """A map to look at. Lengths are metres if it is `metric`, else units of the map."""

    poses: tuple[TrajectoryPose, ...]
    """In order of time."""
    cloud: PointCloud
    voxel_size: float
    """Edge of the finest voxels of the cloud, 0 for an empty map."""
    metric: bool
    axes: str
    """`measured` or `assumed`: the third axis points up, by gravity or a floor, or if the first
    camera was level; `optical`: the axes are those of the first camera."""
    revision: int
    views: Callable[[], Iterator[View]]
    """Images that were kept, read one after the other."""
    grid: Callable[[], OccupancyGrid]
    """Where a robot can drive; raises `ExportNotPossible` with the reason why that is unknown."""

    @property
    def level(self) -> bool:
        """Whether the third axis points up, as far as is known."""
        return self.axes != "optical"

    @property
    def matrices(self) -> np.ndarray:
        """T_map_camera (N, 4, 4) of all poses."""
        return np.array([pose.T_map_camera for pose in self.poses]).reshape(-1, 4, 4)

    @property
    def note(self) -> str:
        """One line about units and axes, for comments in files."""
        unit = "metres" if self.metric else "map units, scale unknown"
        axes = "z up" if self.level else "optical axes of the first camera"
        return f"scal3r_ros map revision {self.revision}, {unit}, {axes}"

    @property
    def resolution(self) -> float:
        """Edge of a cell in grids of this map: 5 cm, or five voxels while metres are unknown."""
        return 0.05 if self.metric else 5.0 * self.voxel_size


def library(name: str, extra: str) -> Any:
    """An optional Python package; raises `ExportNotPossible` that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        raise ExportNotPossible(
            f"this format needs the Python package {name.partition('.')[0]} ({missing}); install "
            f"it with `pip install 'scal3r_ros[{extra}]'`, or choose another format"
        ) from missing


def require_points(view: MapView) -> None:
    """Raise `ExportNotPossible` for a map without points."""
    if not len(view.cloud):
        raise ExportNotPossible("the map has no points yet; map something first")


NO_IMAGES = (
    "the map keeps no images of its frames; they are kept for closing loops, so map with "
    "loop.enabled true and a loop.max_megabytes that holds all of them"
)
