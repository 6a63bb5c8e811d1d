"""The feature tracker: its laws, what it finds in a room that is known exactly, and bad input."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from box_room import apart, stamp

from scal3r_ros.records import Frame
from scal3r_ros.tracking.corners import Observations
from scal3r_ros.tracking.features import FeatureTracker
from scal3r_ros.tracking.history import History
from scal3r_ros.tracking.interface import TrackingLost
from scal3r_ros.tracking.known_corners import KnownCorners
from scal3r_ros.tracking.told_path import ToldPath
from scal3r_ros.tracking.window import KeyImage, Window

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
    assert np.median(errors[:, 0]) < 0.02 and errors[:, 0].max() < 0.03  # of walls 2 m away
    assert np.median(errors[:, 1]) < 0.3 and errors[:, 1].max() < 0.6
    # A guess from two poses doubles what their rotations lack of being some.
    turns = np.stack(list(found.values()))[:, :3, :3]
    rest = turns @ turns.transpose(0, 2, 1) - np.eye(3)
    assert np.abs(rest).max() < 1e-12


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
    assert told.block_id == 1
    assert len(corrections) == 1 and corrections[0] < 0.03
    assert apart(moved @ poses[59], told.T_block_camera)[0] < 0.05


def tracking(frames, first):
    """A tracker that has been telling poses, and the number of the next image."""
    tracker = FeatureTracker()
    fed(tracker, frames[:45], {LATE: first})
    return tracker, 45


def shown(tracker, i, rgb, frames):
    return tracker.step(Frame(i, stamp(i), rgb, frames[i].intrinsics)).T_block_camera


def test_a_blank_image_is_lost_and_the_view_behind_it_known_again(frames, poses, first):
    tracker, i = tracking(frames, first)
    with pytest.raises(TrackingLost, match="known points"):
        shown(tracker, i, np.full_like(frames[i].rgb, 90), frames)
    found = fed(tracker, frames[i + 1 : i + 6])
    assert set(found) == set(range(i + 1, i + 6))
    assert all(apart(poses[n], pose)[0] < 0.06 for n, pose in found.items())


def test_a_blurred_image_has_its_pose_or_none(frames, poses, first):
    tracker, i = tracking(frames, first)
    for n in (i, i + 1):
        try:
            blurred = cv2.GaussianBlur(frames[n].rgb, (0, 0), 4.0)
            assert apart(poses[n], shown(tracker, n, blurred, frames))[0] < 0.1
        except TrackingLost as lost:
            assert "known points" in str(lost)
    assert apart(poses[i + 3], fed(tracker, frames[i + 2 : i + 4])[i + 3])[0] < 0.06


def test_a_jump_to_another_place_is_lost_until_the_camera_is_back(room, frames, poses, first):
    tracker, i = tracking(frames, first)
    away = poses[i].copy()
    away[:3, :3] = away[:3, :3] @ np.diag([-1.0, 1.0, -1.0])
    with pytest.raises(TrackingLost):
        tracker.step(room.frame(i, away))
    assert apart(poses[i - 1], shown(tracker, i + 1, frames[i - 1].rgb, frames))[0] < 0.06


def test_the_first_image_behind_a_gap_has_its_pose_or_none(frames, poses, first):
    tracker, i = tracking(frames, first)
    for frame in frames[i + 12 : i + 16]:  # 0.8 s are missing
        try:
            assert apart(poses[frame.id], tracker.step(frame).T_block_camera)[0] < 0.1
        except TrackingLost as lost:
            assert "known points" in str(lost)


def test_a_repeated_image_has_the_pose_it_had(frames, first):
    tracker, i = tracking(frames, first)
    told = tracker.step(frames[i]).T_block_camera
    for n in range(i + 1, i + 4):
        assert np.array_equal(told, shown(tracker, n, frames[i].rgb, frames))


def test_another_image_size_begins_a_new_stream(frames, first):
    tracker, i = tracking(frames, first)
    small = np.ascontiguousarray(frames[i].rgb[::2, ::2])
    with pytest.raises(TrackingLost, match="image size changed to 160x120"):
        tracker.step(Frame(i, stamp(i), small))


def test_stamps_that_go_back_begin_a_new_stream(frames, first):
    tracker, _ = tracking(frames, first)
    with pytest.raises(TrackingLost, match="stamps went back"):
        tracker.step(frames[3])


def test_found_again_by_a_submap_from_behind_a_jump(room, frames, poses, first):
    """Into a part of the room that was never seen: only a chunk from there helps."""
    tracker, _ = tracking(frames, first)
    around = poses.copy()
    around[:, :3, :3] = poses[:, :3, :3] @ np.diag([-1.0, 1.0, -1.0])
    away = [room.frame(i, around[i]) for i in range(46, 66)]
    found = fed(tracker, away, {60: room.submap(range(47, 55), around)})
    assert min(found) >= 60
    assert apart(around[65], found[65])[0] < 0.05


def test_what_is_remembered_stays_bounded_over_10_000_images():
    """Of every part that grows with time; corners are counted in `_COUNT`."""
    random = np.random.default_rng(0)
    parts = History(), ToldPath(), KnownCorners()
    history, path, known = parts
    window = Window([KeyImage(np.eye(4), np.arange(9), np.zeros((9, 2)), True)], 200.0)
    sizes = {}
    for n in range(10_000):
        ids, pixels = np.arange(n, n + 9), random.random((9, 2))
        history.append(Observations(n, ids, pixels.astype(np.float32)))
        path.add(n, np.eye(4))
        known.remember(ids, random.random((9, 3)), np.zeros((9, 32), np.uint8))
        window.add(KeyImage(np.eye(4), ids, pixels, False))
        if n in (4_000, 9_999):
            states = [part.state() for part in (*parts, window)]
            sizes[n] = [sum(value.nbytes for value in state.values()) for state in states]
    assert sizes[9_999] == sizes[4_000]
    assert history.at(9_999) is not None and path.at(0) is None and known.places(ids)[0].size == 9


def test_a_submap_of_another_scale_and_place_moves_what_is_told(room, frames, poses, first):
    """The map was rescaled and turned by a correction: the next pose is in the new one."""
    tracker, i = tracking(frames, first)
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = poses[20][:3, :3], (1.0, 0.5, -2.0)
    tracker.anchor(room.submap(range(30, 42), poses, 1.3, move))
    expected = poses[i].copy()
    expected[:3, 3] *= 1.3
    shift, turn = apart(move @ expected, tracker.step(frames[i]).T_block_camera)
    assert shift < 0.08 and turn < 1.0
    assert tracker.anchored_ns == stamp(41)


def test_a_submap_that_contradicts_what_was_seen_is_begun_at(room, frames, poses, first):
    """Its images are said to lie on another path: the chunk counts, by a new start at it."""
    tracker, i = tracking(frames, first)
    strange = room.submap(range(30, 42), poses)
    strange.T_map_camera[:, :3, 3] *= 8.0
    tracker.anchor(strange)
    told = tracker.step(frames[i])
    assert told.block_id == 2 and tracker.anchored_ns == stamp(41)
    assert apart(strange.T_map_camera[-1], told.T_block_camera)[0] < 1.0
