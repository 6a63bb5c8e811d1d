"""Metres per map unit, from whatever measures metres; unknown until something does.

Each source yields ratios metres / map units. Their weighted median in the logarithm is the
estimate; once its spread is small
enough it is frozen, because rescaling a live map would invalidate what consumers hold.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

import numpy as np

from scal3r_ros.config import ScaleConfig
from scal3r_ros.mapping.sim3 import rotation_exp, rotation_log
from scal3r_ros.records import ScaleEstimate

ODOMETRY_BUFFER = 20_000
MIN_MOTION = 0.05
"""Shortest odometry displacement that says something about scale, metres."""
FLOOR = 0.005
"""Relative standard deviation below which no estimate is believed."""
MAX_RATIOS = 2000


class ScaleEstimator:
    """Collects ratios metres / map units from one source."""

    def __init__(self, config: ScaleConfig) -> None:
        self.config = config
        self._odometry: deque[tuple[int, np.ndarray]] = deque(maxlen=ODOMETRY_BUFFER)
        self._ratios: deque[tuple[float, float]] = deque(maxlen=MAX_RATIOS)
        self._frozen: ScaleEstimate | None = None

    @property
    def estimate(self) -> ScaleEstimate:
        """Present estimate; `known` only when a source has measured it."""
        if self._frozen is not None:
            return self._frozen
        if self.config.source == "none" or not self._ratios:
            return ScaleEstimate()
        ratios, sigmas = np.array(self._ratios).T
        value = float(np.exp(_weighted_median(np.log(ratios), 1.0 / sigmas**2)))
        deviation = np.abs(np.log(ratios / value))
        spread = 1.4826 * float(np.median(deviation)) / np.sqrt(len(ratios))
        stated = 1.0 / np.sqrt((1.0 / sigmas**2).sum())
        sigma = max(spread, float(stated), FLOOR)
        return ScaleEstimate(self.config.source, value, (value * sigma) ** 2)

    @property
    def ready(self) -> bool:
        """Whether the estimate is precise enough to freeze."""
        found = self.estimate
        if found.frozen or not found.known:
            return False
        return bool(np.sqrt(found.variance) <= self.config.max_relative_sigma * found.value)

    def freeze(self) -> ScaleEstimate:
        """Fix the present estimate for good, when consumers are about to be given metres."""
        found = self.estimate
        if not found.known:
            raise ValueError(f"scale from {self.config.source} is not known yet")
        self._frozen = ScaleEstimate(found.source, found.value, found.variance, frozen=True)
        return self._frozen

    def ratios(self) -> np.ndarray:
        """(N, 2) ratios metres / map units and their relative standard deviations, to save."""
        return np.array(self._ratios, dtype=np.float64).reshape(-1, 2)

    def restore(self, estimate: ScaleEstimate, ratios: np.ndarray | None = None) -> None:
        """Continue with a saved, frozen estimate, or with what was measured until then."""
        self._frozen = estimate if estimate.frozen else None
        if ratios is not None:
            self._ratios.clear()
            self._ratios.extend((float(ratio), float(sigma)) for ratio, sigma in ratios)

    def copy_odometry(self, other: ScaleEstimator) -> None:
        """Take over the odometry that another estimator has seen."""
        self._odometry = other._odometry

    def observe_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None:
        """A pose (4, 4) of the odometry, metres; stamps increase."""
        if self._odometry and stamp_ns <= self._odometry[-1][0]:
            return
        self._odometry.append((stamp_ns, np.array(T_odom_base, dtype=np.float64)))

    def odometry_at(self, stamp_ns: int) -> np.ndarray | None:
        """Interpolated odometry pose; None outside the buffer or across a pause of a second."""
        place = bisect_left(self._odometry, stamp_ns, key=lambda item: item[0])
        if place < len(self._odometry) and self._odometry[place][0] == stamp_ns:
            return self._odometry[place][1]
        if place == 0 or place == len(self._odometry):
            return None
        (before_ns, before), (after_ns, after) = self._odometry[place - 1], self._odometry[place]
        if after_ns - before_ns > 1_000_000_000:
            return None
        share = (stamp_ns - before_ns) / (after_ns - before_ns)
        return _interpolate(before, after, share)

    def observe_positions(
        self, stamps_ns: Sequence[int], positions: np.ndarray, T_base_camera: np.ndarray
    ) -> None:
        """Camera positions (N, 3) of one chunk in map units: compared with the odometry between
        them."""
        if self.config.source != "odometry":
            return
        known = [(i, self.odometry_at(stamp)) for i, stamp in enumerate(stamps_ns)]
        known = [(i, pose) for i, pose in known if pose is not None]
        if len(known) < 2:
            return
        metres = np.stack([(pose @ T_base_camera)[:3, 3] for _, pose in known])
        units = positions[[i for i, _ in known]]
        spreads = [np.sqrt(((p - p.mean(axis=0)) ** 2).sum()) for p in (metres, units)]
        if spreads[0] > MIN_MOTION * np.sqrt(len(known)) and spreads[1] > 0:
            self._add(spreads[0] / spreads[1], 0.05)

    def observe_camera_height(self, height: float, sigma: float) -> None:
        """Height of the camera above the floor in map units."""
        if self.config.source == "camera_height" and height > 0:
            self._add(self.config.camera_height / height, max(sigma / height, 0.02))

    def observe_path(self, length: float) -> None:
        """Path length between the first frame and `known_frame` in map units."""
        if self.config.source == "known_distance" and length > 0 and not self._ratios:
            self._add(self.config.known_distance / length, 0.02)

    def observe_depth(self, metres: np.ndarray, depth: np.ndarray, unit: float) -> None:
        """A measured depth image (H, W) and the predicted one, whose unit is `unit` map units.

        Invalid pixels are 0 or not finite in either.
        """
        if self.config.source != "depth":
            return
        with np.errstate(invalid="ignore"):
            valid = np.isfinite(metres) & (metres > 0) & np.isfinite(depth) & (depth > 0)
        if valid.sum() < 50:
            return
        logs = np.log(metres[valid] / (depth[valid] * unit))
        centre = float(np.median(logs))
        sigma = max(1.4826 * float(np.median(np.abs(logs - centre))) / 10.0, 0.02)
        self._add(float(np.exp(centre)), sigma)

    def _add(self, ratio: float, sigma: float) -> None:
        if self._frozen is None:
            self._ratios.append((float(ratio), float(sigma)))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    share = (np.cumsum(weights[order]) - 0.5 * weights[order]) / weights.sum()
    return float(np.interp(0.5, share, values[order]))


def _interpolate(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    pose = np.eye(4)
    turn = rotation_log(before[:3, :3].T @ after[:3, :3])
    pose[:3, :3] = before[:3, :3] @ rotation_exp(share * turn)
    pose[:3, 3] = (1.0 - share) * before[:3, 3] + share * after[:3, 3]
    return pose
