"""The map while it grows, in a rerun viewer that somebody has started.

Only connects: this process opens no port. Start `rerun` on the same machine, or forward its port
with `ssh -R 9876:localhost:9876 robot`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from scal3r_ros.io.view_geometry import ViewSnapshot
from scal3r_ros.io.viewer import LOOP_COLOR, TRAJECTORY_COLOR, ViewerMissing

_APPLICATION = "scal3r_ros"
_LAST_WORDS = 1.0
"""Seconds that closing waits for what was not sent yet."""


class RerunView:
    """As `LiveView`, whose methods it has; rerun's own thread sends."""

    def __init__(self, url: str, max_points: int = 200_000, z_up: bool = True) -> None:
        """Connect to the viewer at `url`; raises `ViewerMissing` without the package rerun-sdk."""
        self.url, self._max_points = url, max_points
        self._rerun = _rerun()
        self._recording = self._rerun.RecordingStream(_APPLICATION)
        self._sink(url)
        self._lock = threading.Lock()
        views = self._rerun.ViewCoordinates
        axes = views.RIGHT_HAND_Z_UP if z_up else views.RDF
        self._recording.log("map", axes, static=True)

    def update(self, snapshot: ViewSnapshot) -> None:
        """Show this state of the map."""
        step = max(1, -(-len(snapshot.points) // self._max_points))
        points, colors = snapshot.points[::step], snapshot.colors[::step]
        track = snapshot.T_map_camera[:, :3, 3].astype(np.float32)
        loops = list(snapshot.loops.astype(np.float32))
        rerun = self._rerun
        self._log("map/points", rerun.Points3D(points, colors=colors))
        self._log("map/path", rerun.LineStrips3D([track], colors=[TRAJECTORY_COLOR]))
        self._log("map/loops", rerun.LineStrips3D(loops, colors=[LOOP_COLOR] * len(loops)))
        if len(track):
            newest = snapshot.T_map_camera[-1]
            moved = rerun.Transform3D(translation=newest[:3, 3], mat3x3=newest[:3, :3])
            self._log("map/camera", moved)
            width, height = snapshot.frame_size
            across = snapshot.half_angles[0]
            focal = width / (2.0 * across)
            self._log("map/camera", rerun.Pinhole(focal_length=focal, width=width, height=height))

    def show(
        self, image: np.ndarray | None = None, status: Mapping[str, str] | None = None
    ) -> None:
        """Show the newest camera image, (H, W, 3) uint8, and short status texts."""
        if image is not None:
            self._log("map/camera", self._rerun.Image(image).compress(jpeg_quality=70))
        if status is not None:
            text = "\n".join(f"- **{name}** {value}" for name, value in status.items())
            self._log("status", self._rerun.TextDocument(text, media_type="text/markdown"))

    def close(self) -> None:
        """Send what is left, for a moment. A second call does nothing."""
        with self._lock:
            recording, self._recording = self._recording, None
        if recording is not None:
            recording.flush(timeout_sec=_LAST_WORDS)
            recording.disconnect()

    def _log(self, entity: str, item: Any) -> None:
        with self._lock:
            if self._recording is not None:
                self._recording.set_time("seen", timestamp=time.time())
                self._recording.log(entity, item)

    def _sink(self, url: str) -> None:
        """A viewer, or a file for `file:` and a path."""
        if url.startswith("file:"):
            self._recording.save(url.removeprefix("file:"))
        else:
            self._recording.connect_grpc(url)


def _rerun() -> Any:
    try:
        import rerun
    except ImportError as missing:
        raise ViewerMissing(
            f"the Python package rerun-sdk is absent ({missing}); pip install 'scal3r_ros[rerun]', "
            f"or set viewer.kind to page"
        ) from missing
    return rerun
