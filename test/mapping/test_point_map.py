"""The map: fused by confidence, owned frames only, moved as submaps, never beyond its budget."""

from dataclasses import replace

import numpy as np
import pytest
from clouds import prediction
from oracle import OracleReconstructor, drive
from scipy.spatial import cKDTree

from scal3r_ros.config import MapConfig
from scal3r_ros.mapping.camera import unproject
from scal3r_ros.mapping.chunking import middle_position
from scal3r_ros.mapping.point_map import PointMap
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.voxels import Voxels
from scal3r_ros.records import Chunk

HERE = Sim3.identity()
AWAY = Sim3.exp(np.array([3.0, -1.0, 0.5, 0.2, 0.4, -0.3, 0.3]))


def plain_fusion(points, colors, weights, size) -> dict[tuple[int, int, int], np.ndarray]:
    """Voxel means one point at a time: (x, y, z, r, g, b, weight) by cell."""
    cells: dict[tuple[int, int, int], np.ndarray] = {}
    for point, color, weight in zip(points, colors, weights):
        cell = tuple(np.floor(point * np.float32(1.0 / size)).astype(int).tolist())
        total = cells.setdefault(cell, np.zeros(7))
        total[:6] += weight * np.concatenate([point, color]).astype(float)
        total[6] += weight
    return {cell: np.r_[total[:6] / total[6], total[6]] for cell, total in cells.items()}


def as_rows(voxels: Voxels) -> np.ndarray:
    columns = (voxels.points, voxels.colors.astype(float), voxels.weights[:, None])
    return np.concatenate(columns, axis=1)


def test_fusion_against_a_plain_loop_in_one_go_and_in_parts():
    random = np.random.default_rng(0)
    points = random.uniform(-2, 2, (3000, 3)).astype(np.float32)
    colors = random.integers(0, 255, (3000, 3)).astype(np.uint8)
    weights = random.uniform(1, 5, 3000).astype(np.float32)
    cells = plain_fusion(points, colors, weights, 0.5)
    expected = np.array([cells[cell] for cell in sorted(cells)])
    whole = Voxels.bin(points.T, colors.T, weights, 0.5)
    parts = Voxels.empty()
    for part in np.array_split(np.arange(3000), 7):
        parts = parts.merge(Voxels.bin(points[part].T, colors[part].T, weights[part], 0.5))
    for found in (whole, parts):
        rows = as_rows(found)
        assert len(rows) == len(expected)
        np.testing.assert_allclose(rows[:, :3], expected[:, :3], atol=1e-5)
        np.testing.assert_allclose(rows[:, 3:6], expected[:, 3:6], atol=0.5)
        np.testing.assert_allclose(rows[:, 6], expected[:, 6], rtol=1e-5)
    assert (np.diff(parts.keys) > 0).all()


def test_coarser_voxels_keep_the_mass():
    random = np.random.default_rng(1)
    points = random.normal(size=(2000, 3)).astype(np.float32)
    weights = random.uniform(1, 5, 2000).astype(np.float32)
    fine = Voxels.bin(points.T, np.zeros((3, 2000)), weights, 0.1)
    coarse = fine.coarsen(0.4)
    direct = Voxels.bin(points.T, np.zeros((3, 2000)), weights, 0.4)
    assert len(coarse) < len(fine)
    assert coarse.weights.sum() == pytest.approx(weights.sum(), rel=1e-5)
    mean = np.average(coarse.points, axis=0, weights=coarse.weights)
    np.testing.assert_allclose(mean, np.average(points, axis=0, weights=weights), atol=1e-4)
    assert abs(len(coarse) - len(direct)) < 0.2 * len(direct)


