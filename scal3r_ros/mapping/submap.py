"""Fused points of a few consecutive chunks, and the cloud that they are in the map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.voxels import Voxels


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in the map frame."""

    points: np.ndarray
    """(N, 3) float32."""
    colors: np.ndarray
    """(N, 3) uint8."""
    confidence: np.ndarray
    """(N,) float32, summed over the observations of a point."""

    def __len__(self) -> int:
        return len(self.points)

    @staticmethod
    def empty() -> PointCloud:
        return PointCloud(
            np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32)
        )


def joined_cloud(clouds: Iterable[PointCloud]) -> PointCloud:
    """All points of several clouds."""
    full = [cloud for cloud in clouds if len(cloud)]
    if not full:
        return PointCloud.empty()
    fields = ("points", "colors", "confidence")
    return PointCloud(*(np.concatenate([getattr(c, f) for c in full]) for f in fields))


@dataclass(frozen=True, eq=False)
class Submap:
    """Fused points of a few consecutive chunks, in coordinates of the first one."""

    anchor: int
    """Chunk index whose frame the points are in."""
    session: int
    chunks: tuple[int, ...]
    S_map_anchor: Sim3
    level: int
    """The voxel edge is 2**level times the map's base voxel."""
    voxel_size: float
    """In units of the anchor chunk."""
    voxels: Voxels

    def cloud(self) -> PointCloud:
        colors = np.rint(self.voxels.colors.astype(np.float32)).astype(np.uint8)
        points = self.S_map_anchor.apply(self.voxels.points).astype(np.float32)
        return PointCloud(points, colors, self.voxels.weights)

    @cached_property
    def centre(self) -> np.ndarray:
        """(1, 3) of the box around the points, in coordinates of the anchor."""
        points = self.voxels.points
        return (points.min(axis=0, keepdims=True) + points.max(axis=0, keepdims=True)) / 2.0

    @cached_property
    def radius(self) -> float:
        """Of the sphere around that box."""
        return float(np.linalg.norm(np.ptp(self.voxels.points, axis=0)) / 2.0)

    def holding(self, voxels: Voxels) -> Submap:
        """The same submap with other points."""
        return replace(self, voxels=voxels)
