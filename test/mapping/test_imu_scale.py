"""Scale from an accelerometer, on walks whose truth is known, with the noise of a phone."""

import numpy as np
import pytest

from scal3r_ros.mapping.imu_scale import Readings, metres_per_unit, swings
from scal3r_ros.mapping.sim3 import rotation_exp

UNIT = 2.3
"""Metres per map unit."""
IMU_HZ, CAMERA_HZ = 200, 15
FORCE_NOISE, TURN_NOISE = 0.002, 0.0002
"""Per root hertz, m/s^2 and rad/s: data sheets of phones."""
LEVER = np.array([0.03, -0.02, 0.01])


def walk(random, seconds, swing=1.0, speed=1.1):
    """Position and rotation of the camera at a function's times: a walk that turns, with the sway
    of steps at 1.8 Hz."""
    phase = random.uniform(0, 2 * np.pi, 8)
    gait = 2 * np.pi * random.uniform(1.6, 2.0)

    def pose(t):
        heading = 0.4 * np.sin(0.25 * t + phase[0]) + 0.1 * np.sin(0.8 * t + phase[1])
        x, y = speed * t, 0.8 * np.sin(0.3 * t + phase[2])
        bob = 0.02 * swing * np.sin(gait * t + phase[3])
        sway = 0.025 * swing * np.sin(gait / 2 * t + phase[4])
        surge = 0.012 * swing * np.sin(gait * t + phase[5])
        place = np.stack([x + surge, y + sway, 1.4 + bob], axis=-1)
        tilt = np.stack([
            0.02 * swing * np.sin(gait / 2 * t + phase[6]),
            0.03 * swing * np.sin(gait * t + phase[7]) + 0.2,
            heading,
        ], axis=-1)  # fmt: skip
        return place, rotation_exp(tilt)

    return pose


def record(seed, seconds=40.0, swing=1.0, place_noise=0.004, turn_noise=0.002):
    """Stamps, poses in map units and readings of a walk."""
    random = np.random.default_rng(seed)
    pose = walk(random, seconds, swing)
    t = np.arange(-0.1, seconds + 0.1, 1 / IMU_HZ)
    step = 1e-3
    places = {d: pose(t + d * step) for d in (-1, 0, 1)}
    R = places[0][1]
    sensor = {d: p + q @ LEVER for d, (p, q) in places.items()}
    acceleration = (sensor[1] - 2 * sensor[0] + sensor[-1]) / step**2
    force = np.einsum("nji,nj->ni", R, acceleration + [0, 0, 9.81])
    skew = np.swapaxes(R, 1, 2) @ (places[1][1] - places[-1][1]) / (2 * step)
    rate = np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=1)
    noise = np.sqrt(IMU_HZ)
    force = (
        force
        + 0.1 * random.standard_normal(3)
        + FORCE_NOISE * noise * random.standard_normal(force.shape)
    )
    rate = (
        rate
        + 0.01 * random.standard_normal(3)
        + TURN_NOISE * noise * random.standard_normal(rate.shape)
    )
    readings = Readings((t * 1e9).astype(np.int64) + 10**9, force, rate, LEVER)
    frames = np.arange(0, seconds, 1 / CAMERA_HZ)
    place, turn = pose(frames)
    T = np.tile(np.eye(4), (len(frames), 1, 1))
    T[:, :3, :3] = turn @ rotation_exp(turn_noise * random.standard_normal(place.shape))
    T[:, :3, 3] = (place + place_noise * random.standard_normal(place.shape)) / UNIT
    return (frames * 1e9).astype(np.int64) + 10**9, T, readings


def estimate(seed, **world):
    return metres_per_unit(swings(*record(seed, **world)))


def test_a_walk_tells_the_scale_and_its_sigma_holds():
    """Within 3 %, and within one stated sigma in 60 to 76 of 100 walks."""
    found = [estimate(seed) for seed in range(100)]
    assert not any(f.refusal for f in found)
    errors = np.array([f.value / UNIT - 1 for f in found])
    sigmas = np.array([f.sigma for f in found])
    share = np.mean(np.abs(errors) < sigmas)
    print(f"rms {np.sqrt(np.mean(errors**2)):.4f} bias {errors.mean():.4f} within {share:.2f}")
    assert np.quantile(np.abs(errors), 0.95) < 0.03
    assert 0.60 <= share <= 0.76, share


def test_a_camera_that_glides_is_refused():
    refused = estimate(1, swing=0.0)
    assert "glides" in refused.refusal and not np.isfinite(refused.sigma)


def test_few_windows_and_a_silent_sensor_are_refused():
    stamps, T, readings = record(2, seconds=5.0)
    assert "of 10 windows" in metres_per_unit(swings(stamps, T, readings)).refusal
    gap = np.abs(readings.stamps_ns - stamps[15]) > 10**8
    holes = Readings(
        *(v[gap] for v in (readings.stamps_ns, readings.force, readings.turn_rate)), LEVER
    )
    assert len(swings(stamps, T, holes)) == len(swings(stamps, T, readings)) - 1


def test_unrelated_motion_is_no_scale():
    stamps, T, _ = record(3)
    _, _, readings = record(4)
    found = metres_per_unit(swings(stamps, T, readings))
    assert found.refusal or found.sigma > 0.1


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_the_unit_of_the_map_does_not_matter(scale):
    stamps, T, readings = record(5)
    one = metres_per_unit(swings(stamps, T, readings))
    T[:, :3, 3] *= scale
    other = metres_per_unit(swings(stamps, T, readings))
    assert other.value * scale == pytest.approx(one.value)
    assert other.sigma == pytest.approx(one.sigma)
