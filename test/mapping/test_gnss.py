"""Satellite fixes: the ellipsoid by known places, and a map laid on noisy fixes."""

import numpy as np
import pytest

from scal3r_ros.mapping.gnss import Fix, earth_from_enu, ecef, fit, local, map_in_earth

ORIGIN = Fix(48.137, 11.575, 520.0)


def test_known_places_of_the_ellipsoid():
    np.testing.assert_allclose(ecef(Fix(0, 0, 0)), [6378137.0, 0, 0], atol=1e-3)
    np.testing.assert_allclose(ecef(Fix(90, 0, 0)), [0, 0, 6356752.3142], atol=1e-3)
    # A degree of latitude at 45 degrees is 111 131.7 m on WGS 84.
    north = [local(Fix(45, 7, 0), Fix(45 + d, 7, 0))[1] for d in (-0.005, 0.005)]
    assert 100 * (north[1] - north[0]) == pytest.approx(111131.7, abs=1.0)
    east, _, up = local(ORIGIN, Fix(ORIGIN.latitude, ORIGIN.longitude + 1e-3, 530.0))
    assert east == pytest.approx(1e-3 * 111319.49 * np.cos(np.radians(48.137)) * 1.0019, rel=1e-3)
    assert up == pytest.approx(10.0, abs=1e-3)


def drive(seed, outliers=0.0, noise=1.5, unit=3.0, length=400.0):
    random = np.random.default_rng(seed)
    way = np.linspace(0, 1, 120)
    path = np.stack([length * way, 60 * np.sin(5 * way), 2 * way], axis=1)
    units = path / unit
    turned = path @ np.array([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1.0]])
    metres = turned + [30.0, -20.0, 4.0] + noise * random.standard_normal(path.shape)
    wrong = random.random(len(way)) < outliers
    metres[wrong] += 30.0 * random.standard_normal((wrong.sum(), 3))
    return units, metres


def test_the_stated_sigma_holds():
    found = [fit(*drive(seed)) for seed in range(100)]
    errors = np.array([f.scale / 3.0 - 1 for f in found])
    share = np.mean(np.abs(errors) < [f.sigma for f in found])
    assert np.abs(errors).max() < 0.01 and 0.60 <= share <= 0.76, share


def test_reflected_fixes_change_little():
    errors = [abs(fit(*drive(seed, outliers=0.2)).scale / 3.0 - 1) for seed in range(20)]
    assert np.median(errors) < 0.005 and max(errors) < 0.02


def test_the_map_lies_where_the_fixes_are():
    units, metres = drive(0, noise=0.01)
    T_earth_map = map_in_earth(fit(units, metres), ORIGIN)
    in_metres = np.append(units[50] * 3.0, 1.0)
    place = (np.linalg.inv(earth_from_enu(ORIGIN)) @ T_earth_map @ in_metres)[:3]
    np.testing.assert_allclose(place, metres[50], atol=0.05)


def test_standing_still_and_few_fixes_tell_nothing():
    units, metres = drive(0)
    assert fit(units[:7], metres[:7]) is None
    still = np.zeros((50, 3)) + 1e-9
    assert fit(still, metres[:50]) is None
    assert fit(0.001 * units, np.random.default_rng(0).standard_normal((120, 3)) * 5) is None
