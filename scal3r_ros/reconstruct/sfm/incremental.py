"""One chunk through pycolmap's incremental mapper, and the judgement of what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.reconstruct.sfm.features import Features

MIN_OBSERVATIONS = 30
"""Fewer triangulated features do not fix a camera well enough to publish its pose."""
MIN_SHARED = 20
"""Frames that see fewer common points are not joined firmly."""
_START_ANGLES = (8.0, 4.0, 2.0)
"""Angles (degrees) between the first two frames that are tried in turn: a wide one starts well, but
a car that drives straight ahead offers only narrow ones."""
_ENOUGH = 0.9
"""Share of the frames beyond which no other start is tried."""
_MIN_ANGLE = np.radians(1.0)


@dataclass(frozen=True)
class Observation:
    """A feature of one frame with the depth that was found for it."""

    features: np.ndarray
    """(N,) indices into the frame's features."""
    depth: np.ndarray
    """(N,) z-depth, model units."""
    confidence: np.ndarray
    """(N,) inverse of the relative standard deviation of the depth."""
    points: np.ndarray
    """(N,) ids of the model's points, shared between frames."""


@dataclass(frozen=True)
class Model:
    """The frames that were registered well."""

    positions: tuple[int, ...]
    """Positions in the chunk, increasing."""
    T_model_camera: np.ndarray
    """(S, 4, 4) float64."""
    observations: tuple[Observation, ...]
    camera: Any
    """The `pycolmap.Camera` after refinement."""


def build(
    features: Sequence[Features],
    geometries: Mapping[tuple[int, int], Any],
    camera: Any,
    refine_camera: bool,
    max_error: float,
    seed: int,
) -> Model:
    """Incremental mapping of the frames by their verified pairs; raises `ReconstructionFailed`.

    `geometries` maps positions (i, j) to two-view geometries. Single threaded and seeded, so the
    same input gives the same bits.
    """
    if not geometries:
        raise ReconstructionFailed("no two frames see the same features")
    best: Model | None = None
    for angle in _START_ANGLES:
        try:
            model = _attempt(
                features, geometries, camera, _options(refine_camera, max_error, seed, angle)
            )
        except ReconstructionFailed as failure:
            reason = failure
            continue
        if best is None or len(model.positions) > len(best.positions):
            best = model
        if len(best.positions) >= _ENOUGH * len(features):
            break
    if best is None:
        raise reason
    return best


def _attempt(
    features: Sequence[Features],
    geometries: Mapping[tuple[int, int], Any],
    camera: Any,
    options: Any,
) -> Model:
    import pycolmap

    database, image_ids = _fill_database(features, geometries, camera)
    manager = pycolmap.ReconstructionManager()
    try:
        pycolmap.IncrementalPipeline(options, database, manager).run()
    finally:
        database.close()
    if manager.size() == 0:
        raise ReconstructionFailed("no pair of frames to start from: too few matches or no motion")
    found = max((manager.get(i) for i in range(manager.size())), key=lambda m: m.num_reg_images())
    return _judge(found, image_ids, options.mapper.filter_max_reproj_error)


def _fill_database(features, geometries, camera) -> tuple[Any, list[int]]:
    import pycolmap

    database = pycolmap.Database.open(":memory:")
    camera = pycolmap.Camera(camera.todict())
    camera.camera_id = database.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera.sensor_id)
    rig.rig_id = database.write_rig(rig)
    image_ids = []
    for position, item in enumerate(features):
        image = pycolmap.Image(name=f"{position:06d}", camera_id=camera.camera_id)
        image.image_id = database.write_image(image)
        frame = pycolmap.Frame()
        frame.rig_id = rig.rig_id
        frame.add_data_id(image.data_id)
        database.write_frame(frame)
        database.write_keypoints(image.image_id, item.pixels)
        image_ids.append(image.image_id)
    for (first, second), geometry in sorted(geometries.items(), key=lambda item: item[0]):
        database.write_two_view_geometry(image_ids[first], image_ids[second], geometry)
    return database, image_ids


