"""Frames through pycolmap's incremental mapper, from nothing or from frames solved before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.reconstruct.sfm.features import Features
from scal3r_ros.reconstruct.sfm.model import Model, Tracks, judge

_START_ANGLES = (8.0, 4.0, 2.0)
"""Angles (degrees) between the first two frames that are tried in turn: a wide one starts well, but
a car that drives straight ahead offers only narrow ones."""
_ENOUGH = 0.9
"""Share of the frames beyond which no other start is tried."""

Geometries = Mapping[tuple[int, int], Any]
"""Verified `pycolmap.TwoViewGeometry` of frames by their positions (i, j), i < j."""


@dataclass(frozen=True)
class Known:
    """Frames among those given that were solved before."""

    positions: tuple[int, ...]
    T_model_camera: np.ndarray
    """(S, 4, 4) float64."""
    tracks: Tracks
    """Its frames are rows of `positions`."""

    def matched(self, geometries: Geometries) -> Known:
        """Only the frames that some pair connects; the mapper knows no others."""
        connected = {position for pair in geometries for position in pair}
        rows = [row for row, p in enumerate(self.positions) if p in connected]
        positions = tuple(self.positions[row] for row in rows)
        return Known(positions, self.T_model_camera[rows], self.tracks.of(rows))


@dataclass(frozen=True)
class Problem:
    """Frames to solve together."""

    features: Sequence[Features]
    geometries: Geometries
    camera: Any
    """One `pycolmap.Camera` for all."""
    max_error: float
    """Reprojection error of an outlier, px."""
    seed: int
    refine_camera: bool = False


def _anything(model: Model) -> None:
    """No demands on a model."""


def start_anew(problem: Problem, check: Callable[[Model], None] = _anything) -> Model:
    """Incremental mapping from the best pair of frames; raises `ReconstructionFailed`.

    What `check` raises that for is solved again from another pair. Single threaded and seeded, so
    the same input gives the same bits.
    """
    if not problem.geometries:
        raise ReconstructionFailed(
            "no two frames see the same features, though each has enough: their views do not "
            "overlap; take images more often (gate.stride, gate.max_rate), of one scene and camera"
        )
    best: Model | None = None
    for angle in _START_ANGLES:
        try:
            model = _solve(problem, _options(problem, angle), None)
            check(model)
        except ReconstructionFailed as failure:
            reason = failure
            continue
        if best is None or len(model.positions) > len(best.positions):
            best = model
        if len(best.positions) >= _ENOUGH * len(problem.features):
            break
    if best is None:
        raise reason
    return best


def go_on(problem: Problem, known: Known) -> Model:
    """Incremental mapping from the cameras and points of the frames solved before, which are
    refined with the new ones; raises `ReconstructionFailed`."""
    known = known.matched(problem.geometries)
    if not known.positions:
        raise ReconstructionFailed("no frame sees the same features as those solved before")
    return _solve(problem, _options(problem, _START_ANGLES[0]), known)


def _solve(problem: Problem, options: Any, known: Known | None) -> Model:
    import pycolmap

    database, image_ids = _fill_database(problem)
    manager = pycolmap.ReconstructionManager()
    if known is not None:
        _recall(manager.get(manager.add()), problem, image_ids, known)
    try:
        pycolmap.IncrementalPipeline(options, database, manager).run()
    finally:
        database.close()
    if manager.size() == 0:
        raise ReconstructionFailed("no pair of frames to start from: too few matches or no motion")
    found = max((manager.get(i) for i in range(manager.size())), key=lambda m: m.num_reg_images())
    return judge(found, image_ids, problem.features, problem.geometries, problem.max_error)


def _fill_database(problem: Problem) -> tuple[Any, list[int]]:
    import pycolmap

    database = pycolmap.Database.open(":memory:")
    camera = pycolmap.Camera(problem.camera.todict())
    camera.camera_id = database.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera.sensor_id)
    rig.rig_id = database.write_rig(rig)
    image_ids = []
    for position, item in enumerate(problem.features):
        image = pycolmap.Image(name=f"{position:06d}", camera_id=camera.camera_id)
        image.image_id = database.write_image(image)
        frame = pycolmap.Frame()
        frame.rig_id = rig.rig_id
        frame.add_data_id(image.data_id)
        database.write_frame(frame)
        database.write_keypoints(image.image_id, item.pixels)
        image_ids.append(image.image_id)
    for (first, second), geometry in sorted(problem.geometries.items(), key=lambda item: item[0]):
        database.write_two_view_geometry(image_ids[first], image_ids[second], geometry)
    return database, image_ids


def _recall(start: Any, problem: Problem, image_ids: list[int], known: Known) -> None:
    """Put solved frames and their points into an empty `pycolmap.Reconstruction`."""
    import pycolmap

    camera = pycolmap.Camera(problem.camera.todict())
    camera.camera_id = 1  # as the database numbers it
    start.add_camera_with_trivial_rig(camera)
    for position, T_model_camera in zip(known.positions, known.T_model_camera):
        image = pycolmap.Image(
            name=f"{position:06d}",
            keypoints=problem.features[position].pixels.astype(np.float64),
            camera_id=1,
            image_id=image_ids[position],
        )
        T_camera_model = np.linalg.inv(T_model_camera)[:3]
        start.add_image_with_trivial_frame(image, pycolmap.Rigid3d(T_camera_model))
    tracks = known.tracks
    order = np.argsort(tracks.point, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(tracks.point[order])) + 1) if len(order) else []
    for part in parts:
        elements = [
            pycolmap.TrackElement(image_ids[known.positions[tracks.frame[e]]], tracks.feature[e])
            for e in part
        ]
        start.add_point3D(tracks.points[tracks.point[part[0]]], pycolmap.Track(elements))


def _options(problem: Problem, start_angle: float) -> Any:
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    options.random_seed = problem.seed
    options.multiple_models = False
    # Poses from pairs alone take twenty times as long as all the rest, and a chunk that goes on
    # from solved frames does not need them.
    options.structure_less_registration_fallback = False
    options.init_num_trials = 20
    options.extract_colors = False
    options.min_model_size = 4
    options.ba_refine_focal_length = problem.refine_camera
    options.ba_refine_extra_params = problem.refine_camera
    options.mapper.abs_pose_refine_focal_length = problem.refine_camera
    options.mapper.abs_pose_refine_extra_params = problem.refine_camera
    # A car drives along its optical axis and a chunk is short: the defaults refuse such pairs.
    options.mapper.init_max_forward_motion = 1.0
    options.mapper.init_min_tri_angle = start_angle
    options.mapper.init_min_num_inliers = 60
    # Wide steps over weak texture leave few true matches; `judge` looks at what came of them.
    options.mapper.abs_pose_min_num_inliers = 15
    options.mapper.abs_pose_min_inlier_ratio = 0.15
    # Good enough to go on from; `polish` adjusts everything once more.
    options.ba_global_max_refinements, options.ba_global_max_num_iterations = 2, 20
    options.ba_local_max_refinements, options.ba_local_max_num_iterations = 1, 15
    options.mapper.filter_max_reproj_error = problem.max_error
    options.mapper.num_threads = 1
    options.mapper.random_seed = problem.seed
    options.triangulation.random_seed = problem.seed
    return options
