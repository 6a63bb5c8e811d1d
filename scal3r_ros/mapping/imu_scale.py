"""Metres per map unit from an accelerometer: how far the camera swings, in metres and in map units.

Within a window of two seconds the position of the inertial sensor is its specific force integrated
twice, plus what gravity, a constant bias and the unknown start add: for each axis a parabola in
time. So of both records, the integrated one in metres and the camera's in map units, everything
that a parabola explains is taken away by least squares; what is left is the same motion in two
units (linear initialisation as in Martinelli, IJCV 2014, with gravity, bias and velocity
eliminated). Walking swings a camera by centimetres; a camera that glides evenly leaves nothing, and
then the scale is not known.

The camera's record is the noisy one, so that it is regressed on the integrated one, not the other
way around: noise of a regressor would pull the ratio towards zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scal3r_ros.mapping.sim3 import rotation_exp, rotation_log

WINDOW_NS = 2_000_000_000
"""Longer windows add drift of the integration, shorter ones leave no motion."""
MIN_FRAMES = 8
"""Frames that a window needs: three are spent on each axis' parabola."""
MAX_GAP_NS = 50_000_000
"""A longer silence of the sensor ends a window."""
MIN_SWING = 0.003
"""Root mean square of the motion that is left, metres; less is noise of the sensor."""
MIN_WINDOWS = 10
"""Fewer windows do not show how much they disagree: 20 s of walking."""
VAGUE = 0.5
"""An estimate with a larger relative standard deviation is none."""


@dataclass(frozen=True, eq=False)
class Readings:
    """Of an inertial sensor, in the camera's optical axes, in order of time."""

    stamps_ns: np.ndarray
    """(N,) int64."""
    force: np.ndarray
    """(N, 3) specific force, m/s^2: at rest it points up."""
    turn_rate: np.ndarray
    """(N, 3) rad/s."""
    lever: np.ndarray
    """(3,) position of the sensor in the camera's frame, metres."""


@dataclass(frozen=True)
class Swing:
    """What one window says."""

    metres: float
    """Square metres that are left of the integrated record."""
    product: float
    """Of both records, metres times map units."""
    count: float
    """Frames."""


@dataclass(frozen=True)
class ImuScale:
    """Metres per unit and its relative standard deviation, or why they are not known."""

    value: float = 1.0
    sigma: float = float("inf")
    refusal: str = ""


def swings(stamps_ns: np.ndarray, T_map_camera: np.ndarray, readings: Readings) -> list[Swing]:
    """Windows of one chunk: frames at `stamps_ns` (S,), poses (S, 4, 4) in map units."""
    found = []
    start = 0
    while start + MIN_FRAMES <= len(stamps_ns):
        end = int(np.searchsorted(stamps_ns, stamps_ns[start] + WINDOW_NS, side="right"))
        if end - start < MIN_FRAMES:
            break
        swing = _swing(stamps_ns[start:end], T_map_camera[start:end], readings)
        found += [] if swing is None else [swing]
        start = end
    return found


def metres_per_unit(windows: Sequence[Swing]) -> ImuScale:
    """From all windows so far. The deviation is earned: it is what the windows show by disagreeing
    (a jackknife over windows, which need not be alike)."""
    if len(windows) < MIN_WINDOWS:
        return ImuScale(refusal=f"{len(windows)} of {MIN_WINDOWS} windows of 2 s so far")
    metres, product, count = np.array([(w.metres, w.product, w.count) for w in windows]).T
    swing = np.sqrt(metres.sum() / count.sum())
    if swing < MIN_SWING:
        return ImuScale(
            refusal=f"the camera glides: {1000 * swing:.1f} mm of motion that gravity and constant "
            f"speed do not explain, {1000 * MIN_SWING:.0f} mm are needed; walk, or turn and stop"
        )
    inverse = product.sum() / metres.sum()
    if inverse <= 0:
        return ImuScale(refusal="the camera's motion and the sensor's contradict each other")
    without = (product.sum() - product) / (metres.sum() - metres)
    spread = np.sqrt((len(without) - 1.0) * np.mean((without - without.mean()) ** 2))
    sigma = float(spread / inverse)
    if sigma > VAGUE:
        return ImuScale(refusal=f"the windows disagree by {100 * sigma:.0f} %")
    return ImuScale(float(1.0 / inverse), sigma)


def _swing(stamps_ns: np.ndarray, T_map_camera: np.ndarray, readings: Readings) -> Swing | None:
    """One window; None where the sensor was silent."""
    first = int(np.searchsorted(readings.stamps_ns, stamps_ns[0], side="right")) - 1
    last = int(np.searchsorted(readings.stamps_ns, stamps_ns[-1], side="left")) + 1
    if first < 0 or last > len(readings.stamps_ns) or last - first < 2 * len(stamps_ns):
        return None
    times_ns = readings.stamps_ns[first:last]
    if np.diff(times_ns).max() > MAX_GAP_NS:
        return None
    times, frames = (times_ns - stamps_ns[0]) * 1e-9, (stamps_ns - stamps_ns[0]) * 1e-9
    turns = _turns(times, readings.turn_rate[first:last], frames, T_map_camera[:, :3, :3])
    force = np.einsum("nij,nj->ni", turns, readings.force[first:last])
    travelled = _at(frames, times, _integrated(times, _integrated(times, force)))
    # The integral is the sensor's way; the camera's differs by the lever, which turns.
    travelled = travelled - T_map_camera[:, :3, :3] @ readings.lever
    basis, _ = np.linalg.qr(np.stack([np.ones_like(frames), frames, frames**2], axis=1))
    metres, units = (
        record - basis @ (basis.T @ record) for record in (travelled, T_map_camera[:, :3, 3])
    )
    return Swing(float((metres**2).sum()), float((metres * units).sum()), len(frames))


def _turns(
    times: np.ndarray, turn_rate: np.ndarray, frames: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Rotations (N, 3, 3) of the camera in the map at all readings: the gyroscope's, which are
    smooth, laid on those that the camera saw (S, 3, 3) by a start and a constant drift."""
    steps = rotation_exp((turn_rate[1:] + turn_rate[:-1]) / 2.0 * np.diff(times)[:, None])
    turned = [np.eye(3)]
    for step in steps:
        turned.append(turned[-1] @ step)
    by_gyro = np.stack(turned)
    nearest = np.clip(np.searchsorted(times, frames), 1, len(times) - 1)
    share = (frames - times[nearest - 1]) / (times[nearest] - times[nearest - 1])
    between = rotation_exp(
        share[:, None] * rotation_log(_relative(by_gyro[nearest - 1], by_gyro[nearest]))
    )
    at_frames = by_gyro[nearest - 1] @ between
    start = seen[0] @ at_frames[0].T
    for _ in range(2):  # the small angles below are about the start found before
        rest = rotation_log(seen @ np.swapaxes(start @ at_frames, 1, 2))
        line = np.stack([np.ones_like(frames), frames], axis=1)
        offset, drift = np.linalg.lstsq(line, rest, rcond=None)[0]
        start = rotation_exp(offset) @ start
    return rotation_exp(times[:, None] * drift) @ start @ by_gyro


def _relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.swapaxes(a, -1, -2) @ b


def _integrated(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Integral (N, 3) from the first time on, by trapezoids."""
    pieces = (values[1:] + values[:-1]) / 2.0 * np.diff(times)[:, None]
    return np.concatenate([np.zeros((1, 3)), np.cumsum(pieces, axis=0)])


def _at(wanted: np.ndarray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (S, 3) at other times, on lines between."""
    return np.stack([np.interp(wanted, times, values[:, axis]) for axis in range(3)], axis=1)
