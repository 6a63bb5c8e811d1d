"""Camera poses by frame id, stored in chunk coordinates so that corrections move them for free.

A frame that lies in several chunks has one owner, and a pose that is blended from all of them, so
that no step is left where chunks meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from scal3r_ros.mapping.pose_blend import blended
from scal3r_ros.mapping.sim3 import Sim3, skew
from scal3r_ros.records import TrajectoryPose

VIEWS = 3
"""Chunks that a pose is blended from at most."""

FIELDS: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
    "frame_id": ((), np.int64),
    "stamp_ns": ((), np.int64),
    "chunk_index": ((), np.int64),
    "provisional": ((), np.bool_),
    "confidence": ((), np.float64),
    "T_chunk_camera": ((4, 4), np.float64),
    "covariance": ((6, 6), np.float32),  # no better known than that
    "seen_by": ((VIEWS,), np.int64),
    "seen_pose": ((VIEWS, 4, 4), np.float64),
    "seen_weight": ((VIEWS,), np.float64),
    "told": ((), np.bool_),
    "T_told": ((4, 4), np.float64),
}
NEWER = FIELDS.keys() & {"seen_by", "seen_pose", "seen_weight", "told", "T_told"}
"""Absent from maps of older versions."""


class Trajectory:
    """One row per frame; a provisional pose is replaced when its owner is known."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        self._columns: dict[str, np.ndarray] = {
            name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in FIELDS.items()
        }

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, frame_id: int) -> bool:
        return frame_id in self._rows

    def put(
        self,
        frame_id: int,
        stamp_ns: int,
        chunk_index: int,
        T_chunk_camera: np.ndarray,
        confidence: float,
        provisional: bool,
        covariance: np.ndarray,
    ) -> None:
        """Add or replace a frame's pose; `covariance` (6, 6) of the pose within its chunk, chunk
        units."""
        row = self._rows.setdefault(frame_id, len(self._rows))
        self._reserve(row + 1)
        values = (frame_id, stamp_ns, chunk_index, provisional, confidence, T_chunk_camera)
        for name, value in zip(FIELDS, (*values, covariance)):
            self._columns[name][row] = value

    def see(
        self, frame_id: int, chunk_index: int, T_chunk_camera: np.ndarray, weight: float
    ) -> None:
        """A chunk's pose (4, 4) of a frame, to be blended with those of other chunks; beyond VIEWS
        the oldest is forgotten."""
        row, columns = self._rows[frame_id], self._columns
        free = np.flatnonzero(columns["seen_weight"][row] == 0)
        if not len(free):
            for name in ("seen_by", "seen_pose", "seen_weight"):
                columns[name][row, :-1] = columns[name][row, 1:]
        slot = int(free[0]) if len(free) else VIEWS - 1
        columns["seen_by"][row, slot] = chunk_index
        columns["seen_pose"][row, slot] = T_chunk_camera
        columns["seen_weight"][row, slot] = weight

    def tell(self, poses: Iterable[TrajectoryPose]) -> None:
        """Remember what is published of a frame when it is published first."""
        told, first = self._columns["told"], self._columns["T_told"]
        for pose in poses:
            row = self._rows[pose.frame_id]
            if not told[row]:
                told[row], first[row] = True, pose.T_map_camera

    def told(self) -> dict[int, np.ndarray]:
        """By frame id, in order of time, the pose (4, 4) that was published first."""
        rows = self._select(None)
        rows = rows[self._columns["told"][rows]]
        ids = self._columns["frame_id"][rows].tolist()
        return dict(zip(ids, self._columns["T_told"][rows]))

    def take_told(self, older: Trajectory) -> None:
        """What was published of these frames while the map was another one."""
        for frame_id, T_map_camera in older.told().items():
            if frame_id in self._rows:
                row = self._rows[frame_id]
                self._columns["told"][row], self._columns["T_told"][row] = True, T_map_camera

    def confirm(self, frame_ids: Iterable[int]) -> None:
        """Their present chunk owns these frames for good."""
        for frame_id in frame_ids:
            self._columns["provisional"][self._rows[frame_id]] = False

    def chunk_of(self, frame_id: int) -> int:
        """Index of the chunk that a frame's pose belongs to."""
        return int(self._columns["chunk_index"][self._rows[frame_id]])

    @property
    def chunks(self) -> set[int]:
        """Indices of all chunks that own a frame."""
        return set(np.unique(self._columns["chunk_index"][: len(self)]).tolist())

    @property
    def frame_ids(self) -> tuple[int, ...]:
        """All frames in chronological order."""
        return tuple(sorted(self._rows))

    def newest(self, count: int) -> tuple[int, ...]:
        """Ids of the `count` newest frames in chronological order; frames arrive in order."""
        rows = slice(max(0, len(self) - count), len(self))
        return tuple(np.sort(self._columns["frame_id"][rows]).tolist())

    def spread(self, count: int) -> tuple[int, ...]:
        """At most `count` frames, evenly spread over the run, the newest among them."""
        ids = np.sort(self._columns["frame_id"][: len(self)])
        chosen = np.linspace(len(ids) - 1, 0, min(count, len(ids))).round().astype(np.int64)
        return tuple(ids[chosen[::-1]].tolist())

    def of_chunks(self, chunks: Iterable[int]) -> tuple[int, ...]:
        """All frames whose poses these chunks decide, alone or with others, in chronological
        order."""
        wanted, rows = list(chunks), slice(len(self))
        mine = np.isin(self._columns["chunk_index"][rows], wanted)
        seen = np.isin(self._columns["seen_by"][rows], wanted)
        mine |= (seen & (self._columns["seen_weight"][rows] > 0)).any(axis=1)
        return tuple(np.sort(self._columns["frame_id"][: len(self)][mine]).tolist())

    def matrices(
        self, S_map_chunk: Mapping[int, Sim3], frame_ids: Iterable[int] | None = None
    ) -> np.ndarray:
        """T_map_camera (N, 4, 4) of the given frames (default: all, chronological)."""
        rows = self._select(frame_ids)
        if not len(rows):
            return np.zeros((0, 4, 4))
        return self._places(S_map_chunk, rows)

    def path_length(self, S_map_chunk: Mapping[int, Sim3], first_id: int, last_id: int) -> float:
        """Distance travelled between two frames, map units."""
        ids = self._columns["frame_id"][: len(self)]
        between = np.flatnonzero((ids >= first_id) & (ids <= last_id))
        rows = between[np.argsort(ids[between])]
        positions = self._places(S_map_chunk, rows)[:, :3, 3]
        return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())

    def poses(
        self,
        S_map_chunk: Mapping[int, Sim3],
        frame_ids: Iterable[int] | None = None,
        chunk_covariance: Mapping[int, np.ndarray] | None = None,
    ) -> tuple[TrajectoryPose, ...]:
        """Poses in the map; `chunk_covariance` (7, 7) of S_map_chunk, as `PoseGraph.covariances`
        gives it."""
        rows = self._select(frame_ids)
        if not len(rows):
            return ()
        columns = {name: values[rows] for name, values in self._columns.items()}
        S, placed = _gather(S_map_chunk, columns["chunk_index"], chunk_covariance)
        centres = columns["T_chunk_camera"][:, :3, 3]
        within = columns["covariance"]
        fields = zip(
            columns["frame_id"].tolist(),
            columns["stamp_ns"].tolist(),
            self._places(S_map_chunk, rows),
            pose_covariance(within, S, centres, placed),
            columns["confidence"].tolist(),
            columns["chunk_index"].tolist(),
            columns["provisional"].tolist(),
            pose_covariance(within, S, centres, None),
        )
        return tuple(TrajectoryPose(*values) for values in fields)

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays, to save and restore."""
        return {name: values[: len(self)].copy() for name, values in self._columns.items()}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> Trajectory:
        trajectory = cls()
        trajectory._columns = {
            name: np.array(arrays[name], dtype).reshape(-1, *shape)
            for name, (shape, dtype) in FIELDS.items()
            if name in arrays or name not in NEWER
        }
        for name in NEWER - trajectory._columns.keys():
            shape, dtype = FIELDS[name]
            trajectory._columns[name] = np.zeros((len(arrays["frame_id"]), *shape), dtype)
        ids = trajectory._columns["frame_id"].tolist()
        trajectory._rows = {frame_id: row for row, frame_id in enumerate(ids)}
        return trajectory

    def _select(self, frame_ids: Iterable[int] | None) -> np.ndarray:
        if frame_ids is None:
            return np.argsort(self._columns["frame_id"][: len(self)])
        return np.array([self._rows[frame_id] for frame_id in frame_ids], dtype=np.int64)

    def _places(self, S_map_chunk: Mapping[int, Sim3], rows: np.ndarray) -> np.ndarray:
        """T_map_camera (N, 4, 4): the owner's pose, blended where several chunks have seen it."""
        columns = {name: self._columns[name][rows] for name in ("chunk_index", "T_chunk_camera")}
        S, _ = _gather(S_map_chunk, columns["chunk_index"])
        poses = S.move_pose(columns["T_chunk_camera"])
        seen_by = self._columns["seen_by"][rows]
        weights = self._columns["seen_weight"][rows]
        several = np.flatnonzero((weights > 0).sum(axis=1) > 1)
        if not len(several):
            return poses
        known = weights[several] > 0
        owners = columns["chunk_index"][several, None]
        S, _ = _gather(S_map_chunk, np.where(known, seen_by[several], owners))
        views = self._columns["seen_pose"][rows[several]]
        views = S.move_pose(np.where(known[..., None, None], views, np.eye(4)))
        poses[several] = blended(views, weights[several])
        return poses

    def _reserve(self, rows: int) -> None:
        have = len(self._columns["frame_id"])
        if rows <= have:
            return
        for name, values in self._columns.items():
            # Zeros that nobody has written to take no memory yet, where they are many.
            grown = np.zeros((max(256, 2 * have), *values.shape[1:]), values.dtype)
            grown[:have] = values
            self._columns[name] = grown