def _options(refine_camera: bool, max_error: float, seed: int, start_angle: float) -> Any:
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    options.random_seed = seed
    # A first pair that does not grow is given up for another; the largest model counts.
    options.multiple_models = True
    options.max_num_models = 5
    options.extract_colors = False
    options.min_model_size = 4
    options.ba_refine_focal_length = refine_camera
    options.ba_refine_extra_params = refine_camera
    # A car drives along its optical axis and a chunk is short: the defaults refuse such pairs.
    options.mapper.init_max_forward_motion = 1.0
    options.mapper.init_min_tri_angle = start_angle
    options.mapper.init_min_num_inliers = 60
    options.mapper.filter_max_reproj_error = max_error
    options.mapper.num_threads = 1
    options.mapper.random_seed = seed
    options.triangulation.random_seed = seed
    return options


def _judge(found: Any, image_ids: list[int], max_error: float) -> Model:
    """Keep the frames that many well-triangulated points hold and that are firmly joined."""
    errors = found.compute_mean_reprojection_error()
    if not errors < max_error / 2:
        raise ReconstructionFailed(f"mean reprojection error of {errors:.1f} px")
    angles = _track_angles(found)
    observed = {}
    for position, image_id in enumerate(image_ids):
        if not found.exists_image(image_id):
            continue
        image = found.image(image_id)
        if image.has_pose:
            observation = _observe(found, image, angles)
            if len(observation.points) >= MIN_OBSERVATIONS:
                observed[position] = observation
    positions = _largest_group(observed)
    if len(positions) < 2:
        raise ReconstructionFailed("fewer than two frames are held by enough common points")
    poses = [_camera_pose(found.image(image_ids[p])) for p in positions]
    camera = next(iter(found.cameras.values()))
    return Model(tuple(positions), np.stack(poses), tuple(observed[p] for p in positions), camera)


def _track_angles(found: Any) -> dict[int, float]:
    """For every point the widest angle (rad) under which consecutive observers see it."""
    centres = {i: found.image(i).projection_center() for i in found.reg_image_ids()}
    angles = {}
    for point_id, point in found.points3D.items():
        seen = sorted({element.image_id for element in point.track.elements})
        rays = np.stack([centres[i] for i in seen]) - point.xyz
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        cosine = (rays @ rays.T).min()
        angles[point_id] = float(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return angles


def _observe(found: Any, image: Any, angles: Mapping[int, float]) -> Observation:
    camera = found.camera(image.camera_id)
    T_camera_model = image.cam_from_world()
    rows = []
    for index, point2d in enumerate(image.points2D):
        if not point2d.has_point3D() or angles[point2d.point3D_id] < _MIN_ANGLE:
            continue
        point = found.point3D(point2d.point3D_id)
        depth = float((T_camera_model * point.xyz)[2])
        error = max(point.error, 0.3) / camera.mean_focal_length()
        certainty = angles[point2d.point3D_id] * np.sqrt(point.track.length()) / error
        if depth > 0:
            rows.append((index, depth, certainty, point2d.point3D_id))
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Observation(table[:, 0].astype(int), table[:, 1], table[:, 2], table[:, 3].astype(int))


def _largest_group(observed: Mapping[int, Observation]) -> list[int]:
    """The most frames that are joined, directly or through others, by MIN_SHARED common points."""
    waiting = sorted(observed)
    best: list[int] = []
    while waiting:
        group, border = [], [waiting.pop(0)]
        while border:
            group.append(border.pop())
            points = observed[group[-1]].points
            near = [p for p in waiting if _shared(points, observed[p].points) >= MIN_SHARED]
            border += near
            waiting = [p for p in waiting if p not in near]
        best = max(best, sorted(group), key=len)
    return best


def _shared(first: np.ndarray, second: np.ndarray) -> int:
    return len(np.intersect1d(first, second, assume_unique=False))


def _camera_pose(image: Any) -> np.ndarray:
    T_model_camera = np.eye(4)
    T_model_camera[:3] = image.cam_from_world().inverse().matrix()
    return T_model_camera
