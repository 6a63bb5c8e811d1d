"""A camera in a saved map: found, followed, never found where it is not; the map stays as it is."""

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
    told,
    walk,
    world_from_map,
)

from scal3r_ros.io.map_store import read_map
from scal3r_ros.pipeline.localisation import LocalisingMapper
from scal3r_ros.pipeline.localiser import Guess
from scal3r_ros.pipeline.save import MAP_FILE

STRANGERS = 4


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A saved map; and in the same city a second way beside the first, and strange streets whose
    frames look like those of the map and have the same walls."""
    city = street(36)
    first = city.T_world_camera
    strange = [elsewhere(first[:24], city.block, k) for k in range(STRANGERS)]
    whole, ways = joined(city, first, beside(first), *strange)
    pairs = [(ways[0][6 + 8 * j], ways[2 + k][6 + 8 * j]) for k in range(4) for j in range(3)]
    spoil = replace(NOISY, aliases=tuple(pairs))
    folder = tmp_path_factory.mktemp("map")
    mapper = LocalisingMapper(config(), TimedOracle(whole, spoil))
    walk(mapper, whole, ways[0])
    mapper.save(folder)
    return whole, ways, spoil, folder


def localiser(town, **changes):
    whole, _, spoil, folder = town
    mapper = LocalisingMapper(config(**changes), TimedOracle(whole, spoil))
    mapper.load(folder)
    mapper.set_mode("localisation")
    return mapper


def saved(mapper, folder):
    """All that a save holds, but for the name of the folder of its files and when they were
    linked."""
    mapper.save(folder)
    arrays, facts = read_map(folder / MAP_FILE)
    files = facts.pop("files")
    records = sorted((folder / "files" / files / "loop_records").iterdir())
    return {k: v.tobytes() for k, v in arrays.items()}, facts, [r.read_bytes() for r in records]


@pytest.mark.parametrize("memory", ["map", "none"])
def test_another_walk_is_localised_and_the_map_stays_bit_for_bit(town, tmp_path, memory):
    whole, ways, *_ = town
    mapper = localiser(town, localisation__memory=memory)
    mapper.set_mode("mapping")
    before, remembered = saved(mapper, tmp_path / "before"), mapper.reconstructor.state()
    revision = mapper.map_revision
    mapper.set_mode("localisation")
    updates = walk(mapper, whole, ways[1])
    poses = told(updates)
    assert len(poses) >= 0.95 * len(ways[1])
    moved, turned = errors(mapper, whole, poses)
    extent = np.linalg.norm(np.ptp(whole.T_world_camera[ways[0], :3, 3], axis=0))
    assert np.median(moved) < 0.02 * extent and np.median(turned) < 2.0
    assert moved.max() < 0.05 * extent and turned.max() < 4.0
    assert mapper.whereabouts.state == "localised" and mapper.connected
    assert {u.map_revision for u in updates} == {revision} and not any(
        len(u.points) for u in updates
    )
    after = saved(mapper, tmp_path / "after")
    mapper.set_mode("mapping")
    assert after[0] == before[0] and after[1] == before[1] and after[2] == before[2]
    assert mapper.reconstructor.state() == remembered


def test_a_world_that_was_never_mapped_is_never_found(town):
    """Its frames look like those of the map, and its walls stand alike."""
    whole, ways, *_ = town
    mapper = localiser(town)
    tries = 0
    for way in ways[2:]:
        assert not told(walk(mapper, whole, way))
        tries += len(mapper._stream.localiser.tried)
        assert mapper.whereabouts.state == "lost" and not mapper.connected
    assert tries >= STRANGERS, "each was compared with the map"


def test_carried_away_is_lost_and_found_again_within_two_chunks(town):
    whole, ways, *_ = town
    mapper = localiser(town)
    walk(mapper, whole, ways[1][:14])
    found = mapper.whereabouts
    assert found.state == "localised"
    updates = []
    for i in [*ways[2][:12], *ways[1][20:36]]:  # dragged through a strange street meanwhile
        updates += mapper.add(replace(whole.frame(i), id=mapper.next_frame_id))
        if mapper.whereabouts.state == "lost" and found.state == "localised":
            lost = mapper.whereabouts
            assert "lost" in [e.name for e in updates[-1].events] and lost.reason
            assert whole.stamp_ns(ways[2][0]) <= lost.since_ns
        found = mapper.whereabouts
    updates += mapper.flush()
    assert mapper.whereabouts.state == "localised"
    # Chunks of 12 frames every 6: the third is the first to hold frames of the new place only.
    back = next(u.chunk_index for u in updates if events([u], "localised"))
    assert back - updates[0].chunk_index <= 2 + 2
    moved, _ = errors(mapper, whole, told(updates))
    assert moved.max() < 1.0
    assert not set(told(updates)) & {whole.stamp_ns(i) for i in ways[2][6:12]}


def test_covariance_grows_while_the_camera_is_lost(town):
    whole, ways, *_ = town
    mapper = localiser(town)
    walk(mapper, whole, ways[1][:14])
    before = mapper.whereabouts
    mapper.start_session()
    lost = mapper.whereabouts
    assert (before.state, lost.state) == ("localised", "lost") and "gap" in lost.reason
    np.testing.assert_array_equal(lost.T_map_camera, before.T_map_camera)
    spread = [np.trace(lost.covariance_at(lost.told_ns + s * 10**9)) for s in (0, 1, 5, 3600)]
    assert spread == sorted(spread) and spread[2] > 10 * spread[0]
    assert spread[0] == np.trace(before.covariance)


@pytest.mark.parametrize("metres", [0.3, 8.0], ids=["right", "wrong"])
def test_a_guess_is_checked_and_not_believed(town, metres):
    """One fix near a right guess is enough; a wrong one changes nothing."""
    whole, ways, *_ = town
    mapper = localiser(town, localisation__candidates=1, chunk__overlap=1)
    S_map_world = world_from_map(mapper, whole).inverse()
    frames = ways[1][12:24]
    T = whole.T_world_camera[frames[-1]].copy()
    T[:2, 3] += metres / np.sqrt(2.0)
    sigma = 0.5 * float(S_map_world.scale)
    covariance = np.diag([sigma**2] * 3 + [0.1] * 3)
    mapper.start_session()
    mapper.guess(Guess(S_map_world.move_pose(T), covariance))
    updates = walk(mapper, whole, frames, starts=False)
    poses = told(updates)
    assert bool(poses) == (metres < 1)
    if poses:
        assert errors(mapper, whole, poses)[0].max() < 0.5


def test_a_map_without_images_says_why_nothing_is_found(town, tmp_path):
    whole, ways, *_ = town
    mapper = LocalisingMapper(config(loop__enabled=False), TimedOracle(whole))
    walk(mapper, whole, ways[0][:24])
    mapper.set_mode("localisation")
    assert "loop.enabled" in mapper.whereabouts.reason
    assert not told(walk(mapper, whole, ways[1][:12]))
    with pytest.raises(ValueError, match="changes the map"):
        mapper.finalize()


def test_mapping_goes_on_after_localising(town):
    """The frames that were only localised are no part of the map."""
    whole, ways, *_ = town
    mapper = localiser(town)
    walk(mapper, whole, ways[1][:14])
    count = len(mapper.trajectory())
    mapper.set_mode("mapping")
    updates = walk(mapper, whole, ways[1][14:])
    assert len(mapper.trajectory()) == count + len(ways[1][14:])
    assert events(updates, "new_part") and events(updates, "loop_closed")
    assert mapper.connected
    assert errors(mapper, whole, told(updates[-1:]))[0].max() < 0.5


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("localisation.threshold", ""),
        ("localisation.min_likeness", "images differ"),
        ("localisation.min_depth_agreement", "surfaces"),
    ],
)
def test_what_a_place_must_prove_is_an_option(town, option, said):
    whole, ways, *_ = town
    mapper = localiser(town, **{option: 1.0})
    assert not told(walk(mapper, whole, ways[1][:12]))
    assert said in mapper.whereabouts.compared
    assert bool(mapper.whereabouts.compared) == bool(said), "what looks different is not tried"


class SeesTheWay(TimedOracle):
    """Follows the camera everywhere, also to where the map has nothing."""

    def _seen_together(self, chunk):
        return chunk.frames


@pytest.mark.parametrize("patience", [1, 5])
def test_odometry_carries_on_for_as_long_as_one_likes(town, patience):
    whole, ways, spoil, folder = town
    mapper = LocalisingMapper(
        config(localisation__max_unchecked=patience), SeesTheWay(whole, replace(spoil, aliases=()))
    )
    mapper.load(folder)
    mapper.set_mode("localisation")
    walk(mapper, whole, ways[1][:12])
    updates = walk(mapper, whole, ways[2][:12], starts=False)
    last = whole.stamp_ns(ways[2][11])  # of the first chunk without a frame from the map's street
    assert (last in told(updates)) == (patience > 1)
    assert bool(events(updates, "lost")) == (patience == 1)
    if patience == 1:
        assert "1 chunks in a row could not be compared" in mapper.whereabouts.reason
    else:
        assert mapper.whereabouts.checked_ns < mapper.whereabouts.stamp_ns
