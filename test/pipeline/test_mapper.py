"""The mapper on known worlds: every frame once, corrections together, saved maps go on."""

from dataclasses import replace

import numpy as np
import pytest
from oracle import REALISTIC, OracleReconstructor, Spoil, drive

from scal3r_ros.config import Config
from scal3r_ros.io.map_store import BadMapFile
from scal3r_ros.mapping.chunking import partition
from scal3r_ros.mapping.loop_closure import LoopVerdict
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline.mapper import MAP_FILE, Mapper
from scal3r_ros.pipeline.reconstructor import OutOfDeviceMemory, ReconstructionFailed

SMALL = {"chunk.size": 16, "chunk.overlap": 8, "loop.enabled": False}


@pytest.fixture(scope="module")
def street():
    whole = drive()
    return replace(whole, T_world_camera=whole.T_world_camera[:60])


def config(**changes):
    return from_dict(Config, SMALL | {k.replace("__", "."): v for k, v in changes.items()})


def run(city, mapper, frames=None):
    updates = []
    for i in range(len(city)) if frames is None else frames:
        updates += mapper.add(city.frame(i))
    return updates + mapper.flush()


def relative_error(city, poses):
    """Largest position error after the best similarity, as a share of the path."""
    true = city.T_world_camera[[p.frame_id for p in poses], :3, 3]
    found = np.stack([p.T_map_camera[:3, 3] for p in poses])
    x, y = found - found.mean(axis=0), true - true.mean(axis=0)
    u, s, vt = np.linalg.svd(y.T @ x)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    moved = (s * np.diag(flip)).sum() / (x**2).sum() * x @ (u @ flip @ vt).T
    return np.linalg.norm(moved - y, axis=1).max() / city.path_length()


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


@pytest.mark.slow
def test_a_loop_closure_reissues_everything_under_one_revision():
    whole = drive(frames=1500)
    city = replace(whole, T_world_camera=whole.T_world_camera[:500])
    settings = {"loop.enabled": True, "chunk.size": 30, "chunk.overlap": 15, "loop.threshold": 0.9}
    mapper = Mapper(config(**settings), OracleReconstructor(city, REALISTIC))
    updates = run(city, mapper)
    closing = [u for u in updates if u.loops]
    assert closing, mapper.counters
    for before, after in zip(updates, updates[1:]):
        assert after.map_revision - before.map_revision == int(after.corrected)
        if after.corrected:
            assert len(after.poses) == 1 + max(p.frame_id for p in after.poses)
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


@pytest.mark.parametrize("stop", [5, 31])
def test_a_saved_map_goes_on_as_if_never_interrupted(street, tmp_path, stop):
    settings = config(loop__enabled=True)
    whole = Mapper(settings, OracleReconstructor(street, REALISTIC), tmp_path / "a")
    run(street, whole)
    first = Mapper(settings, OracleReconstructor(street, REALISTIC), tmp_path / "b")
    for i in range(stop):
        first.add(street.frame(i))
    first.save(tmp_path / "saved")
    second = Mapper(settings, OracleReconstructor(street, REALISTIC), tmp_path / "c")
    second.load(tmp_path / "saved")
    assert second.next_frame_id == stop and second.last_stamp_ns == street.stamp_ns(stop - 1)
    run(street, second, range(stop, 60))
    for ours, theirs in zip(second.trajectory(), whole.trajectory(), strict=True):
        np.testing.assert_array_equal(ours.T_map_camera, theirs.T_map_camera)
        np.testing.assert_array_equal(ours.covariance, theirs.covariance)
    for name in ("points", "colors", "confidence"):
        np.testing.assert_array_equal(getattr(second.cloud(), name), getattr(whole.cloud(), name))
    assert second.counters == whole.counters
    assert second.reconstructor.version == whole.reconstructor.version
    assert len(second._loops.records._frame_ids) == len(whole._loops.records._frame_ids)