def test_only_owned_confident_valid_pixels_enter():
    side = prediction(frames=4)
    depth, confidence = side.depth.copy(), side.confidence.copy()
    depth[2, :, :10] = np.nan
    side = replace(side, depth=depth)
    cloud_map = PointMap(MapConfig(voxel_size=1e-3))
    new = cloud_map.integrate(side, [1, 2], HERE)
    expected = 0
    for frame in (1, 2):
        valid = np.isfinite(depth[frame])
        expected += (valid & (confidence[frame] > 0.75 * confidence[frame][valid].mean())).sum()
    assert len(new) == len(cloud_map) == expected
    colors = {tuple(c) for c in side.rgb[[1, 2]].reshape(-1, 3).tolist()}
    assert {tuple(c) for c in new.colors.tolist()} <= colors


def test_points_lie_where_the_pixels_were_unprojected():
    side = prediction(frames=2)
    cloud_map = PointMap(MapConfig(voxel_size=1e-3, confidence_ratio=0.0))
    cloud_map.integrate(side, side.frame_ids, AWAY)
    points = AWAY.apply(unproject(side.depth, side.intrinsics, side.T_chunk_camera).reshape(-1, 3))
    found = cloud_map.export().points
    assert len(found) == len(points)
    order = [np.lexsort(np.round(p, 2).T) for p in (found, points)]
    np.testing.assert_allclose(found[order[0]], points[order[1]], atol=2e-2)
    np.testing.assert_allclose(found.mean(axis=0), points.mean(axis=0), atol=1e-4)


def test_range_limit_is_a_multiple_of_the_frames_median():
    side = prediction(frames=1)
    limited = PointMap(MapConfig(voxel_size=1e-3, confidence_ratio=0.0, max_range=1.2))
    limited.integrate(side, side.frame_ids, HERE)
    limit = 1.2 * np.median(side.depth)
    assert abs(len(limited) - (side.depth <= limit).sum()) < 0.03 * side.depth.size
    assert limited.export().points[:, 2].max() <= 1.05 * limit


def test_a_correction_moves_submaps_and_touches_no_point():
    cloud_map = PointMap(MapConfig(voxel_size=0.5, submap_chunks=2))
    poses = {k: Sim3.exp(np.r_[k, 0, 0, 0, 0, 0.1 * k, 0.0]) for k in range(5)}
    for k, S in poses.items():
        side = prediction(k, first=10 * k, seed=k)
        cloud_map.integrate(side, side.frame_ids, S)
    assert [s.chunks for s in cloud_map.submaps] == [(0, 1), (2, 3), (4,)]
    before = [submap.voxels for submap in cloud_map.submaps]
    clouds = [submap.cloud().points for submap in cloud_map.submaps]
    corrected = {k: AWAY @ S for k, S in poses.items()}
    cloud_map.move(corrected)
    assert all(a is b.voxels for a, b in zip(before, cloud_map.submaps))
    for cloud, submap in zip(clouds, cloud_map.submaps):
        np.testing.assert_allclose(submap.cloud().points, AWAY.apply(cloud), atol=1e-4)


def test_a_new_session_gets_a_submap_of_its_own():
    cloud_map = PointMap(MapConfig(voxel_size=0.5))
    for k, session in enumerate((0, 0, 1)):
        side = prediction(k, first=10 * k)
        cloud_map.integrate(side, side.frame_ids, HERE, session)
    assert [(s.session, s.chunks) for s in cloud_map.submaps] == [(0, (0, 1)), (1, (2,))]


def test_the_byte_budget_holds_and_the_surface_stays():
    config = MapConfig(voxel_size=0.05, max_megabytes=1.0, submap_chunks=1)
    cloud_map, free = PointMap(config), PointMap(replace(config, max_megabytes=500.0))
    for k in range(40):
        side = prediction(k, frames=4, first=4 * k, seed=k)
        S = Sim3.exp(np.r_[0, 0, 3.2 * k, 0, 0, 0, 0])
        for target in (cloud_map, free):
            target.integrate(side, side.frame_ids, S)
        assert cloud_map.nbytes <= 1e6
    assert free.nbytes > 4e6
    levels = [submap.level for submap in cloud_map.submaps]
    assert max(levels) - min(levels) <= 1
    edge = max(s.voxel_size for s in cloud_map.submaps)
    cells = {tuple(c) for c in np.floor(free.export().points / edge).astype(int).tolist()}
    thin = np.floor(cloud_map.export().points / edge).astype(int)
    assert np.mean([tuple(c) in cells for c in thin.tolist()]) > 0.9


