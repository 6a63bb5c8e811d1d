"""The feature tracker: its laws, what it finds in a room that is known exactly, and bad input."""

from dataclasses import replace

import numpy as np
import pytest
from box_room import COUNT, apart, stamp

from scal3r_ros.records import Frame
from scal3r_ros.tracking.features import FeatureTracker
from scal3r_ros.tracking.interface import TrackingLost

MAPPED = 12
"""Images of the first submap."""
LATE = 30
"""Image at which it is known."""


def fed(tracker, frames, submaps=None):
    """Poses by image number; `submaps` are handed over before the image of their key."""
    found = {}
    for frame in frames:
        if submaps and frame.id in submaps:
            tracker.anchor(submaps[frame.id])
        try:
            found[frame.id] = tracker.step(frame).T_block_camera
        except TrackingLost:
            continue
    return found


@pytest.fixture(scope="module")
def first(room, poses):
    return room.submap(range(MAPPED), poses)


def test_follows_the_camera_from_a_submap_that_comes_late(frames, poses, first):
    found = fed(FeatureTracker(), frames[:60], {LATE: first})
    begun = min(found)
    assert begun <= LATE + 10
    assert set(found) == set(range(begun, 60))
    errors = np.array([apart(poses[i], pose) for i, pose in found.items()])
    assert np.median(errors[:, 0]) < 0.02 and errors[:, 0].max() < 0.08  # of walls 2 m away
    assert np.median(errors[:, 1]) < 0.3 and errors[:, 1].max() < 1.5


@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_poses_are_in_the_units_and_the_frame_of_the_submap(room, frames, poses, scale):
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = poses[40][:3, :3], (3.0, -2.0, 1.0)
    submap = room.submap(range(MAPPED), poses, scale, move)
    found = fed(FeatureTracker(), frames[:45], {LATE: submap})
    expected = poses[44].copy()
    expected[:3, 3] *= scale
    shift, turn = apart(move @ expected, found[44])
    assert shift < 0.04 * scale and turn < 0.6


def test_images_without_calibration_take_that_of_the_submap(frames, poses, first):
    bare = [replace(frame, intrinsics=None) for frame in frames[:45]]
    found = fed(FeatureTracker(), bare, {LATE: first})
    assert apart(poses[44], found[44])[0] < 0.04


def test_state_and_restore_continue_bitwise(frames, first):
    """Also while a submap is being replayed."""
    whole = FeatureTracker()
    fed(whole, frames[:LATE])
    whole.anchor(first)
    fed(whole, frames[LATE : LATE + 2])
    other = FeatureTracker()
    other.restore(whole.state())
    mine, theirs = (fed(t, frames[LATE + 2 : LATE + 20]) for t in (whole, other))
    assert mine.keys() == theirs.keys() and len(mine) > 5
    assert all(np.array_equal(mine[i], theirs[i]) for i in mine)
    assert same(whole.state(), other.state())


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_without_update_the_state_stays(frames, first):
    tracker = FeatureTracker()
    fed(tracker, frames[:LATE])
    tracker.anchor(first)
    fed(tracker, frames[LATE : LATE + 12])
    before = tracker.state()
    peek = tracker.step(frames[LATE + 12], update=False)
    assert same(before, tracker.state())
    assert np.array_equal(peek.T_block_camera, tracker.step(frames[LATE + 12]).T_block_camera)


def test_reset_equals_a_new_tracker(frames, first):
    tracker = FeatureTracker()
    fed(tracker, frames[:40], {LATE: first})
    tracker.reset()
    assert same(tracker.state(), FeatureTracker().state())


def test_the_state_of_another_tracker_is_refused():
    with pytest.raises(ValueError, match="mem3r"):
        FeatureTracker().restore({"format": np.array("mem3r 1")})


def test_a_new_submap_takes_over_and_tells_its_correction(room, frames, poses, first):
    tracker = FeatureTracker()
    moved = np.eye(4)
    moved[:3, 3] = 0.1, 0.0, 0.05
    second = room.submap(range(20, 32), poses, move=moved)
    corrections = []
    for frame in frames[:60]:
        if frame.id in (LATE, 45):
            tracker.anchor(first if frame.id == LATE else second)
        try:
            told = tracker.step(frame)
        except TrackingLost:
            continue
        if not np.array_equal(tracker.correction, np.eye(4)):
            corrections.append(apart(moved, tracker.correction)[0])
    assert told.block_id == 2
    assert len(corrections) == 1 and corrections[0] < 0.08
    assert apart(moved @ poses[59], told.T_block_camera)[0] < 0.05


def tracking(frames, first):
    """A tracker that has been telling poses, and the number of the next image."""
    tracker = FeatureTracker()
    fed(tracker, frames[:45], {LATE: first})
    return tracker, 45


def test_a_blank_image_is_lost_and_said(frames, first):
    tracker, i = tracking(frames, first)
    blank = Frame(i, stamp(i), np.full_like(frames[i].rgb, 90), frames[i].intrinsics)
    with pytest.raises(TrackingLost, match="known points"):
        tracker.step(blank)


def test_a_jump_to_another_place_is_lost_and_said(room, frames, poses, first):
    tracker, i = tracking(frames, first)
    away = poses[i].copy()
    away[:3, :3] = away[:3, :3] @ np.diag([-1.0, 1.0, -1.0])
    with pytest.raises(TrackingLost):
        tracker.step(room.frame(i, away))


def test_a_repeated_image_has_the_pose_it_had(frames, first):
    tracker, i = tracking(frames, first)
    told = tracker.step(frames[i]).T_block_camera
    again = Frame(i + 1, stamp(i + 1), frames[i].rgb, frames[i].intrinsics)
    shift, turn = apart(told, tracker.step(again).T_block_camera)
    assert shift < 0.01 and turn < 0.25  # what is left between a key image and one that is none


def test_another_image_size_begins_a_new_stream(frames, first):
    tracker, i = tracking(frames, first)
    small = np.ascontiguousarray(frames[i].rgb[::2, ::2])
    with pytest.raises(TrackingLost, match="image size changed to 160x120"):
        tracker.step(Frame(i, stamp(i), small))


def test_stamps_that_go_back_begin_a_new_stream(frames, first):
    tracker, _ = tracking(frames, first)
    with pytest.raises(TrackingLost, match="stamps went back"):
        tracker.step(frames[3])


def test_found_again_by_a_submap_from_after_the_gap(room, frames, poses, first):
    tracker, _ = tracking(frames, first)
    fed(tracker, [Frame(45, stamp(45), np.full_like(frames[0].rgb, 9), frames[0].intrinsics)])
    later = room.submap(range(47, 55), poses)
    found = fed(tracker, frames[46:COUNT], {60: later})
    assert min(found) >= 60
    assert apart(poses[COUNT - 1], found[COUNT - 1])[0] < 0.05


def test_state_stays_bounded(frames, first):
    """Back and forth through the same images for a long time."""
    tracker, sizes = FeatureTracker(), {}
    order = [*range(COUNT), *range(COUNT - 2, 0, -1)]
    for number in range(1400):
        frame = frames[order[number % len(order)]]
        small = Frame(number, stamp(number), frame.rgb[::4, ::4].copy(), frame.intrinsics)
        with pytest.raises(TrackingLost):
            tracker.step(small)
        if number in (1250, 1399):
            sizes[number] = sum(value.nbytes for value in tracker.state().values())
    assert sizes[1399] < 1.1 * sizes[1250] < 1e7
