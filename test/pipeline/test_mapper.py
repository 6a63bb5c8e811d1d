"""The mapper on known worlds: every frame once, corrections together, failures named."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from mapper_runs import config, relative_error, run
from oracle import REALISTIC, OracleReconstructor, Spoil, drive

from scal3r_ros.files import SaveFailed
from scal3r_ros.mapping.chunking import partition
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct.interface import ReconstructionFailed


def test_perfect_chunks_give_the_true_trajectory_with_every_frame_once(street):
    mapper = Mapper(config(), OracleReconstructor(street))
    run(street, mapper)
    poses = mapper.trajectory()
    assert [p.frame_id for p in poses] == list(range(len(street)))
    assert [p.stamp_ns for p in poses] == [street.stamp_ns(i) for i in range(len(street))]
    assert not any(p.provisional for p in poses)
    assert relative_error(street, poses) < 1e-5
    assert mapper.counters["chunks"] == len(partition(len(street), 16, 8))


def test_updates_tell_all_poses_and_points_of_the_final_map(street):
    mapper = Mapper(config(map__submap_chunks=1000), OracleReconstructor(street))
    latest, told = {}, 0
    for update in run(street, mapper):
        latest |= {p.frame_id: p for p in update.poses}
        told += len(update.points)
        assert update.map_revision == 0 and not update.corrected
    for pose in mapper.trajectory():
        np.testing.assert_array_equal(latest[pose.frame_id].T_map_camera, pose.T_map_camera)
        assert not latest[pose.frame_id].provisional
    assert 0 < mapper.points_count <= told


def test_the_newest_frames_are_provisional_until_the_next_chunk(street):
    mapper = Mapper(config(), OracleReconstructor(street))
    updates = [u for i in range(16) for u in mapper.add(street.frame(i))]
    assert [p.frame_id for p in updates[0].poses if p.provisional] == list(range(8, 16))
    updates = [u for i in range(16, 24) for u in mapper.add(street.frame(i))]
    confirmed = {p.frame_id: p.chunk_index for p in updates[0].poses if not p.provisional}
    assert confirmed == {8: 0, 9: 0, 10: 0, 11: 0, 12: 1, 13: 1, 14: 1, 15: 1}


def test_a_loop_closure_reissues_all_that_moved_under_one_revision():
    """A street that leads to a block is no part of the loop around it, and stays."""
    city = drive(frames=400, length=400.0, width=48, height=16, route="EEENWSENWS")
    settings = {"loop.enabled": True, "chunk.size": 20, "chunk.overlap": 10}
    mapper = Mapper(config(**settings), OracleReconstructor(city, REALISTIC))
    updates, told = run(city, mapper), {}
    assert any(u.loops for u in updates), mapper.counters
    for before, after in zip(updates, updates[1:]):
        assert after.map_revision - before.map_revision == int(after.corrected)
    for update in updates:
        if update.corrected:
            assert 50 < min(p.frame_id for p in update.poses) < 100 < len(update.poses)
        told |= {pose.frame_id: pose for pose in update.poses}
    for pose in mapper.trajectory():
        known = told[pose.frame_id]
        np.testing.assert_array_equal(known.T_map_camera, pose.T_map_camera)
        scale = np.abs(pose.covariance).max()
        np.testing.assert_allclose(known.covariance, pose.covariance, rtol=0, atol=1e-8 * scale)
    assert any(kind == "loop" for _, _, kind in mapper.graph().edges)
    drifting = Mapper(config(**settings | {"loop.enabled": False}),
                      OracleReconstructor(city, REALISTIC))  # fmt: skip
    run(city, drifting)
    assert relative_error(city, mapper.trajectory()) < 0.5 * relative_error(
        city, drifting.trajectory()
    )


def test_a_failed_chunk_starts_an_unconnected_part_and_says_so(street):
    mapper = Mapper(config(), OracleReconstructor(street, Spoil(dropped=(2,))))
    updates = run(street, mapper)
    names = [e.name for u in updates for e in u.events]
    assert names == ["chunk_failed", "new_part"]
    assert mapper.counters["chunk_failed"] == mapper.counters["new_part"] == 1
    parts = mapper.graph().parts
    assert parts[:2] == (0, 0) and len(set(parts)) == 2
    unconnected = [p for p in mapper.trajectory() if p.chunk_index > 2]
    assert unconnected and all(p.covariance[0, 0] > 1e3 for p in unconnected)
    frames = [p.frame_id for p in mapper.trajectory()]
    assert frames == sorted(set(frames)) and set(range(60)) - set(frames) == set()


def test_a_gap_starts_a_session_that_shares_no_frame(street):
    mapper = Mapper(config(), OracleReconstructor(street))
    for i in range(20):
        mapper.add(street.frame(i))
    updates = mapper.add(street.frame(40), starts_session=True)
    assert [p.frame_id for u in updates for p in u.poses if not p.provisional][-1] == 19
    for i in range(41, 60):
        mapper.add(street.frame(i))
    mapper.flush()
    by_session = {p.chunk_index: p.frame_id for p in mapper.trajectory()}
    assert len(mapper.trajectory()) == 40 and mapper.graph().parts[-1] != 0, by_session


def test_frames_after_a_flush_continue_the_chain(street):
    mapper = Mapper(config(), OracleReconstructor(street))
    run(street, mapper, range(25))
    run(street, mapper, range(25, 60))
    assert set(mapper.graph().parts) == {0}
    assert relative_error(street, mapper.trajectory()) < 1e-5


def observe_odometry(street, mapper):
    for i in range(len(street)):
        mapper.observe_odometry(street.stamp_ns(i), street.T_world_camera[i])


def test_odometry_makes_the_map_metric_once(street):
    mapper = Mapper(config(scale__source="odometry"), OracleReconstructor(street))
    mapper.set_camera_mount(np.eye(4))
    observe_odometry(street, mapper)
    updates = run(street, mapper)
    assert sum(u.corrected for u in updates) == 1 and mapper.scale.frozen
    assert mapper.counters["scale_frozen"] == 1
    found = np.stack([p.T_map_camera[:3, 3] for p in mapper.trajectory()])
    length = np.linalg.norm(np.diff(found, axis=0), axis=1).sum()
    assert length == pytest.approx(street.path_length(), rel=0.01)


def test_a_unit_of_a_map_in_metres_is_a_metre_in_all_that_leaves(street):
    """Estimate, poses and points of one update belong to one revision."""
    mapper = Mapper(config(scale__source="odometry"), OracleReconstructor(street))
    mapper.set_camera_mount(np.eye(4))
    observe_odometry(street, mapper)
    updates = run(street, mapper)
    plain = run(street, Mapper(config(), OracleReconstructor(street)))
    assert mapper.scale.value == 1.0 and mapper.scale.applied > 1.5
    at = next(i for i, update in enumerate(updates) if update.corrected)
    for update, other in zip(updates, plain, strict=True):
        scale = mapper.scale.applied if update.scale.frozen else 1.0
        assert update.scale.applied == scale
        newest = {p.frame_id: p.T_map_camera[:3, 3] for p in update.poses}
        for pose in other.poses:
            expected = scale * pose.T_map_camera[:3, 3]
            np.testing.assert_allclose(newest[pose.frame_id], expected, atol=1e-6)
        np.testing.assert_allclose(update.points, scale * other.points, rtol=1e-3, atol=1e-3)
    assert len(updates[at].points) and updates[at].scale.frozen


def test_a_map_built_again_is_in_metres_as_the_one_before(street):
    """Its measurements may be gone by then; where the cameras are is still known."""
    before = Mapper(config(scale__source="odometry"), OracleReconstructor(street))
    before.set_camera_mount(np.eye(4))
    observe_odometry(street, before)
    run(street, before)
    again = Mapper(config(chunk__size=12, chunk__overlap=6), OracleReconstructor(street))
    run(street, again)
    revision = again.map_revision
    assert not before.live_map.take_metres_of(again.live_map), "that one knows no metres"
    assert again.live_map.take_metres_of(before.live_map)
    assert again.map_revision == revision + 1 and again.scale.frozen and again.scale.value == 1.0
    for ours, theirs in zip(again.trajectory(), before.trajectory(), strict=True):
        np.testing.assert_allclose(ours.T_map_camera, theirs.T_map_camera, atol=1e-3)


class Split(OracleReconstructor):
    """The images of one chunk show nothing."""

    def reconstruct(self, chunk, contribute=True):
        prediction = super().reconstruct(chunk, contribute)
        if chunk.index == 3:
            depth = np.full_like(prediction.depth, np.nan)
            return replace(prediction, depth=depth, confidence=np.zeros_like(depth))
        return prediction


def test_odometry_bridges_what_the_images_cannot(street):
    alone = Mapper(config(), Split(street))
    events = [e.name for u in run(street, alone) for e in u.events]
    assert "alignment_failed" in events and "new_part" in events
    bridged = Mapper(config(), Split(street))
    bridged.set_camera_mount(np.eye(4))
    observe_odometry(street, bridged)
    run(street, bridged)
    assert set(bridged.graph().parts) == {0}
    assert "odometry" in [kind for _, _, kind in bridged.graph().edges]
    assert relative_error(street, bridged.trajectory()) < 0.01


def test_odometry_says_nothing_while_the_cameras_mount_is_unknown(street):
    """Taken as mounted at the base, a camera half a metre ahead would bend every bridge."""
    mapper = Mapper(config(scale__source="odometry"), Split(street))
    observe_odometry(street, mapper)
    events = [e for u in run(street, mapper) for e in u.events]
    assert [e.name for e in events].count("mount_unknown") == 1
    assert "/tf_static" in next(e.message for e in events if e.name == "mount_unknown")
    assert "odometry" not in [kind for _, _, kind in mapper.graph().edges]
    assert not mapper.scale.known

    T_base_camera = np.eye(4)
    T_base_camera[2, 3] = 0.5
    mapper.set_camera_mount(T_base_camera)
    mapper.reset()
    for i in range(len(street)):
        T_world_base = street.T_world_camera[i] @ np.linalg.inv(T_base_camera)
        mapper.observe_odometry(street.stamp_ns(i), T_world_base)
    events = [e.name for u in run(street, mapper) for e in u.events]
    assert "mount_unknown" not in events, "a reset does not move the camera"
    assert set(mapper.graph().parts) == {0} and mapper.scale.frozen
    found = np.stack([p.T_map_camera[:3, 3] for p in mapper.trajectory()])
    length = np.linalg.norm(np.diff(found, axis=0), axis=1).sum()
    assert length == pytest.approx(street.path_length(), rel=0.02)


def test_an_unconnected_part_begins_where_a_shared_frame_was(street):
    """What the gate refuses is not tied to the map, but looks and lies as the shared frame says;
    its scale alone is a guess."""
    mapper = Mapper(config(alignment__max_residual=1e-12), OracleReconstructor(street))
    run(street, mapper)
    parts = mapper.graph().parts
    assert len(set(parts)) == len(parts) > 3
    found = np.stack([p.T_map_camera for p in mapper.trajectory()])
    truth = street.T_world_camera[[p.frame_id for p in mapper.trajectory()]]
    turns = found[:, :3, :3] @ np.swapaxes(truth[:, :3, :3], 1, 2)
    np.testing.assert_allclose(turns, np.broadcast_to(turns[0], turns.shape), atol=1e-6)


def test_reset_forgets_the_map_and_the_memory(street):
    mapper = Mapper(config(), OracleReconstructor(street))
    run(street, mapper)
    mapper.reset()
    assert mapper.trajectory() == () and mapper.points_count == 0
    assert mapper.reconstructor.version == 0 and not mapper.counters
    run(street, mapper)
    assert relative_error(street, mapper.trajectory()) < 1e-5


def test_all_chunks_failing_gives_an_empty_map_and_no_pose(street):
    class Blind(OracleReconstructor):
        def reconstruct(self, chunk, contribute=True):
            raise ReconstructionFailed("it is dark")

    mapper = Mapper(config(), Blind(street))
    updates = run(street, mapper)
    assert {e.name for u in updates for e in u.events} == {"chunk_failed"}
    assert mapper.trajectory() == () and len(mapper.cloud()) == 0
    assert not any(u.poses for u in updates)


def test_after_a_flush_no_frame_waits_even_if_its_chunk_failed(street):
    class Dark(OracleReconstructor):
        def reconstruct(self, chunk, contribute=True):
            if chunk.index:
                raise ReconstructionFailed("it is dark")
            return super().reconstruct(chunk, contribute)

    mapper = Mapper(config(), Dark(street))
    for i in range(30):
        mapper.add(street.frame(i))
    assert mapper.unmapped == 6, "the new ones: those before them have been tried"
    mapper.flush()
    assert len(mapper.trajectory()) == 16 and mapper.unmapped == 0


def test_a_disk_that_takes_no_record_of_a_chunk_is_named(street, tmp_path):
    records = tmp_path / "records"
    mapper = Mapper(config(loop__enabled=True), OracleReconstructor(street), records)
    shutil.rmtree(records)
    records.write_text("in the way")
    with pytest.raises(SaveFailed, match="cannot write .*records.*Files written before"):
        run(street, mapper)


def test_a_known_distance_ends_at_the_frame_that_is_named(street):
    """The way to frame 30 is 5 m; the rest of the map follows from it."""
    known = {"scale__source": "known_distance", "scale__known_distance": 5.0}
    mapper = Mapper(config(**known, scale__known_frame=30), OracleReconstructor(street))
    run(street, mapper)
    places = {pose.frame_id: pose.T_map_camera[:3, 3] for pose in mapper.trajectory()}
    steps = [np.linalg.norm(places[i + 1] - places[i]) for i in range(30)]
    assert mapper.scale.frozen and sum(steps) == pytest.approx(5.0, rel=0.03)
