"""Saved maps go on as if nothing had happened; damaged ones are refused."""

import errno
import os

import numpy as np
import pytest
from mapper_runs import config, run
from oracle import REALISTIC, OracleReconstructor

from scal3r_ros import files as atomic
from scal3r_ros.files import SaveFailed
from scal3r_ros.io.map_store import BadMapFile, read_map, write_map
from scal3r_ros.mapping.loop_closure import LoopVerdict
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.pipeline import save as saving
from scal3r_ros.pipeline.loops import RECORDS
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.pipeline.save import MAP_FILE


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
    assert len(second._state.loops.records._frame_ids) == len(whole._state.loops.records._frame_ids)


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


def test_a_saved_map_remembers_unfinished_measurements(street, tmp_path):
    """Scale ratios not yet frozen, and loops that wait for a second one."""
    settings = config(scale__source="odometry", scale__max_relative_sigma=1e-6)
    first = Mapper(settings, OracleReconstructor(street, REALISTIC))
    for i in range(len(street)):
        first.observe_odometry(street.stamp_ns(i), street.T_world_camera[i])
    first.set_camera_mount(np.eye(4))
    run(street, first)
    implied = Sim3(1.5, np.eye(3), np.ones(3))
    verdict = LoopVerdict(False, "drift", 0, 3, implied, np.full(3, 0.1))
    first._state.loops._verifier._waiting.append((verdict, implied.inverse()))
    assert first.scale.known and not first.scale.frozen
    first.save(tmp_path)
    second = Mapper(settings, OracleReconstructor(street, REALISTIC))
    second.load(tmp_path)
    assert second.scale == first.scale
    ((found, correction),) = second._state.loops._verifier._waiting
    assert (found.a, found.b, found.reason, found.accepted) == (0, 3, "drift", False)
    np.testing.assert_array_equal(found.S_a_b.matrix(), implied.matrix())
    np.testing.assert_array_equal(correction.matrix(), implied.inverse().matrix())


def test_a_save_that_dies_leaves_the_older_map_with_its_own_records(street, tmp_path, monkeypatch):
    """Records are numbered by chunk in every session; those of another one must not stand in."""
    settings = config(loop__enabled=True)
    older = Mapper(settings, OracleReconstructor(street, REALISTIC))
    run(street, older, range(40))
    older.save(tmp_path)
    expected = {i: older._state.loops.records.frames(i, ids) for i, ids in records_of(older)}

    def dies(path, arrays, facts):
        raise SaveFailed("disk full")

    newer = Mapper(settings, OracleReconstructor(street, REALISTIC))
    for i in range(20, 60):
        newer.add(street.frame(i))
    with monkeypatch.context() as broken:
        broken.setattr(saving, "write_map", dies)
        with pytest.raises(SaveFailed):
            newer.save(tmp_path)
    found = Mapper(settings, OracleReconstructor(street))
    found.load(tmp_path)
    assert dict(records_of(found)).keys() == expected.keys()
    for index, ids in records_of(found):
        for ours, theirs in zip(found._state.loops.records.frames(index, ids), expected[index]):
            assert ours.id == theirs.id
            np.testing.assert_array_equal(ours.rgb, theirs.rgb)
    newer.save(tmp_path)
    assert len(list((tmp_path / "files").iterdir())) == 1, "the older records are gone"


def test_a_map_of_an_older_version_is_read(street, tmp_path):
    """Its records lie beside the map file, and its facts name no other folder."""
    first = Mapper(config(loop__enabled=True), OracleReconstructor(street, REALISTIC))
    run(street, first, range(40))
    first.save(tmp_path)
    arrays, facts = read_map(tmp_path / MAP_FILE)
    (tmp_path / "files" / facts.pop("files") / RECORDS).rename(tmp_path / RECORDS)
    write_map(tmp_path / MAP_FILE, arrays, facts)
    second = Mapper(config(loop__enabled=True), OracleReconstructor(street))
    second.load(tmp_path)
    assert records_of(second) == records_of(first)


def records_of(mapper):
    return list(mapper._state.loops.records._frame_ids.items())


