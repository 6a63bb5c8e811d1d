"""Satellite fixes: local east-north-up coordinates, and the map's place, heading and size in them.

WGS 84, as GNSS receivers report it. The fit of the map to the fixes is a similarity about the
vertical, robust by Huber weights: single fixes are metres off where houses reflect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scal3r_ros import rigid

_RADIUS, _FLATTENING = 6378137.0, 1.0 / 298.257223563
_SQUARE = _FLATTENING * (2.0 - _FLATTENING)
MIN_FIXES = 8
"""Fewer fixes do not show which one is an outlier."""
OUTLIER = 2.0
"""Fixes that are further off, in standard deviations, lose weight (Huber)."""
VAGUE = 0.5
"""A scale with a larger relative standard deviation is none."""


@dataclass(frozen=True)
class Fix:
    """A place on earth, degrees and metres above the ellipsoid."""

    latitude: float
    longitude: float
    altitude: float


@dataclass(frozen=True, eq=False)
class GnssFit:
    """The map in the fixes' coordinates: east = scale * turn(heading) @ map + shift."""

    scale: float
    """Metres per map unit."""
    sigma: float
    """Relative standard deviation of the scale."""
    heading: float
    """Of the map's x axis, radians from east towards north."""
    shift: np.ndarray
    """(3,) of the map's origin, east north up, metres."""
    spread: float
    """Standard deviation of a fix along each horizontal axis, metres."""


def ecef(fix: Fix) -> np.ndarray:
    """(3,) metres, earth-centred and earth-fixed (frame `earth` of REP 105)."""
    latitude, longitude = np.radians([fix.latitude, fix.longitude])
    radius = _RADIUS / np.sqrt(1.0 - _SQUARE * np.sin(latitude) ** 2)
    across = (radius + fix.altitude) * np.cos(latitude)
    up = (radius * (1.0 - _SQUARE) + fix.altitude) * np.sin(latitude)
    return np.array([across * np.cos(longitude), across * np.sin(longitude), up])


def earth_from_enu(origin: Fix) -> np.ndarray:
    """T_earth_enu (4, 4) of the local frame (x east, y north, z up) at `origin`."""
    latitude, longitude = np.radians([origin.latitude, origin.longitude])
    sin_a, cos_a, sin_o, cos_o = (
        np.sin(latitude),
        np.cos(latitude),
        np.sin(longitude),
        np.cos(longitude),
    )
    east = [-sin_o, cos_o, 0.0]
    north = [-sin_a * cos_o, -sin_a * sin_o, cos_a]
    up = [cos_a * cos_o, cos_a * sin_o, sin_a]
    return rigid.from_parts(np.stack([east, north, up], axis=1), ecef(origin))


def local(origin: Fix, fix: Fix) -> np.ndarray:
    """(3,) east, north, up of `fix` from `origin`, metres."""
    return (rigid.inverse(earth_from_enu(origin)) @ np.append(ecef(fix), 1.0))[:3]


def fit(units: np.ndarray, metres: np.ndarray) -> GnssFit | None:
    """The similarity that lays map positions (N, 3), third axis up, on fixes (N, 3); None if they
    do not tell.

    Heights do not take part in size and heading: receivers know them worst.
    """
    if len(units) < MIN_FIXES:
        return None
    a, b = units[:, 0] + 1j * units[:, 1], metres[:, 0] + 1j * metres[:, 1]
    weights = np.ones(len(a))
    for _ in range(20):
        centre_a, centre_b = (np.average(x, weights=weights) for x in (a, b))
        energy = float((weights * np.abs(a - centre_a) ** 2).sum())
        if energy < 1e-12:
            return None
        factor = (weights * np.conj(a - centre_a) * (b - centre_b)).sum() / energy
        away = np.abs(b - centre_b - factor * (a - centre_a))
        # Of two axes: the median of a Rayleigh distribution is 1.1774 standard deviations.
        spread = max(float(np.median(away)) / 1.1774, 1e-6)
        weights = np.minimum(1.0, OUTLIER * spread / np.maximum(away, 1e-12))
    scale = float(abs(factor))
    sigma = _sigma(a - centre_a, b - centre_b, factor, weights, energy)
    if not scale or sigma > VAGUE:
        return None
    shift = centre_b - factor * centre_a
    height = float(np.median(metres[:, 2] - scale * units[:, 2]))
    place = np.array([shift.real, shift.imag, height])
    return GnssFit(scale, sigma, float(np.angle(factor)), place, spread)


def map_in_earth(found: GnssFit, origin: Fix) -> np.ndarray:
    """T_earth_map (4, 4) of a map in metres, from the fit made in its former units."""
    cosine, sine = np.cos(found.heading), np.sin(found.heading)
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    return earth_from_enu(origin) @ rigid.from_parts(turn, found.shift)


def _sigma(
    a: np.ndarray, b: np.ndarray, factor: complex, weights: np.ndarray, energy: float
) -> float:
    """Relative standard deviation of the size, by what is left over and how it hangs together:
    errors of neighbouring fixes are alike, which the sum over lags of their products tells."""
    along = a * factor / abs(factor)
    score = weights * np.real(np.conj(along) * (b - factor * a))
    lags = min(len(score) // 10, 20)
    total = float(score @ score)
    for lag in range(1, lags + 1):
        total += 2.0 * (1.0 - lag / (lags + 1.0)) * float(score[lag:] @ score[:-lag])
    plain = float(score @ score)
    freedom = len(score) / max(len(score) - 4.0, 1.0)
    return float(np.sqrt(max(total, plain) * freedom) / energy / abs(factor))