def _gather(
    S_map_chunk: Mapping[int, Sim3],
    chunks: np.ndarray,
    covariance: Mapping[int, np.ndarray] | None = None,
) -> tuple[Sim3, np.ndarray | None]:
    """What is known of the chunk of each row: its place (N,), covariance (N, 7, 7); with `chunks`
    (N, V) of V chunks in each row."""
    present, row = np.unique(chunks, return_inverse=True)
    row = row.reshape(chunks.shape)
    S = Sim3.stack([S_map_chunk[chunk] for chunk in present.tolist()])[row]
    if covariance is None:
        return S, None
    return S, np.stack([covariance[chunk] for chunk in present.tolist()])[row]


def pose_covariance(
    within: np.ndarray, S_map_chunk: Sim3, position: np.ndarray, of_chunk: np.ndarray | None
) -> np.ndarray:
    """(..., 6, 6) in the map frame of cameras at `position` (..., 3) in their chunks.

    `within` (..., 6, 6) is the pose's covariance in the chunk; `of_chunk` (..., 7, 7) that of
    S_map_chunk for right perturbations.
    """
    turn = np.zeros((*np.shape(S_map_chunk.scale), 6, 6))
    turn[..., :3, :3] = np.asarray(S_map_chunk.scale)[..., None, None] * S_map_chunk.rotation
    turn[..., 3:, 3:] = S_map_chunk.rotation
    inside = within
    if of_chunk is not None:
        lever = np.zeros((*position.shape[:-1], 6, 7))
        lever[..., :3, :3] = np.eye(3)
        lever[..., :3, 3:6] = -skew(position)
        lever[..., :3, 6] = position
        lever[..., 3:, 3:6] = np.eye(3)
        inside = within + lever @ of_chunk @ np.swapaxes(lever, -1, -2)
    covariance = turn @ inside @ np.swapaxes(turn, -1, -2)
    return (covariance + np.swapaxes(covariance, -1, -2)) / 2.0
