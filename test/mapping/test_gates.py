"""Frame gate by stamps, parallax gate by images."""

import numpy as np
import pytest
from oracle import drive

from scal3r_ros.config import GateConfig
from scal3r_ros.mapping.frame_gate import FrameGate
from scal3r_ros.mapping.parallax import ParallaxGate, image_motion, thumbnail

SECOND = 1_000_000_000


def kept(config: GateConfig, stamps: list[int]) -> list[int]:
    gate = FrameGate(config)
    return [i for i, stamp in enumerate(stamps) if gate.admit(stamp).keep]


def test_stride_keeps_every_nth_frame():
    assert kept(GateConfig(stride=3), [i * SECOND for i in range(8)]) == [0, 3, 6]


def test_rate_is_limited_in_spite_of_jitter():
    random = np.random.default_rng(0)
    stamps = np.arange(900) * SECOND // 30 + random.integers(-3_000_000, 3_000_000, 900)
    count = len(kept(GateConfig(max_rate=10.0), stamps.tolist()))
    assert 295 <= count <= 301
    slow = [i * SECOND // 4 for i in range(40)]
    assert len(kept(GateConfig(max_rate=10.0), slow)) == 40


def test_stamps_that_repeat_or_go_back_are_named_and_counted():
    gate = FrameGate(GateConfig())
    reasons = [gate.admit(s).reason for s in (10, 10, 9, 11)]
    assert reasons == ["kept", "duplicate_stamp", "backward_stamp", "kept"]
    assert gate.counts == {"kept": 2, "duplicate_stamp": 1, "backward_stamp": 1}


def test_a_gap_starts_a_session_and_its_first_frame_is_kept():
    gate = FrameGate(GateConfig(stride=2, max_gap=2.0))
    decisions = [gate.admit(s * SECOND) for s in (0, 1, 2, 3, 7, 8, 9)]
    assert [d.keep for d in decisions] == [True, False, True, False, True, False, True]
    assert [d.starts_session for d in decisions] == [False] * 4 + [True, False, False]
    assert gate.counts["gap"] == 1
    assert not any(FrameGate(GateConfig(max_gap=0.0)).admit(s).starts_session for s in (0, 10**15))


def test_a_stride_longer_than_the_gap_is_no_gap():
    gate = FrameGate(GateConfig(stride=10, max_gap=0.5))
    assert not any(gate.admit(i * SECOND // 10).starts_session for i in range(60))


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (0, -4), (7, 5), (-11, 2)])
def test_image_motion_measures_a_known_shift(shift):
    random = np.random.default_rng(3)
    coarse = random.uniform(0, 255, (90, 140))
    large = np.kron(coarse, np.ones((3, 3)))
    before = large[40:160, 40:232].astype(np.float32)
    after = large[40 - shift[1] : 160 - shift[1], 40 - shift[0] : 232 - shift[0]]
    moved = image_motion(before, after.astype(np.float32)) * 192
    assert moved == pytest.approx(np.hypot(*shift), abs=0.35)


def test_a_parked_camera_adds_nothing_in_spite_of_noise():
    random = np.random.default_rng(5)
    scene = drive(frames=60, length=50.0, width=384, height=160)
    parked = scene.frame(10).rgb.astype(np.float64)
    gate = ParallaxGate(GateConfig(min_parallax=0.01))
    noisy = [np.clip(parked + random.normal(0, 4, parked.shape), 0, 255) for _ in range(20)]
    assert [gate.admit(image.astype(np.uint8)) for image in noisy] == [True] + [False] * 19
    driving = [gate.admit(scene.frame(i).rgb) for i in range(11, 31, 2)]
    assert sum(driving) >= 8


def test_a_parked_camera_is_looked_at_again_after_the_interval():
    image = drive(frames=5, length=4.0, width=192, height=96).frame(0).rgb
    gate = ParallaxGate(GateConfig(min_parallax=0.05, max_interval=2.0))
    assert [gate.admit(image, s * SECOND) for s in range(6)] == [True, False] * 3


def test_without_texture_only_a_change_of_brightness_counts():
    grey = np.full((120, 200, 3), 128, np.uint8)
    gate = ParallaxGate(GateConfig(min_parallax=0.01))
    assert [gate.admit(grey), gate.admit(grey), gate.admit(grey + 60)] == [True, False, True]
    assert thumbnail(grey).shape == (120, 200)


def test_wholly_different_views_are_motion_and_not_a_chance_match():
    random = np.random.default_rng(7)
    gate = ParallaxGate(GateConfig(min_parallax=0.08))
    for edge in (4, 7, 12):
        coarse = random.integers(0, 255, (20, 126 // edge + 1, 168 // edge + 1, 3))
        views = np.kron(coarse, np.ones((1, edge, edge, 1)))[:, :126, :168].astype(np.uint8)
        assert sum(gate.admit(view) for view in views) >= 19


def test_a_slow_pan_is_thinned_evenly_and_never_starves():
    random = np.random.default_rng(8)
    scene = np.kron(random.integers(0, 255, (32, 160, 3)), np.ones((6, 6, 1))).astype(np.uint8)
    gate = ParallaxGate(GateConfig(min_parallax=0.05))
    kept = [i for i in range(200) if gate.admit(scene[:126, 3 * i : 3 * i + 168])]
    steps = np.diff(kept)
    assert kept[0] == 0
    assert steps.min() >= 2
    assert steps.max() <= 4
