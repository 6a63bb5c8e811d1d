"""A recurrent network tied to the map: its poses in the map's coordinates, its laws."""

import numpy as np
import pytest
from box_room import apart, stamp

from scal3r_ros.records import Frame
from scal3r_ros.tracking.interface import Submap, TrackerFrame, TrackingLost
from scal3r_ros.tracking.recurrent_live import RecurrentLiveTracker

SCALE, COUNT = 0.3, 40
"""Network units per metre."""


class Network:
    """A network that is exactly right: poses relative to the first image of a block, in its unit.
    The real one has laws of its own in `test_recurrent`."""

    def __init__(self, poses):
        self._poses = poses
        self.reset()

    def reset(self):
        self._first = None

    def _pose(self, frame):
        if self._first is None:
            self._first = frame.id
        local = np.linalg.inv(self._poses[self._first]) @ self._poses[frame.id]
        local[:3, 3] *= SCALE
        return TrackerFrame(local, 0, frame.id)

    def step(self, frame, *, update=True):
        return self._pose(frame)

    def turn_over(self, frame):
        last = self._pose(frame)
        self.reset()
        return last, self._pose(frame)

    def state(self):
        return {"first": np.array(-1 if self._first is None else self._first)}

    def restore(self, state):
        first = int(state["first"])
        self._first = None if first < 0 else first


@pytest.fixture
def images():
    rgb = np.zeros((24, 32, 3), np.uint8)
    return [Frame(i, stamp(i), rgb) for i in range(COUNT)]


def mapped(numbers, poses, move):
    placed = move @ poses[list(numbers)]
    depth = np.full((len(placed), 6, 8), 2.0, np.float32)
    stamps = np.array([stamp(n) for n in numbers], np.int64)
    return Submap(
        stamps, placed, depth, np.ones_like(depth), np.tile(np.eye(3), (len(placed), 1, 1))
    )


@pytest.mark.parametrize("block", [7, 100])
def test_poses_are_in_the_map_also_across_blocks(images, poses, block):
    tracker = RecurrentLiveTracker(Network(poses), block)
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = poses[30][:3, :3], (2.0, 0.0, 1.0)
    for frame in images:
        if frame.id == 15:
            tracker.anchor(mapped(range(3, 12), poses, move))
        if frame.id < 15:
            with pytest.raises(TrackingLost):
                tracker.step(frame)
            continue
        shift, turn = apart(move @ poses[frame.id], tracker.step(frame).T_block_camera)
        assert shift < 1e-6 and turn < 1e-4
    assert tracker.anchored_ns == stamp(11)


def test_restore_continues_and_peeking_changes_nothing(images, poses):
    tracker, other = (RecurrentLiveTracker(Network(poses), 9) for _ in range(2))
    for frame in images[:20]:
        if frame.id == 15:
            tracker.anchor(mapped(range(3, 12), poses, np.eye(4)))
        try:
            tracker.step(frame)
        except TrackingLost:
            continue
    other.restore(tracker.state())
    for frame in images[20:]:
        peek = tracker.step(frame, update=False).T_block_camera
        told = tracker.step(frame).T_block_camera
        assert np.array_equal(peek, told)
        assert np.array_equal(told, other.step(frame).T_block_camera)


def test_a_correction_of_the_map_is_told(images, poses):
    tracker = RecurrentLiveTracker(Network(poses))
    moved = np.eye(4)
    moved[:3, 3] = 0.2, 0.0, 0.0
    for frame in images[:30]:
        if frame.id in (15, 25):
            tracker.anchor(mapped(range(3, 12), poses, np.eye(4) if frame.id == 15 else moved))
        try:
            tracker.step(frame)
        except TrackingLost:
            continue
        if frame.id == 25:
            assert apart(tracker.correction, moved) == pytest.approx((0, 0), abs=1e-6)
    with pytest.raises(TrackingLost, match="stamps went back"):
        tracker.step(images[3])
