"""Metres per map unit, from whatever measures metres; unknown until something does.

Camera height, a known distance and measured depth yield ratios metres / map units, whose weighted
median in the logarithm is the estimate; odometry, accelerometers and satellite fixes are compared
as `odometry_scale`, `imu_scale` and `gnss` say. Several sources are combined by inverse variance in
the logarithm. Once the estimate is precise enough the map is rescaled to metres and the estimate
frozen, because rescaling again would invalidate what consumers hold.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from scal3r_ros.config_map import SCALE_SOURCES, ScaleConfig
from scal3r_ros.mapping import gnss, imu_scale, odometry_scale
from scal3r_ros.records import ScaleEstimate

FLOOR = 0.005
"""Relative standard deviation below which no estimate is believed."""
MAX_RATIOS = 2000
MIN_PIXELS = 50
"""Fewer pixels with both depths say nothing."""
PATIENCE = 20
"""Chunks after which a source that has said nothing is waited for no longer."""
CONTRADICTION = 3.0
"""Sources that differ by more standard deviations contradict each other."""
DEPTH_SIGMA = 0.02
"""Least relative standard deviation of one chunk's depth."""


class ScaleEstimator:
    """Collects what the sources say, and combines it."""

    def __init__(self, config: ScaleConfig) -> None:
        self.config = config
        self.refusals: dict[str, str] = {}
        """By source, why it does not tell the scale yet."""
        self._ratios: dict[str, deque[tuple[float, float]]] = {
            source: deque(maxlen=MAX_RATIOS) for source in SCALE_SOURCES
        }
        self._stretches: deque[tuple[float, ...]] = deque(maxlen=MAX_RATIOS)
        self._swings: deque[tuple[float, ...]] = deque(maxlen=MAX_RATIOS)
        self._compared = {"odometry": -1, "imu": -1}
        """Newest frame that was compared with the odometry, and with an inertial sensor."""
        self._found: dict[str, tuple[float, float]] = {}
        """By source, metres per unit and the relative standard deviation."""
        self._told: set[tuple[str, str]] = set()
        self._chunks = 0
        self.estimate = ScaleEstimate()
        """Present estimate; `known` only when a source has measured it."""

    @property
    def ready(self) -> bool:
        """Whether the estimate is precise enough to freeze. Sources that are still silent are
        waited for, but not for ever."""
        found = self.estimate
        if found.frozen or not found.known:
            return False
        if set(self.config.sources) - self._found.keys() and self._chunks < PATIENCE:
            return False
        return bool(np.sqrt(found.variance) <= self.config.max_relative_sigma * found.value)

    def count_chunk(self) -> None:
        """One more chunk was compared with all that measures metres."""
        self._chunks += 1

    def contradictions(self) -> list[str]:
        """A sentence about every pair of sources that contradict each other, once."""
        told = []
        for a, b in itertools.combinations(sorted(self._found), 2):
            (one, sigma_a), (other, sigma_b) = self._found[a], self._found[b]
            apart = abs(np.log(one / other)) / np.hypot(sigma_a, sigma_b)
            if apart > CONTRADICTION and (a, b) not in self._told:
                self._told.add((a, b))
                told.append(
                    f"{a} says {one:.4g} m per unit +- {100 * sigma_a:.1f} %, {b} says {other:.4g} "
                    f"+- {100 * sigma_b:.1f} %; check units, mounting and clocks of both"
                )
        return told

    def freeze(self) -> ScaleEstimate:
        """Fix the present estimate for good; map coordinates times its `applied` are metres."""
        if not self.estimate.known:
            raise ValueError(f"scale from {', '.join(self.config.sources)} is not known yet")
        self.estimate = _applied(self.estimate)
        return self.estimate

    def state(self) -> dict[str, np.ndarray]:
        """What was measured so far as arrays, to save and restore."""
        kept = {f"ratios.{k}": np.array(v).reshape(-1, 2) for k, v in self._ratios.items() if v}
        kept |= {f"found.{source}": np.array(pair) for source, pair in self._found.items()}
        return kept | {
            "stretches": np.array(self._stretches, dtype=np.float64).reshape(-1, 4),
            "swings": np.array(self._swings, dtype=np.float64).reshape(-1, 3),
            "compared": np.array(self._compared["odometry"]),
            "compared_imu": np.array(self._compared["imu"]),
        }

    def restore(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Continue with a saved estimate (fields of `ScaleEstimate`) and what it was made from."""
        older = {f"ratios.{facts['source']}": arrays["ratios"]} if "ratios" in arrays else {}
        for name, rows in {**arrays, **older}.items():
            group, _, source = name.partition(".")
            if group == "ratios" and source in self._ratios:
                self._ratios[source].extend((float(ratio), float(s)) for ratio, s in rows)
            elif group == "found":
                self._found[source] = float(rows[0]), float(rows[1])
        if "stretches" in arrays:  # absent from maps of older versions, as is `applied`
            self._stretches.extend(tuple(row) for row in arrays["stretches"].tolist())
            self._compared["odometry"] = int(arrays["compared"])
        if "swings" in arrays:
            self._swings.extend(tuple(row) for row in arrays["swings"].tolist())
            self._compared["imu"] = int(arrays["compared_imu"])
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
        if not self._wants("odometry") or min(frame_ids, default=-1) <= self._compared["odometry"]:
            return
        stretch = odometry_scale.compare(np.asarray(stamps_ns, np.int64), metres, units)
        if stretch is not None:
            self._stretches.append(astuple(stretch))
            self._compared["odometry"] = max(frame_ids)
            self._take("odometry", odometry_scale.metres_per_unit(np.array(self._stretches)))

    def observe_imu(
        self,
        frame_ids: Sequence[int],
        stamps_ns: Sequence[int],
        T_map_camera: np.ndarray,
        readings: imu_scale.Readings,
    ) -> None:
        """Poses (N, 4, 4) of one chunk in map units, and the readings of an inertial sensor;
        frames that were compared before are left out."""
        fresh = [i for i, frame_id in enumerate(frame_ids) if frame_id > self._compared["imu"]]
        if not self._wants("imu") or not fresh:
            return
        found = imu_scale.swings(
            np.asarray(stamps_ns, np.int64)[fresh], T_map_camera[fresh], readings
        )
        if not found:
            return
        self._swings.extend(astuple(swing) for swing in found)
        self._compared["imu"] = max(frame_ids)
        scale = imu_scale.metres_per_unit([imu_scale.Swing(*row) for row in self._swings])
        self.refusals["imu"] = scale.refusal
        self._take("imu", None if scale.refusal else (scale.value, scale.sigma))

    def observe_gnss(self, units: np.ndarray, metres: np.ndarray) -> None:
        """All places (N, 3) with a satellite fix, in the level map and east, north, up."""
        found = gnss.fit(units, metres) if self._wants("gnss") else None
        self._take("gnss", None if found is None else (found.scale, found.sigma))

    def observe_camera_height(self, height: float, sigma: float) -> None:
        """Height of the camera above the floor in map units."""
        if self._wants("camera_height") and height > 0:
            self._add(
                "camera_height", self.config.camera_height / height, max(sigma / height, 0.02)
            )

    def observe_path(self, length: float) -> None:
        """Path length between the first frame and `known_frame` in map units."""
        if self._wants("known_distance") and length > 0 and not self._ratios["known_distance"]:
            self._add("known_distance", self.config.known_distance / length, 0.02)

    def observe_depth(self, ratios: Sequence[float], unit: float) -> None:
        """Ratios metres / predicted depth of the frames of one chunk, as `depth_ratio` gives them;
        a chunk's unit is `unit` map units. Its frames share their error, so it counts once."""
        if not self._wants("depth") or not len(ratios):
            return
        logs = np.log(np.asarray(ratios) / unit)
        centre = float(np.median(logs))
        spread = 1.4826 * float(np.median(np.abs(logs - centre)))
        self._add("depth", float(np.exp(centre)), max(spread, DEPTH_SIGMA))

    def _wants(self, source: str) -> bool:
        return source in self.config.sources

    def _add(self, source: str, ratio: float, sigma: float) -> None:
        self._ratios[source].append((float(ratio), float(sigma)))
        self._take(source, _median_ratio(np.array(self._ratios[source])))

    def _take(self, source: str, found: tuple[float, float] | None) -> None:
        """What a source says now, scale and relative standard deviation, unless the map is in
        metres."""
        if self.estimate.frozen or found is None:
            return
        self._found[source] = found[0], max(found[1], FLOOR)
        value, sigma = combined(list(self._found.values()))
        self.estimate = ScaleEstimate("+".join(self._found), value, (value * sigma) ** 2)


def combined(found: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of scales by inverse variance, in the logarithm, and its relative standard deviation:
    larger by how much they disagree more than they say (the ratio of Birge 1932)."""
    values, sigmas = np.array(found).T
    logs, weights = np.log(values), 1.0 / sigmas**2
    mean = float((weights * logs).sum() / weights.sum())
    excess = float((weights * (logs - mean) ** 2).sum()) / max(len(logs) - 1, 1)
    return float(np.exp(mean)), float(np.sqrt(max(excess, 1.0) / weights.sum()))


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
