"""Saved maps of one world become one; maps of different worlds do not."""

import json
from dataclasses import replace

import numpy as np
import pytest
from walks import (
    NOISY,
    TimedOracle,
    beside,
    config,
    elsewhere,
    errors,
    events,
    joined,
    street,
    walk,
)  # fmt: skip

from scal3r_ros.cli import main
from scal3r_ros.pipeline.localisation import LocalisingMapper
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.pipeline.merge import REPORT, NotJoined, merge
from scal3r_ros.pipeline.progress import Cancelled, Progress


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Three stretches of one way, each mapped by itself beside the others, and a strange street."""
    city = street(60)
    first = city.T_world_camera
    strange = elsewhere(first[:18], city.block, 1)
    whole, ways = joined(city, first, beside(first), beside(first, -0.3), strange)
    stretches = [ways[0][:28], ways[1][14:46], ways[2][32:], ways[3]]
    spoil = replace(NOISY, aliases=((ways[0][8], ways[3][8]), (ways[0][14], ways[3][14])))
    folder, found = tmp_path_factory.mktemp("maps"), []
    for number, frames in enumerate(stretches):
        mapper = Mapper(config(), TimedOracle(whole, replace(spoil, seed=number)))
        walk(mapper, whole, frames)
        found.append(folder / f"map{number}")
        mapper.save(found[-1])
    return whole, ways, spoil, found, stretches


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_three_maps_of_one_world_become_one(maps, tmp_path):
    whole, ways, spoil, found, stretches = maps
    before = [contents(folder) for folder in found[:3]]
    oracle = TimedOracle(whole, spoil)
    done = merge(config(), oracle, [found[0], found[2], found[1]], tmp_path / "out")
    assert [contents(folder) for folder in found[:3]] == before
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert sorted(entry["frames"] for entry in report) == [28, 28, 32]
    taken = [row for entry in report[1:] for row in entry["loops"] if not row["refused"]]
    assert len(taken) >= 4 and all("scale" in row for row in taken)
    assert all(entry.scale for entry in done[1:])
    mapper = Mapper(config(), TimedOracle(whole, spoil))
    mapper.load(tmp_path / "out")
    assert len(mapper.trajectory()) == sum(len(s) for s in stretches[:3])
    assert len(set(mapper.graph().parts)) == 1 and mapper.connected
    poses = {pose.stamp_ns: pose for pose in mapper.trajectory()}
    merged = np.sqrt(np.mean(errors(mapper, whole, poses)[0] ** 2))
    alone = Mapper(config(), TimedOracle(whole, spoil))
    walk(alone, whole, ways[0])
    drive = {pose.stamp_ns: pose for pose in alone.trajectory()}
    assert merged < 1.5 * np.sqrt(np.mean(errors(alone, whole, drive)[0] ** 2)) + 0.02
    updates = walk(mapper, whole, ways[0][28:40])
    assert events(updates, "loop_closed"), "places of a map that was joined are found again"


def test_a_map_of_another_world_is_refused_with_the_reason(maps, tmp_path):
    whole, _, spoil, found, _ = maps
    with pytest.raises(NotJoined, match="map3 could not be joined.*the images differ"):
        merge(config(), TimedOracle(whole, spoil), [found[0], found[3]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merge_that_is_cancelled_writes_nothing(maps, tmp_path):
    whole, _, spoil, found, _ = maps

    class Stops(Progress):
        def at(self, stage, share=-1.0):
            if "joining" in stage:
                self.cancel()
            super().at(stage, share)

    with pytest.raises(Cancelled):
        merge(config(), TimedOracle(whole, spoil), found[:2], tmp_path / "out", progress=Stops())
    assert not (tmp_path / "out").exists()


def test_metres_that_contradict_raise_an_alarm(maps, tmp_path):
    """Both maps say that they are in metres, and one is twice as large."""
    whole, ways, spoil, *_ = maps
    folders = []
    stretches = [ways[0][:22], ways[1][4:26]]
    for number, factor in enumerate((1.0, 2.0)):
        settings = config(scale__source="odometry", scale__max_relative_sigma=0.2)
        mapper = Mapper(settings, TimedOracle(whole, replace(spoil, seed=number)))
        mapper.set_camera_mount(np.eye(4))
        for i in stretches[number]:
            T = whole.T_world_camera[i].copy()
            T[:3, 3] *= factor
            mapper.observe_odometry(whole.stamp_ns(i), T)
        walk(mapper, whole, stretches[number])
        assert mapper.scale.frozen
        folders.append(tmp_path / f"metric{number}")
        mapper.save(folders[-1])
    done = merge(config(), TimedOracle(whole, spoil), folders, tmp_path / "out")
    assert any("both maps are in metres" in alarm for alarm in done[1].alarms)
    assert done[1].scale == pytest.approx(0.5, rel=0.05)


def test_a_loaded_map_goes_on_from_an_unknown_place(maps):
    """The new session hangs in the air until its first loop; then everything moves together."""
    whole, ways, spoil, found, _ = maps
    mapper = LocalisingMapper(config(), TimedOracle(whole, spoil))
    mapper.load(found[0])
    revision = mapper.map_revision
    updates = walk(mapper, whole, ways[1][40:52])
    assert events(updates, "new_part") and not mapper.connected
    updates = walk(mapper, whole, ways[2][52:10:-1])
    assert events(updates, "loop_closed") and mapper.connected
    assert mapper.map_revision > revision
    corrected = [u for u in updates if u.corrected]
    assert corrected and len(corrected[-1].poses) >= 28, "all that was told before moves"


def test_a_strange_session_is_not_joined_by_looks(maps):
    whole, ways, spoil, found, _ = maps
    mapper = LocalisingMapper(config(), TimedOracle(whole, spoil))
    mapper.load(found[0])
    updates = walk(mapper, whole, ways[3])
    assert events(updates, "loop_rejected") and not events(updates, "loop_closed")
    assert not mapper.connected


def test_the_command_says_what_is_missing(maps, tmp_path, capsys):
    pytest.importorskip("pycolmap", reason="pycolmap is absent")
    *_, found, _ = maps
    words = ["merge", str(found[0]), "--out", str(tmp_path / "out"), "--reconstructor", "sfm"]
    assert main(words) == 1
    assert "two maps or more, found 1" in capsys.readouterr().err
    assert main([*words, "--least-loops", "0"]) == 1
    assert "--least-loops must be 1 or more" in capsys.readouterr().err