def test_the_first_chunk_chooses_the_voxel():
    cloud_map = PointMap(MapConfig(voxel_ratio=0.02))
    side = prediction()
    cloud_map.integrate(side, side.frame_ids, Sim3(3.0, np.eye(3), np.zeros(3)))
    assert cloud_map.voxel_size == pytest.approx(0.02 * 3.0 * np.median(side.depth), rel=0.1)
    assert cloud_map.submaps[0].voxel_size * 3.0 == pytest.approx(cloud_map.voxel_size)


def test_export_is_thinned_to_the_limit_and_repeats_itself():
    cloud_map = PointMap(MapConfig(voxel_size=0.1))
    side = prediction()
    cloud_map.integrate(side, side.frame_ids, HERE)
    thin = cloud_map.export(max_points=500)
    assert 400 <= len(thin) <= 500
    np.testing.assert_array_equal(thin.points, cloud_map.export(max_points=500).points)
    assert len(PointMap(MapConfig()).export()) == 0


def test_a_saved_map_goes_on_alike():
    config = MapConfig(submap_chunks=2)
    first = PointMap(config)
    sides = [prediction(k, first=10 * k, seed=k) for k in range(4)]
    for side in sides[:3]:
        first.integrate(side, side.frame_ids, AWAY)
    twin = PointMap.restore(config, first.state())
    for target in (first, twin):
        target.integrate(sides[3], sides[3].frame_ids, AWAY)
    np.testing.assert_array_equal(first.export().points, twin.export().points)
    np.testing.assert_array_equal(first.export().colors, twin.export().colors)
    assert [s.chunks for s in twin.submaps] == [s.chunks for s in first.submaps]
    assert len(PointMap.restore(config, PointMap(config).state())) == 0


def test_metres_change_the_map_once():
    cloud_map = PointMap(MapConfig(voxel_size=0.5))
    side = prediction()
    cloud_map.integrate(side, side.frame_ids, HERE)
    before = cloud_map.export().points
    cloud_map.transform(Sim3(2.5, np.eye(3), np.zeros(3)))
    np.testing.assert_allclose(cloud_map.export().points, 2.5 * before, rtol=1e-5)
    assert cloud_map.voxel_size == pytest.approx(1.25)


def test_nothing_valid_adds_nothing():
    side = prediction()
    blind = replace(side, depth=np.full_like(side.depth, np.nan))
    cloud_map = PointMap(MapConfig())
    assert len(cloud_map.integrate(blind, blind.frame_ids, HERE)) == 0
    assert len(cloud_map.integrate(side, [], HERE)) == 0
    assert len(cloud_map) == 0


def test_a_known_street_is_mapped_where_it_is():
    city = drive(frames=40, length=33.0, width=96, height=32, wobble=0.0, route="E")
    oracle = OracleReconstructor(city)
    chunk = Chunk(0, 0, tuple(city.frame(i) for i in range(40)))
    side = oracle.reconstruct(chunk)
    T_world_reference = city.T_world_camera[middle_position(len(chunk.frames))]
    unit = Sim3(oracle.units[0], np.eye(3), np.zeros(3))
    cloud_map = PointMap(MapConfig(voxel_size=0.2, confidence_ratio=0.0))
    cloud_map.integrate(side, side.frame_ids, Sim3.from_pose(T_world_reference) @ unit)
    points = cloud_map.export().points
    ground = points[:, 2] < 0.5
    wall = np.abs(np.abs(points[:, 1]) - 8.0) < 0.3
    assert ground.sum() > 1000
    assert np.median(np.abs(points[ground & ~wall, 2])) < 0.02
    facing = (points[:, 2] > 1) & (points[:, 2] < 13) & (np.abs(points[:, 0]) < 30)
    assert np.mean(wall[facing]) > 0.95


