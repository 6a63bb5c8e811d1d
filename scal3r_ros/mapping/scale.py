"""Metres per map unit, from whatever measures metres; unknown until something does.

Camera height, a known distance and measured depth yield ratios metres / map units, whose weighted
median in the logarithm is the estimate; odometry is compared as `odometry_scale` says. Once the
estimate is precise enough the map is rescaled to metres and the estimate frozen, because rescaling
again would invalidate what consumers hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from scal3r_ros.config import ScaleConfig
from scal3r_ros.mapping import odometry_scale
from scal3r_ros.records import ScaleEstimate

FLOOR = 0.005
"""Relative standard deviation below which no estimate is believed."""
MAX_RATIOS = 2000
MIN_PIXELS = 50
"""Fewer pixels with both depths say nothing."""
DEPTH_SIGMA = 0.02
"""Least relative standard deviation of one chunk's depth."""


class ScaleEstimator:
    """Collects ratios metres / map units from one source."""

    def __init__(self, config: ScaleConfig) -> None:
        self.config = config
        self._ratios: deque[tuple[float, float]] = deque(maxlen=MAX_RATIOS)
        self._stretches: deque[tuple[float, ...]] = deque(maxlen=MAX_RATIOS)
        self._compared = -1
        """Newest frame that was compared with the odometry."""
        self.estimate = ScaleEstimate()
        """Present estimate; `known` only when a source has measured it."""

    @property
    def ready(self) -> bool:
        """Whether the estimate is precise enough to freeze."""
        found = self.estimate
        if found.frozen or not found.known:
            return False
        return bool(np.sqrt(found.variance) <= self.config.max_relative_sigma * found.value)

    def freeze(self) -> ScaleEstimate:
        """Fix the present estimate for good; map coordinates times its `applied` are metres."""
        if not self.estimate.known:
            raise ValueError(f"scale from {self.config.source} is not known yet")
        self.estimate = _applied(self.estimate)
        return self.estimate

    def state(self) -> dict[str, np.ndarray]:
        """What was measured so far as arrays, to save and restore."""
        return {
            "ratios": np.array(self._ratios, dtype=np.float64).reshape(-1, 2),
            "stretches": np.array(self._stretches, dtype=np.float64).reshape(-1, 4),
            "compared": np.array(self._compared),
        }

    def restore(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Continue with a saved estimate (fields of `ScaleEstimate`) and what it was made from."""
        self._ratios.extend((float(ratio), float(sigma)) for ratio, sigma in arrays["ratios"])
        if "stretches" in arrays:  # absent from maps of older versions, as is `applied`
            self._stretches.extend(tuple(row) for row in arrays["stretches"].tolist())
            self._compared = int(arrays["compared"])
        saved = ScaleEstimate(**facts)
        self.estimate = _applied(saved) if saved.frozen and "applied" not in facts else saved

    def observe_odometry(
        self,
        frame_ids: Sequence[int],
        stamps_ns: Sequence[int],
        metres: np.ndarray,
        units: np.ndarray,
    ) -> None:
        """Camera positions (N, 3) of one chunk by odometry, and the same in map units.

        A chunk that shares frames with one already compared is left out: it would repeat what that
        one has said and make the estimate look better than it is.
        """
        if self.config.source != "odometry" or min(frame_ids, default=-1) <= self._compared:
            return
        stretch = odometry_scale.compare(np.asarray(stamps_ns, np.int64), metres, units)
        if stretch is not None:
            self._stretches.append(astuple(stretch))
            self._compared = max(frame_ids)
            self._take(odometry_scale.metres_per_unit(np.array(self._stretches)))

    def observe_camera_height(self, height: float, sigma: float) -> None:
        """Height of the camera above the floor in map units."""
        if self.config.source == "camera_height" and height > 0:
            self._add(self.config.camera_height / height, max(sigma / height, 0.02))

    def observe_path(self, length: float) -> None:
        """Path length between the first frame and `known_frame` in map units."""
        if self.config.source == "known_distance" and length > 0 and not self._ratios:
            self._add(self.config.known_distance / length, 0.02)

    def observe_depth(self, ratios: Sequence[float], unit: float) -> None:
        """Ratios metres / predicted depth of the frames of one chunk, as `depth_ratio` gives them;
        a chunk's unit is `unit` map units. Its frames share their error, so it counts once."""
        if self.config.source != "depth" or not len(ratios):
            return
        logs = np.log(np.asarray(ratios) / unit)
        centre = float(np.median(logs))
        spread = 1.4826 * float(np.median(np.abs(logs - centre)))
        self._add(float(np.exp(centre)), max(spread, DEPTH_SIGMA))

    def _add(self, ratio: float, sigma: float) -> None:
        self._ratios.append((float(ratio), float(sigma)))
        self._take(_median_ratio(np.array(self._ratios)))

    def _take(self, found: tuple[float, float] | None) -> None:
        """A new estimate and its relative standard deviation, unless the map is in metres."""
        if self.estimate.frozen or found is None:
            return
        value, sigma = found
        variance = (value * max(sigma, FLOOR)) ** 2
        self.estimate = ScaleEstimate(self.config.source, value, variance)


def depth_ratio(metres: np.ndarray, depth: np.ndarray) -> float | None:
    """Median ratio of a measured depth image (H, W) and the predicted one; None if they overlap
    too little. Invalid pixels are 0 or not finite in either."""
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(metres) & (metres > 0) & np.isfinite(depth) & (depth > 0)
    if valid.sum() < MIN_PIXELS:
        return None
    return float(np.median(metres[valid] / depth[valid]))


def _applied(estimate: ScaleEstimate) -> ScaleEstimate:
    """The same knowledge after the map was multiplied by it."""
    relative = estimate.variance / estimate.value**2
    return ScaleEstimate(estimate.source, 1.0, relative, True, estimate.value)


def _median_ratio(ratios: np.ndarray) -> tuple[float, float]:
    """Weighted median of ratios (N, 2) and its relative standard deviation."""
    values, sigmas = ratios.T
    value = float(np.exp(_weighted_median(np.log(values), 1.0 / sigmas**2)))
    deviation = np.abs(np.log(values / value))
    spread = 1.4826 * float(np.median(deviation)) / np.sqrt(len(values))
    return value, max(spread, float(1.0 / np.sqrt((1.0 / sigmas**2).sum())))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    share = (np.cumsum(weights[order]) - 0.5 * weights[order]) / weights.sum()
    return float(np.interp(0.5, share, values[order]))
