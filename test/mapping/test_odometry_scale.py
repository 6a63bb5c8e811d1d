"""Scale from odometry: two noisy records of a path, one in metres and one in map units."""

from dataclasses import astuple

import numpy as np
import pytest

from scal3r_ros.config import ScaleConfig
from scal3r_ros.mapping.odometry_scale import compare, metres_per_unit
from scal3r_ros.mapping.scale import ScaleEstimator

UNIT = 2.0
"""Metres per map unit of all maps here."""
FRAMES, RATE = 30, 10.0


def stretches(seed, speed, noise, unit_noise, wobble=0.0):
    """Frame ids, stamps and both records of one chunk after another, without end."""
    random = np.random.default_rng(seed)
    place, heading = np.zeros(3), 0.0
    for chunk in range(1000):
        turn = heading + np.cumsum(0.02 * random.standard_normal(FRAMES))
        steps = speed / RATE * np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
        path = place + np.cumsum(steps, axis=0)
        place, heading = path[-1], turn[-1]
        ids = range(chunk * FRAMES, (chunk + 1) * FRAMES)
        metres = path + noise * random.standard_normal(path.shape) * [1, 1, 0]
        units = path / UNIT * np.exp(wobble * random.standard_normal())
        units = units + unit_noise / UNIT * random.standard_normal(path.shape)
        yield ids, [int(i / RATE * 1e9) for i in ids], metres, units


def until_frozen(limit=0.05, **world):
    """Estimate of a robot's scale at the moment when it is good enough, and chunks until then."""
    estimator = ScaleEstimator(ScaleConfig(source="odometry", max_relative_sigma=limit))
    for count, stretch in enumerate(stretches(**world), 1):
        estimator.observe_odometry(*stretch)
        if estimator.ready:
            return estimator.estimate, count
    raise AssertionError("never good enough")


@pytest.mark.parametrize(
    ("world", "limit"),
    [
        ({"speed": 0.05, "noise": 0.03, "unit_noise": 0.01}, 0.05),
        ({"speed": 0.05, "noise": 0.01, "unit_noise": 0.03}, 0.05),
        ({"speed": 0.1, "noise": 0.03, "unit_noise": 0.01}, 0.02),
    ],
)
def test_the_stated_sigma_holds(world, limit):
    """Over many robots the error is below one sigma in about 68 of 100 and below two in 95,
    whichever of the records is the noisy one."""
    found = [until_frozen(limit, seed=seed, **world)[0] for seed in range(200)]
    errors = np.array([(f.value - UNIT) / np.sqrt(f.variance) for f in found])
    share = np.mean(np.abs(errors) < 1.0)
    assert 0.60 < share < 0.76, f"{share:.2f}"
    assert np.mean(np.abs(errors) < 2.0) > 0.90
    assert abs(np.mean(errors)) < 0.25, "no bias by noise"


def spread(positions):
    return np.linalg.norm(positions - positions.mean(axis=0))


def test_noise_on_a_slow_robot_is_averaged_before_anything_is_frozen():
    """3 cm of noise on 10 cm of path: the ratio of the spreads alone says 2.7, whatever comes."""
    world = {"speed": 0.035, "noise": 0.03, "unit_noise": 0.003}
    naive = []
    for seed in range(20):
        _, _, metres, units = next(stretches(seed=seed, **world))
        naive.append(spread(metres) / spread(units))
    assert np.mean(naive) > 1.2 * UNIT
    found = [until_frozen(seed=seed, **world) for seed in range(20)]
    assert min(count for _, count in found) > 5
    assert np.mean([f.value for f, _ in found]) == pytest.approx(UNIT, rel=0.03)
    assert all(abs(f.value - UNIT) < 3.5 * np.sqrt(f.variance) for f, _ in found)


def test_chunks_that_disagree_are_not_as_good_as_their_noise():
    """The map's own scale wobbles by a twentieth from chunk to chunk; each chunk looks perfect."""
    world = {"speed": 1.0, "noise": 1e-4, "unit_noise": 1e-4, "wobble": 0.05}
    found = [until_frozen(0.015, seed=seed, **world) for seed in range(100)]
    assert np.median([count for _, count in found]) > 5
    errors = np.array([(f.value - UNIT) / np.sqrt(f.variance) for f, _ in found])
    assert np.mean(np.abs(errors) < 2.0) > 0.85


def test_one_chunk_alone_is_believed_to_a_twentieth_at_most():
    estimator = ScaleEstimator(ScaleConfig(source="odometry", max_relative_sigma=0.049))
    source = stretches(seed=2, speed=1.0, noise=1e-4, unit_noise=1e-4)
    estimator.observe_odometry(*next(source))
    assert estimator.estimate.value == pytest.approx(UNIT, rel=1e-3)
    assert np.sqrt(estimator.estimate.variance) == pytest.approx(0.05 * UNIT, rel=0.01)
    assert not estimator.ready
    estimator.observe_odometry(*next(source))
    assert estimator.ready


def test_slipping_wheels_lose_against_the_other_chunks():
    rows = []
    source = stretches(seed=3, speed=0.5, noise=0.01, unit_noise=0.01)
    for count, (_, stamps, metres, units) in enumerate(source):
        metres = metres * (3.0 if count in (2, 7) else 1.0)
        rows.append(astuple(compare(np.array(stamps), metres, units)))
        if count == 11:
            break
    value, sigma = metres_per_unit(np.array(rows))
    assert value == pytest.approx(UNIT, rel=0.1)
    assert abs(value - UNIT) < 3 * sigma * UNIT


def test_a_parked_robot_tells_nothing_however_long_it_stands():
    estimator = ScaleEstimator(ScaleConfig(source="odometry"))
    for count, stretch in enumerate(stretches(seed=4, speed=0.0, noise=0.01, unit_noise=0.01)):
        estimator.observe_odometry(*stretch)
        assert not estimator.ready
        if count == 50:
            break
    still = np.zeros((FRAMES, 3))
    exact = compare(np.arange(FRAMES) * 10**8, still, still)
    assert metres_per_unit(np.array([astuple(exact)])) is None


def test_overlapping_chunks_do_not_count_twice():
    estimator = ScaleEstimator(ScaleConfig(source="odometry"))
    ids, stamps, metres, units = next(stretches(seed=5, speed=1.0, noise=0.01, unit_noise=0.01))
    for start in (0, 10, 20):
        part = slice(start, start + 10 + start % 20)
        estimator.observe_odometry(ids[part], stamps[part], metres[part], units[part])
    before = estimator.estimate
    estimator.observe_odometry(ids[15:], stamps[15:], metres[15:], units[15:])
    assert estimator.estimate is before
    assert len(estimator.state()["stretches"]) == 2


def test_frames_that_were_dropped_do_not_look_like_noise():
    """The gaps are uneven, the motion is not: positions are compared by time."""
    _, stamps, metres, units = next(stretches(seed=6, speed=1.0, noise=0.0, unit_noise=0.0))
    kept = np.array([0, 1, 2, 5, 6, 8, 9, 10, 15, 16, 17, 20, 21, 22, 23, 28])
    whole = compare(np.array(stamps), metres, units)
    some = compare(np.array(stamps)[kept], metres[kept], units[kept])
    relative = [np.sqrt(s.metres_variance) / s.metres for s in (whole, some)]
    assert relative[1] < 0.02 and relative[0] < 0.01


def test_too_few_frames_tell_nothing():
    assert compare(np.arange(4) * 10**8, np.eye(4)[:, :3], np.eye(4)[:, :3]) is None
