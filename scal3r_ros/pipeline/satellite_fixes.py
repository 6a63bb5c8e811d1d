"""Satellite fixes and the places in the map where they were taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from scal3r_ros.mapping import gnss
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import ChunkPrediction, ChunkSummary

_KEPT = 20_000
"""Fixes that are remembered, the oldest go first."""


class SatelliteFixes:
    """Places are kept in coordinates of their chunks, so that corrections move them."""

    def __init__(self) -> None:
        self.origin: gnss.Fix | None = None
        """Where east, north and up are counted from: the first fix."""
        self._waiting: deque[tuple[int, np.ndarray]] = deque(maxlen=_KEPT)
        self._met: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=_KEPT)
        """Chunk, place in it (3,), and fix east, north, up (3,)."""
        self._all: deque[tuple[int, np.ndarray]] = deque(maxlen=_KEPT)

    def restarted(self) -> SatelliteFixes:
        """The same fixes for a map that is built anew."""
        fresh = SatelliteFixes()
        for stamp_ns, fix in self._all:
            fresh.add(stamp_ns, fix)
        return fresh

    def add(self, stamp_ns: int, fix: np.ndarray) -> None:
        """Latitude, longitude, altitude (3,)."""
        place = gnss.Fix(*(float(value) for value in fix))
        self.origin = self.origin or place
        self._all.append((stamp_ns, fix))
        self._waiting.append((stamp_ns, gnss.local(self.origin, place)))

    def meet(self, summary: ChunkSummary, prediction: ChunkPrediction) -> None:
        """Find where the camera of a chunk was at the fixes that wait."""
        stamp = dict(zip(summary.frame_ids, summary.stamps_ns))
        times = np.array([stamp[i] for i in prediction.frame_ids], np.float64)
        places = prediction.T_chunk_camera[:, :3, 3]
        later: list[tuple[int, np.ndarray]] = []
        for stamp_ns, fix in self._waiting:
            if stamp_ns > times[-1]:
                later.append((stamp_ns, fix))
            elif stamp_ns >= times[0]:
                at = np.array([np.interp(stamp_ns, times, places[:, axis]) for axis in range(3)])
                self._met.append((summary.index, at, fix))
        self._waiting = deque(later, maxlen=_KEPT)

    def pairs(self, S_map_chunk: Mapping[int, Sim3]) -> tuple[np.ndarray, np.ndarray]:
        """Places (N, 3) in the map as it is now, and fixes (N, 3) east, north, up."""
        known = [(S_map_chunk[c], at, fix) for c, at, fix in self._met if c in S_map_chunk]
        places = [S.apply(at[None])[0] for S, at, _ in known]
        fixes = [fix for _, _, fix in known]
        return np.array(places).reshape(-1, 3), np.array(fixes).reshape(-1, 3)

    def map_in_earth(self, S_map_chunk: Mapping[int, Sim3]) -> np.ndarray | None:
        """T_earth_map (4, 4) of a level map in metres; None if the fixes do not tell."""
        found = gnss.fit(*self.pairs(S_map_chunk))
        if found is None or self.origin is None:
            return None
        return gnss.map_in_earth(found, self.origin)
