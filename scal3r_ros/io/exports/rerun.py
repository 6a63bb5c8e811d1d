"""The results as a recording of the rerun viewer, with rerun-sdk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from scal3r_ros.files import write_bytes
from scal3r_ros.io.exports.map_view import MapView, View, library

_APPLICATION = "scal3r_ros"


def write(view: MapView, folder: Path) -> list[Path]:
    """`map.rrd`: points, path, and a moving camera with its images over the time of the stamps."""
    rerun = library("rerun", "rerun")
    path = folder / "map.rrd"
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / path.name
        recording = rerun.RecordingStream(_APPLICATION)
        recording.save(file)
        _log(rerun, recording, view)
        recording.flush()
        del recording  # closes the file
        write_bytes(path, file.read_bytes())
    return [path]


def _log(rerun: Any, recording: Any, view: MapView) -> None:
    axes = rerun.ViewCoordinates.RIGHT_HAND_Z_UP if view.level else rerun.ViewCoordinates.RDF
    cloud = view.cloud
    recording.log("map", axes, static=True)
    recording.log("map/points", rerun.Points3D(cloud.points, colors=cloud.colors), static=True)
    track = view.matrices[:, :3, 3]
    recording.log("map/path", rerun.LineStrips3D([track.astype(np.float32)]), static=True)
    for pose in view.poses:
        _at(recording, pose.stamp_ns)
        T = pose.T_map_camera
        moved = rerun.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3])
        recording.log("map/camera", moved)
    for item in view.views():
        _at(recording, item.stamp_ns)
        recording.log("map/camera", _pinhole(rerun, item))
        recording.log("map/camera", rerun.Image(item.rgb).compress(jpeg_quality=80))


def _at(recording: Any, stamp_ns: int) -> None:
    recording.set_time("stamp", timestamp=np.datetime64(stamp_ns, "ns"))


def _pinhole(rerun: Any, item: View) -> Any:
    height, width = item.rgb.shape[:2]
    return rerun.Pinhole(image_from_camera=item.intrinsics, width=width, height=height)
