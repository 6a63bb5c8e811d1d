"""Published poses: no jump at a hand-over, growing uncertainty, a new start after being lost."""

import numpy as np
import pytest
from box_room import STEP_NS, apart, stamp

from scal3r_ros import rigid
from scal3r_ros.records import Frame
from scal3r_ros.tracking.features import FeatureTracker
from scal3r_ros.tracking.interface import TrackerFrame, TrackingLost
from scal3r_ros.tracking.live_pose import LivePoses


class Scripted:
    """A tracker that says what it is told to: poses by image, and corrections."""

    def __init__(self, poses, corrections=None):
        self._poses, self._corrections = poses, corrections or {}
        self.anchored_ns = stamp(0)
        self.correction = np.eye(4)

    def reset(self):
        self.correction = np.eye(4)

    def leave_map(self):
        self.reset()

    def anchor(self, submap):
        self.anchored_ns = int(submap.stamps_ns[-1])

    def step(self, frame, *, update=True):
        if frame.id not in self._poses:
            raise TrackingLost("scripted")
        self.correction = self._corrections.get(frame.id, np.eye(4))
        return TrackerFrame(self._poses[frame.id], 0, frame.id)


def image(number):
    return Frame(number, stamp(number), np.zeros((4, 4, 3), np.uint8))


def moved(x=0.0, turn=0.0):
    T = np.eye(4)
    T[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    T[0, 3] = x
    return T


def script(jump, at=10, count=60):
    """A camera at constant speed whose map moves by `jump` behind image `at`."""
    path = {i: moved(0.01 * i, 0.002 * i) for i in range(count)}
    told = {i: jump @ pose if i > at else pose for i, pose in path.items()}
    told_poses = LivePoses(Scripted(told, {at + 1: jump}))
    return path, told, [told_poses.step(image(i)) for i in range(count)]


def test_a_hand_over_is_given_in_without_a_step():
    jump = moved(0.05, 0.03)
    path, told, live = script(jump)
    for i in range(1, len(live)):
        own = rigid.inverse(path[i - 1]) @ path[i]
        step = rigid.inverse(live[i - 1].T_map_camera) @ live[i].T_map_camera
        shift, turn = apart(own, step)
        # Limits of giving in, times the length of a step, and what the turn adds to the own motion.
        assert shift < 0.05 * STEP_NS * 1e-9 + 1e-3
        assert turn < np.degrees(0.1 * STEP_NS * 1e-9) + 1e-3
    assert apart(live[-1].T_map_camera, told[len(live) - 1]) == pytest.approx((0, 0), abs=1e-6)


def test_a_large_correction_is_a_jump():
    jump = moved(3.0)
    _, told, live = script(jump)
    assert np.allclose(live[11].T_map_camera, told[11])


def test_a_pose_after_being_lost_owes_nothing_to_those_before():
    jump = moved(0.05)
    poses = {i: np.eye(4) for i in range(5)} | dict.fromkeys(range(7, 10), jump)
    live = LivePoses(Scripted(poses, {7: jump}))
    for i in range(5):
        live.step(image(i))
    for i in (5, 6):
        with pytest.raises(TrackingLost):
            live.step(image(i))
    assert np.allclose(live.step(image(7)).T_map_camera, jump)


def test_covariance_grows_from_the_mapped_image_on():
    live = LivePoses(Scripted({i: np.eye(4) for i in range(100)}))
    sigmas = [np.sqrt(np.diagonal(live.step(image(i)).covariance)) for i in range(100)]
    assert (np.diff(sigmas, axis=0) > 0).all()
    assert (sigmas[0] > 0).all()


def test_steps_of_a_real_hand_over_stay_small(room, poses, frames):
    """A second submap whose map has moved by 6 cm and half a degree; over all images from then."""
    jump = moved(0.06, np.radians(0.5))
    live, told, handed_over = LivePoses(FeatureTracker()), {}, []
    for i in range(70):
        if i in (25, 45):
            mapped = range(12) if i == 25 else range(30, 42)
            live.anchor(room.submap(mapped, poses, move=np.eye(4) if i == 25 else jump))
        try:
            told[i] = live.step(frames[i]).T_map_camera
        except TrackingLost:
            continue
        if not np.array_equal(live.tracker.correction, np.eye(4)):
            handed_over.append(i)
    assert len(handed_over) == 1
    for i in range(handed_over[0], max(told) + 1):
        own = rigid.inverse(poses[i - 1]) @ poses[i]
        shift, turn = apart(own, rigid.inverse(told[i - 1]) @ told[i])
        assert shift < 0.03 and turn < 1.0
