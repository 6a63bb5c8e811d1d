"""A page in the web browser that shows the map while it grows.

The page is served by the library viser on the loopback interface only: it has no passwords. Reach
it from another machine through `ssh -L 8080:localhost:8080 robot`. The caller hands over snapshots
at any rate; a thread of the view sends the newest one, never more often than `period`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from scal3r_ros.io import view_geometry as geometry
from scal3r_ros.io.view_geometry import ViewSnapshot

LOOPBACK = "127.0.0.1"
TRAJECTORY_COLOR = (255, 150, 30)
FRUSTUM_COLOR = (90, 140, 255)
LOOP_COLOR = (255, 0, 200)


class ViewerMissing(RuntimeError):
    """The optional library viser is not installed."""


class LiveView:
    """Serves the page from construction to `close`; all methods return at once."""

    def __init__(
        self,
        port: int = 8080,
        max_points: int = 200_000,
        max_frusta: int = 100,
        period: float = 0.5,
        up: tuple[float, float, float] = (0.0, 0.0, 1.0),
    ) -> None:
        """Start serving on `port`, or on the next free one (see `url`; 0 takes any).

        period: shortest time between two snapshots on the page, in seconds.
        `up` is the map's upward direction; a map that kept the axes of its first camera has
        (0, -1, 0).
        """
        self._limits = (max_points, max_frusta)
        self._period = period
        logging.getLogger("websockets.server").addFilter(_is_worth_logging)
        self._server = _viser().ViserServer(host=LOOPBACK, port=port, verbose=False)
        self._page = _Page(self._server, np.asarray(up, dtype=np.float64))
        self._newest = threading.Condition()
        self._snapshot: ViewSnapshot | None = None
        self._image: np.ndarray | None = None
        self._status: str | None = None
        self._closing = threading.Event()
        self.sent = 0
        """Snapshots that were sent to the page; less than handed over when thinned in time."""
        self._thread = threading.Thread(target=self._run, name="live_view", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://localhost:{self._server.get_port()}"

    def update(self, snapshot: ViewSnapshot) -> None:
        """Show this state of the map; it replaces one that has not been sent yet."""
        self._hand_over(snapshot=snapshot)

    def show(
        self, image: np.ndarray | None = None, status: Mapping[str, str] | None = None
    ) -> None:
        """Show the newest camera image, (H, W, 3) uint8, and a table of short status texts."""
        self._hand_over(image=image, status=None if status is None else status_table(status))

    def close(self) -> None:
        """Stop serving and free the port. A second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        with self._newest:
            self._newest.notify_all()
        self._thread.join()
        self._server.stop()

    def _hand_over(
        self,
        snapshot: ViewSnapshot | None = None,
        image: np.ndarray | None = None,
        status: str | None = None,
    ) -> None:
        with self._newest:
            self._snapshot = self._snapshot if snapshot is None else snapshot
            self._image = self._image if image is None else image
            self._status = self._status if status is None else status
            self._newest.notify_all()

    def _run(self) -> None:
        while not self._closing.is_set():
            snapshot, image, status = self._wait_for_news()
            if snapshot is not None:
                self._page.draw(snapshot, *self._limits)
                self.sent += 1
            self._page.show(image, status)
            self._closing.wait(self._period)

    def _wait_for_news(self) -> tuple[ViewSnapshot | None, np.ndarray | None, str | None]:
        """Block until there is something to send or the view closes; takes what is there."""
        with self._newest:
            self._newest.wait_for(
                lambda: (
                    self._closing.is_set()
                    or any(x is not None for x in (self._snapshot, self._image, self._status))
                )
            )
            news = (self._snapshot, self._image, self._status)
            self._snapshot = self._image = self._status = None
        return news