def known(*chunks):
    """Ties as a pose graph tells them: these chunks, whatever is asked."""
    return lambda chunk, error, reach: [index for index in chunks if index != chunk]


def wall(index: int):
    """Two views of a wall, ten pixels per voxel of 0.3, whose depth is off by some centimetres."""
    side = prediction(index, frames=2, first=2 * index, seed=index)
    noise = np.random.default_rng(index).normal(0.0, 0.03, side.depth.shape)
    return replace(side, depth=(5.0 + noise).astype(np.float32))


@pytest.mark.parametrize("limit", [500.0, 1.0])
def test_a_place_that_is_seen_again_and_again_does_not_fill_the_map(limit):
    config = MapConfig(voxel_size=0.3, submap_chunks=1, max_megabytes=limit)
    cloud_map, sizes = PointMap(config), []
    for k in range(30):
        S = Sim3.exp(np.random.default_rng(k).normal(0.0, 0.005, 7))
        cloud_map.integrate(wall(k), wall(k).frame_ids, S)
        cloud_map.fuse_repeats(known(*range(30)))
        sizes.append(len(cloud_map))
    assert sizes[-1] < 7 * sizes[0], "of them two are not compared yet, and noise spreads"
    assert sizes[-1] - sizes[-11] < 0.3 * sizes[0], "and there is an end to it"


def test_what_is_fused_keeps_its_weight_and_stays_on_the_surface():
    config = MapConfig(voxel_size=0.3, submap_chunks=1)
    plain, fused = PointMap(config), PointMap(config)
    for k in range(6):
        S = Sim3.exp(np.r_[0.02 * k, 0, 0, 0, 0.005 * k, 0, 0.01 * k])
        for target in (plain, fused):
            target.integrate(wall(k), wall(k).frame_ids, S)
        fused.fuse_repeats(known(*range(6)))
    assert len(fused) < 0.8 * len(plain)
    total = plain.export().confidence.sum()
    assert fused.export().confidence.sum() == pytest.approx(total, rel=1e-4)
    for cloud, other in ((fused, plain), (plain, fused)):
        distances, _ = cKDTree(other.export().points).query(cloud.export().points)
        assert distances.max() < 0.6, "no surface is lost, and none is made"


def test_places_whose_relation_is_not_known_are_kept_apart():
    apart, fused = (PointMap(MapConfig(voxel_size=0.3, submap_chunks=1)) for _ in range(2))
    for k in range(4):
        for target, tied in ((apart, known(2)), (fused, known(0, 1, 2))):
            target.integrate(wall(k), wall(k).frame_ids, HERE)
            target.fuse_repeats(tied)
    sizes = [len(submap.voxels) for submap in apart.submaps]
    assert [submap.anchor for submap in apart.submaps] == [0, 1, 2, 3]
    assert min(sizes) > 0.9 * max(sizes)
    assert len(fused) < 0.8 * len(apart)


def test_a_map_under_comparison_is_saved_as_it_is():
    config = MapConfig(voxel_size=0.3, submap_chunks=1)
    first = PointMap(config)
    for k in range(3):
        first.integrate(wall(k), wall(k).frame_ids, HERE)
    twin = PointMap.restore(config, first.state())
    for target in (first, twin):
        for k in range(3, 6):
            target.integrate(wall(k), wall(k).frame_ids, HERE)
            target.fuse_repeats(known(*range(6)))
    np.testing.assert_array_equal(first.export().points, twin.export().points)
    assert len(first) == len(twin) == sum(len(s.voxels) for s in twin.submaps)