def test_a_damaged_map_file_is_refused_and_nothing_changes(street, tmp_path):
    mapper = Mapper(config(), OracleReconstructor(street))
    run(street, mapper, range(20))
    before = mapper.trajectory()
    mapper.save(tmp_path)
    data = (tmp_path / MAP_FILE).read_bytes()
    (tmp_path / MAP_FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(BadMapFile, match="damaged"):
        mapper.load(tmp_path)
    assert len(mapper.trajectory()) == len(before)


class Cramped(OracleReconstructor):
    """A device that holds at most `room` frames."""

    room = 12

    def reconstruct_round(self, chunks):
        assert len(chunks) <= self.round_size
        if max(len(chunk.frames) for chunk in chunks) > self.room:
            raise OutOfDeviceMemory(f"{len(chunks[0].frames)} frames do not fit")
        return super().reconstruct_round(chunks)


@pytest.mark.parametrize("round_size", [1, 2, 3, 1000])
def test_a_chunk_too_large_for_the_device_is_shortened_and_no_frame_lost(street, round_size):
    reconstructor = Cramped(street)
    reconstructor.round_size = round_size
    mapper = Mapper(config(), reconstructor)
    updates = run(street, mapper)
    events = [e for u in updates for e in u.events]
    assert [e.name for e in events] == ["chunk_shrunk"]
    assert [p.frame_id for p in mapper.trajectory()] == list(range(60))
    assert set(mapper.graph().parts) == {0}
    assert relative_error(street, mapper.trajectory()) < 1e-5


def test_a_device_too_small_for_any_chunk_says_so(street):
    reconstructor = Cramped(street)
    reconstructor.room = 8
    with pytest.raises(OutOfDeviceMemory):
        run(street, Mapper(config(), reconstructor))


class Rounds(OracleReconstructor):
    """Takes several chunks at once and remembers how many."""

    round_size = 3

    def __init__(self, city):
        super().__init__(city)
        self.sizes = []

    def reconstruct_round(self, chunks):
        self.sizes.append(len(chunks))
        return super().reconstruct_round(chunks)


def test_rounds_of_several_chunks_give_the_same_map(street):
    reconstructor = Rounds(street)
    mapper = Mapper(config(), reconstructor)
    run(street, mapper)
    assert reconstructor.sizes == [3, 3, 1]
    single = Mapper(config(), OracleReconstructor(street))
    run(street, single)
    for ours, theirs in zip(mapper.trajectory(), single.trajectory(), strict=True):
        np.testing.assert_array_equal(ours.T_map_camera, theirs.T_map_camera)


class Finalizing(OracleReconstructor):
    """Streams with noise; knows the truth at the end."""

    def __init__(self, city):
        super().__init__(city, REALISTIC)
        self.seen = []

    def reconstruct(self, chunk, contribute=True):
        self.seen.append(chunk)
        return super().reconstruct(chunk, contribute)

    def finalize(self):
        better = OracleReconstructor(self.city)
        return [better.reconstruct(chunk) for chunk in self.seen]


def test_finalize_maps_everything_again_under_the_next_revision(street):
    mapper = Mapper(config(), Finalizing(street))
    run(street, mapper)
    before = relative_error(street, mapper.trajectory())
    updates = mapper.finalize()
    assert updates[-1].corrected and updates[-1].map_revision == mapper.map_revision == 1
    assert len(updates[-1].poses) == 60
    assert relative_error(street, mapper.trajectory()) < 1e-5 < before


def test_odometry_makes_the_map_metric_once(street):
    mapper = Mapper(config(scale__source="odometry"), OracleReconstructor(street))
    for i in range(len(street)):
        mapper.observe_odometry(street.stamp_ns(i), street.T_world_camera[i])
    updates = run(street, mapper)
    assert sum(u.corrected for u in updates) == 1 and mapper.scale.frozen
    found = np.stack([p.T_map_camera[:3, 3] for p in mapper.trajectory()])
    length = np.linalg.norm(np.diff(found, axis=0), axis=1).sum()
    assert length == pytest.approx(street.path_length(), rel=0.01)


def test_odometry_bridges_what_the_images_cannot(street):
    class Split(OracleReconstructor):
        def reconstruct(self, chunk, contribute=True):
            prediction = super().reconstruct(chunk, contribute)
            if chunk.index == 3:
                depth = np.full_like(prediction.depth, np.nan)
                return replace(prediction, depth=depth, confidence=np.zeros_like(depth))
            return prediction

    alone = Mapper(config(), Split(street))
    events = [e.name for u in run(street, alone) for e in u.events]
    assert "alignment_failed" in events and "new_part" in events
    bridged = Mapper(config(), Split(street))
    for i in range(len(street)):
        bridged.observe_odometry(street.stamp_ns(i), street.T_world_camera[i])
    run(street, bridged)
    assert set(bridged.graph().parts) == {0}
    assert "odometry" in [kind for _, _, kind in bridged.graph().edges]
    assert relative_error(street, bridged.trajectory()) < 0.01


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


def test_a_saved_map_remembers_unfinished_measurements(street, tmp_path):
    """Scale ratios not yet frozen, and loops that wait for a second one."""
    settings = config(scale__source="odometry", scale__max_relative_sigma=1e-6)
    first = Mapper(settings, OracleReconstructor(street, REALISTIC))
    for i in range(len(street)):
        first.observe_odometry(street.stamp_ns(i), street.T_world_camera[i])
    run(street, first)
    implied = Sim3(1.5, np.eye(3), np.ones(3))
    verdict = LoopVerdict(False, "drift", 0, 3, implied, np.full(3, 0.1))
    first._loops._verifier._waiting.append((verdict, implied.inverse()))
    assert first.scale.known and not first.scale.frozen
    first.save(tmp_path)
    second = Mapper(settings, OracleReconstructor(street, REALISTIC))
    second.load(tmp_path)
    assert second.scale == first.scale
    ((found, correction),) = second._loops._verifier._waiting
    assert (found.a, found.b, found.reason, found.accepted) == (0, 3, "drift", False)
    np.testing.assert_array_equal(found.S_a_b.matrix(), implied.matrix())
    np.testing.assert_array_equal(correction.matrix(), implied.inverse().matrix())