def test_records_are_copied_once_where_they_cannot_be_linked(street, tmp_path, monkeypatch):
    """Maps and temporary files often lie on different disks."""

    def refused(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(atomic.os, "link", refused)
    mapper = Mapper(config(loop__enabled=True), OracleReconstructor(street, REALISTIC))
    run(street, mapper, range(40))
    mapper.save(tmp_path)
    first = {path: path.stat().st_ino for path in tmp_path.rglob("*.npz") if path.name != MAP_FILE}
    mapper.save(tmp_path)
    assert first and first == {path: path.stat().st_ino for path in first}
    found = Mapper(config(loop__enabled=True), OracleReconstructor(street))
    found.load(tmp_path)
    assert records_of(found) == records_of(mapper)


IN_NEW_MAPS_ONLY = (
    "graph.solved", "parallax.kept", "open.descriptors", "scale.stretches", "points.alone",
    "trajectory.seen_by", "trajectory.seen_pose", "trajectory.seen_weight", "trajectory.told",
    "trajectory.T_told", "verdicts.corrections", "scale.swings", "absorbed", "axes",
)  # fmt: skip


def damages(arrays, facts):
    """Damaged variants of a saved map, by name."""
    for name in facts:
        if name not in ("version", "files"):
            if name not in IN_NEW_MAPS_ONLY:
                yield f"without {name}", arrays, {k: v for k, v in facts.items() if k != name}
            yield f"{name} is a word", arrays, facts | {name: "word"}
    for part in ("assembly", "frames", "memory"):
        for name in facts[part]:
            less = {k: v for k, v in facts[part].items() if k != name}
            if name not in ("first_size", *IN_NEW_MAPS_ONLY):
                yield f"without {part} {name}", arrays, facts | {part: less}
    for name in arrays:
        if name not in IN_NEW_MAPS_ONLY:
            yield f"without {name}", {k: v for k, v in arrays.items() if k != name}, facts
    images = np.zeros_like(arrays["frames.images"])
    yield "images", arrays | {"frames.images": images}, facts
    chunks = arrays["trajectory.chunk_index"] + 100
    yield "other chunks", arrays | {"trajectory.chunk_index": chunks}, facts
    places = np.full_like(arrays["graph.node_translation"], np.nan)
    yield "no places", arrays | {"graph.node_translation": places}, facts
    yield "frames to come again", arrays, facts | {"next_frame_id": 5}
    yield "files elsewhere", arrays, facts | {"files": "../../elsewhere"}


def test_whatever_is_wrong_with_a_map_file_the_present_map_goes_on(street, tmp_path):
    settings = config(loop__enabled=True)
    saved = Mapper(settings, OracleReconstructor(street, REALISTIC))
    run(street, saved, range(20))
    for i in range(20, 30):
        saved.add(street.frame(i))
    saved.save(tmp_path)
    variants = list(damages(*read_map(tmp_path / MAP_FILE)))
    assert len(variants) > 50
    present = Mapper(settings, OracleReconstructor(street, REALISTIC))
    untouched = Mapper(settings, OracleReconstructor(street, REALISTIC))
    for mapper in (present, untouched):
        run(street, mapper, range(40))
    loaded = []
    for name, arrays, facts in variants:
        write_map(tmp_path / MAP_FILE, arrays, facts)
        try:
            present.load(tmp_path)
            loaded.append(name)
        except BadMapFile:
            pass
    assert loaded == []
    for mapper in (present, untouched):
        run(street, mapper, range(40, 60))
    for ours, theirs in zip(present.trajectory(), untouched.trajectory(), strict=True):
        np.testing.assert_array_equal(ours.T_map_camera, theirs.T_map_camera)
    assert present.counters == untouched.counters
    assert present.reconstructor.version == untouched.reconstructor.version
    assert records_of(present) == records_of(untouched)


def test_another_reconstructors_memory_leaves_the_present_map(street, tmp_path):
    class Other(OracleReconstructor):
        def restore(self, state):
            raise ValueError("the memory belongs to other weights")

    saved = Mapper(config(), OracleReconstructor(street))
    run(street, saved, range(20))
    saved.save(tmp_path)
    present = Mapper(config(), Other(street))
    run(street, present, range(40))
    with pytest.raises(ValueError, match="other weights"):
        present.load(tmp_path)
    assert len(present.trajectory()) == 40
    run(street, present, range(40, 60))
    assert [pose.frame_id for pose in present.trajectory()] == list(range(60))


@pytest.mark.parametrize("damage", ["cut", "empty", "pipe"])
@pytest.mark.timeout(60)
def test_a_damaged_loop_record_is_left_out_and_named(street, tmp_path, damage):
    first = Mapper(config(loop__enabled=True), OracleReconstructor(street, REALISTIC))
    run(street, first, range(40))
    first.save(tmp_path)
    record = sorted(tmp_path.rglob("chunk_*.npz"))[1]
    data = record.read_bytes()
    record.unlink()
    if damage == "pipe":
        os.mkfifo(record)
    else:
        record.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    second = Mapper(config(loop__enabled=True), OracleReconstructor(street, REALISTIC))
    events = second.load(tmp_path)
    assert [event.name for event in events] == ["loop_record_damaged"]
    assert record.name in events[0].message
    assert len(records_of(second)) == len(records_of(first)) - 1
    run(street, second, range(40, 60))
    assert len(second.trajectory()) == 60


def test_records_are_on_the_disk_before_the_map_that_names_them(street, tmp_path, monkeypatch):
    """As the system was told: every file, then the folders with their names, then the map."""
    synced, real = [], os.fsync

    def noting(handle):
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", noting)
    mapper = Mapper(config(loop__enabled=True), OracleReconstructor(street, REALISTIC))
    run(street, mapper, range(40))
    folder = tmp_path / "map"
    mapper.save(folder)
    records = list(folder.rglob("chunk_*.npz"))
    assert len(records) > 1
    written = [path for path in synced if "chunk_" in path]
    assert len(written) == len(records), "when they were recorded; a save links them"
    (the_map,) = [i for i, path in enumerate(synced) if MAP_FILE in path]
    assert synced.index(str(records[0].parent)) < the_map
    assert synced.index(str(folder / "files")) < the_map
    assert str(folder) in synced[the_map:]


def test_a_save_removes_only_what_a_save_has_made(street, tmp_path):
    photo = tmp_path / "files" / "holiday" / "photo.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"dear")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "letter.txt").write_text("dear")
    (tmp_path / "files" / ("0" * 32)).symlink_to(elsewhere)
    for frames in (20, 40):
        mapper = Mapper(config(loop__enabled=True), OracleReconstructor(street))
        run(street, mapper, range(frames))
        mapper.save(tmp_path)
    assert photo.read_bytes() == b"dear" and (elsewhere / "letter.txt").read_text() == "dear"
    assert len(list((tmp_path / "files").iterdir())) == 3


def test_a_folder_of_other_things_is_not_taken_for_a_map(street, tmp_path):
    mapper = Mapper(config(), OracleReconstructor(street))
    run(street, mapper, range(12))
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_bytes(b"picture")
    with pytest.raises(SaveFailed, match=r"holiday\.jpg and no map"):
        saving.check_target(photos, overwrite=False)
    saving.check_target(photos, overwrite=True)
    mapper.save(photos)
    mapper.save(photos)
    assert (photos / "holiday.jpg").read_bytes() == b"picture"
    saving.check_target(photos, overwrite=False)  # a map is there now
    saving.check_target(tmp_path / "absent", overwrite=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveFailed, match="is a file"):
        saving.check_target(tmp_path / "file", overwrite=False)


def test_a_save_that_was_killed_leaves_a_folder_that_can_be_saved_to(tmp_path):
    (tmp_path / "files" / saving.new_files()).mkdir(parents=True)
    (tmp_path / f".{MAP_FILE}.k3x.part").write_bytes(b"half")
    (tmp_path / saving.EXPORTS).mkdir()
    saving.check_target(tmp_path, overwrite=False)


def test_nothing_is_saved_or_removed_behind_a_link(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    kept = elsewhere / saving.new_files() / "photo.jpg"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"picture")
    folder = tmp_path / "map"
    folder.mkdir()
    (folder / "files").symlink_to(elsewhere)
    with pytest.raises(SaveFailed, match="is a link"):
        saving.check_target(folder, overwrite=True)
    assert kept.read_bytes() == b"picture"
