"""Metres per map unit from two noisy records of one path: odometry in metres, cameras in map units.

The root of the ratio of their energies (squared distances from the centre) needs no rotation
between the two, but noise adds to an energy: 3 cm on a path of 10 cm make the ratio 1.3 times too
large. So the energy is taken between two halves of the frames, every other one in each, whose
noise is independent: the sum of a_j . b_j has the expectation of the true energy (the method of
instrumental variables, each half being the other's instrument; Fuller, Measurement Error Models,
1987, section 1.4). Energies of many stretches add up, so that a stretch without motion adds only
noise of mean zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_SCALE_FRAMES = 6
"""Fewer frames do not tell their noise."""
UNTESTED = 0.05
"""Relative disagreement of one more stretch, assumed beside those that were seen: how far they
spread is not known from few."""
ENOUGH = 5
"""Fewer stretches do not show which one is an outlier."""
OUTLIER = 2.5
"""Stretches that disagree by more standard deviations lose weight (Huber): wheels slip."""
VAGUE = 0.5
"""An estimate with a larger relative standard deviation is none."""


@dataclass(frozen=True)
class Stretch:
    """What one stretch of the path says: energies without the energy of the noise, and their
    variances."""

    metres: float
    """Square metres; of a stretch without motion about zero, also negative."""
    units: float
    """Square map units."""
    metres_variance: float
    units_variance: float


def compare(stamps_ns: np.ndarray, metres: np.ndarray, units: np.ndarray) -> Stretch | None:
    """Positions (N, 3) of the same frames in both records; None for too few.

    The noise of different frames must be independent.
    """
    if len(stamps_ns) < MIN_SCALE_FRAMES:
        return None
    in_metres, in_units = (_energy(stamps_ns, record) for record in (metres, units))
    return Stretch(in_metres[0], in_units[0], in_metres[1], in_units[1])


def metres_per_unit(stretches: np.ndarray) -> tuple[float, float] | None:
    """Scale and its relative standard deviation from stretches (K, 4), fields in order of
    `Stretch`; None if they do not tell.

    The deviation is the larger one of what the noise within the stretches explains and what their
    disagreement shows.
    """
    metres, units, metres_variance, units_variance = stretches.T
    square, spread = _typical(metres, units), 0.0
    for _ in range(6):
        rest = metres - square * units
        variance = metres_variance + square**2 * units_variance
        deviations = np.abs(rest) / np.sqrt(variance)
        # From the median alone: outliers that have moved the estimate would excuse themselves.
        spread = spread or max(1.0, 1.4826 * float(np.median(deviations)))
        weights = np.minimum(1.0, OUTLIER * spread / np.maximum(deviations, 1e-12))
        if len(stretches) < ENOUGH:
            weights = np.ones(len(stretches))
        if not ((weights * metres).sum() > 0 and (weights * units).sum() > 0):
            return None
        square = (weights * metres).sum() / (weights * units).sum()
    moved = (weights * metres).sum()
    assumed = 2.0 * UNTESTED * moved / len(stretches)
    shown = (weights**2 * rest**2).sum() + assumed**2
    relative = 0.5 * np.sqrt(max((weights**2 * variance).sum(), shown)) / moved
    return (float(np.sqrt(square)), float(relative)) if relative < VAGUE else None


def _energy(stamps_ns: np.ndarray, positions: np.ndarray) -> tuple[float, float]:
    """Energy of a path (N, 3) between its two halves, and its variance."""
    count = len(positions) // 2
    first, second = positions[: 2 * count : 2], positions[1 : 2 * count : 2]
    between = (first - first.mean(axis=0)).T @ (second - second.mean(axis=0))
    between = (between + between.T) / 2.0
    noise = _noise(stamps_ns, positions)
    energy = np.trace(between)
    variance = 2.0 * np.trace(between @ noise) + count * np.trace(noise @ noise)
    least = count * np.trace(noise @ noise) + (1e-6 * energy) ** 2
    return float(energy), float(max(variance, least, 1e-30))


def _noise(stamps_ns: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Covariance (3, 3) of a position: how far each one is from the line between its neighbours.

    Acceleration counts as noise too, which errs on the safe side.
    """
    times = (stamps_ns - stamps_ns[0]) * 1e-9
    share = ((times[1:-1] - times[:-2]) / (times[2:] - times[:-2]))[:, None]
    away = positions[1:-1] - (1.0 - share) * positions[:-2] - share * positions[2:]
    away /= np.sqrt(1.0 + share**2 + (1.0 - share) ** 2)
    return away.T @ away / len(away)


def _typical(metres: np.ndarray, units: np.ndarray) -> float:
    """Median of the ratios of energies (K,), weighted by energy so that outliers do not move it;
    1 if nothing moved."""
    moved = units > 0
    if not moved.any():
        return 1.0
    ratios, weights = metres[moved] / units[moved], units[moved]
    order = np.argsort(ratios)
    half = np.searchsorted(np.cumsum(weights[order]), 0.5 * weights.sum())
    return float(ratios[order][half])