class _Page:
    """The scene and the side panel of one viser server."""

    def __init__(self, server: Any, up: np.ndarray) -> None:
        self._server = server
        self._up = up / np.linalg.norm(up)
        self._framed = False
        self._clouds: list[Any] = []
        server.scene.set_up_direction(tuple(self._up))
        server.gui.configure_theme(show_logo=False, show_share_button=False, dark_mode=True)
        server.gui.set_panel_label("scal3r_ros")
        self._status = server.gui.add_markdown("waiting for frames")
        self._image: Any = None
        self._size = server.gui.add_slider("point size", 0.2, 5.0, 0.1, 1.0)
        self._point_size = 0.01
        self._size.on_update(lambda _: self._resize())

    def draw(self, snapshot: ViewSnapshot, max_points: int, max_frusta: int) -> None:
        """Replace the whole scene by this snapshot, in one piece for the browser."""
        points, colors = geometry.thin_points(snapshot.points, snapshot.colors, max_points)
        poses = snapshot.T_map_camera
        _, radius = geometry.extent(points, poses[:, :3, 3])
        self._point_size = geometry.point_size(len(points), radius)
        size = 0.05 * radius
        some = geometry.thin(len(poses), geometry.room_for_frusta(poses, size, max_frusta))
        frusta = geometry.frusta_segments(poses[some], snapshot.half_angles, size)
        loops = snapshot.loops[geometry.thin(len(snapshot.loops), geometry.MAX_LOOPS)]
        with self._server.atomic():
            self._draw_points(points, colors)
            self._draw_lines("trajectory", geometry.trajectory_segments(poses), TRAJECTORY_COLOR, 3)
            self._draw_lines("frusta", frusta, FRUSTUM_COLOR, 1)
            self._draw_lines("loops", loops, LOOP_COLOR, 4)
        if len(points) + len(poses):
            self._frame_view(points, poses[:, :3, 3])

    def show(self, image: np.ndarray | None, status: str | None) -> None:
        """Replace the side panel's text and image where given."""
        if status is not None:
            self._status.content = status
        if image is not None and self._image is None:
            self._image = self._server.gui.add_image(image, label="newest frame", format="jpeg")
        elif image is not None:
            self._image.image = image

    def _draw_points(self, points: np.ndarray, colors: np.ndarray) -> None:
        handle = self._server.scene.add_point_cloud(
            "/map/points",
            points,
            colors,
            point_size=self._point_size * self._size.value,
            precision="float32",
            point_shading="flat",
        )
        self._clouds = [handle]

    def _draw_lines(
        self, name: str, segments: np.ndarray, color: tuple[int, int, int], width: float
    ) -> None:
        self._server.scene.add_line_segments(
            f"/map/{name}",
            segments.astype(np.float32),
            color,
            thickness=width,
            thickness_units="screen",
        )

    def _resize(self) -> None:
        for cloud in self._clouds:
            cloud.point_size = self._point_size * self._size.value

    def _frame_view(self, points: np.ndarray, centres: np.ndarray) -> None:
        """Keep the whole map between the clipping planes and in the view that "Reset" leads to.

        The first piece of the map also moves everyone's camera; afterwards it is the user's.
        """
        position, look_at = geometry.overview(points, centres, self._up)
        distance = float(np.linalg.norm(position - look_at))
        clients = [client.camera for client in self._server.get_clients().values()]
        moved = [] if self._framed else clients
        self._framed = True
        for camera in (self._server.initial_camera, *clients):
            camera.near, camera.far = 1e-3 * distance, 100.0 * distance
        for camera in (self._server.initial_camera, *moved):
            camera.position = position
            camera.look_at = look_at


def status_table(status: Mapping[str, str]) -> str:
    """Markdown table of names and texts; what would break the table is escaped."""
    rows = [f"| {_cell(name)} | {_cell(text)} |" for name, text in status.items()]
    return "\n".join(["| | |", "|:--|:--|", *rows])


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Browsers open spare connections and drop them unused, which the library logs as errors."""
    return record.getMessage() != "opening handshake failed"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _viser() -> Any:
    try:
        import viser
    except ModuleNotFoundError as missing:
        raise ViewerMissing(
            f"the live view needs the Python package viser ({missing}); "
            f"install it with `pip install viser` or switch viewer.enabled off"
        ) from missing
    return viser
