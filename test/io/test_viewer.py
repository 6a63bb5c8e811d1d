"""The live view: bounded, on the loopback interface only, and really seen in a browser."""

import socket
import subprocess
import sys
import threading
import time
from urllib.request import urlopen

import numpy as np
import pytest

from scal3r_ros.io import view_geometry as geometry
from scal3r_ros.io.view_geometry import ViewSnapshot
from scal3r_ros.io.viewer import LOOP_COLOR, TRAJECTORY_COLOR, LiveView, status_table


def walk(count: int) -> np.ndarray:
    """(count, 4, 4) camera poses on a circle of radius 3, looking outwards, z up."""
    angle = np.linspace(0.0, 5.0, count)
    poses = np.tile(np.eye(4), (count, 1, 1))
    forward = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    poses[:, :3, 2] = forward
    poses[:, :3, 1] = [0.0, 0.0, -1.0]
    poses[:, :3, 0] = np.cross(poses[:, :3, 1], forward)
    poses[:, :3, 3] = 3.0 * forward
    return poses


def green_room(count: int = 20000, shift: float = 0.0) -> ViewSnapshot:
    rng = np.random.default_rng(1)
    points = rng.uniform(-5.0, 5.0, (count, 3)) * [1.0, 1.0, 0.3] + [shift, 0.0, 0.0]
    poses = walk(40)
    ends = poses[[0, -1], :3, 3]
    return ViewSnapshot(points, np.full((count, 3), [20, 200, 60], np.uint8), poses, ends[None])


def test_thinning_is_bounded_even_and_keeps_the_newest():
    for count, limit in ((0, 5), (3, 5), (5, 5), (1000, 7), (10**6, 1000)):
        chosen = geometry.thin(count, limit)
        assert len(chosen) == min(count, limit) and len(set(chosen)) == len(chosen)
        if count:
            assert chosen[-1] == count - 1
        if len(chosen) > 1:
            steps = np.diff(chosen)
            assert steps.min() > 0 and steps.max() - steps.min() <= 1


def test_thinned_points_keep_their_colours_and_drop_what_is_not_finite():
    points = np.arange(30000.0).reshape(-1, 3)
    points[7] = np.nan
    colors = (np.arange(10000)[:, None] // [1, 256, 65536] % 256).astype(np.uint8)
    kept, kept_colors = geometry.thin_points(points, colors, 4000)
    index = (kept[:, 0] / 3).round().astype(int)
    assert len(kept) == 4000 and np.isfinite(kept).all() and len(set(index)) == 4000
    np.testing.assert_array_equal(kept_colors, colors[index])
    again, _ = geometry.thin_points(points, colors, 4000)
    np.testing.assert_array_equal(kept, again)


def test_frusta_open_along_the_optical_axis():
    poses = walk(5)
    half = ViewSnapshot(np.zeros((0, 3)), np.zeros((0, 3)), poses, np.zeros((0, 2, 3)),
                        (640, 480), 400.0).half_angles  # fmt: skip
    edges = geometry.frusta_segments(poses, half, 0.5).reshape(5, 8, 2, 3)
    for pose, own in zip(poses, edges):
        np.testing.assert_allclose(own[:4, 0], np.tile(pose[:3, 3], (4, 1)))
        in_camera = (own[:4, 1] - pose[:3, 3]) @ pose[:3, :3]
        pixel = 400.0 * in_camera[:, :2] / in_camera[:, 2:] + [320.0, 240.0]
        np.testing.assert_allclose(in_camera[:, 2], 0.5)
        np.testing.assert_allclose(pixel, [[0, 0], [640, 0], [640, 480], [0, 480]], atol=1e-9)


def test_frusta_on_a_short_path_do_not_hide_each_other():
    poses = walk(500)
    length = 5.0 * 3.0
    assert 24 <= geometry.room_for_frusta(poses, 0.5, 100) <= length / 0.6
    assert geometry.room_for_frusta(poses, 0.01, 100) == 100
    assert geometry.room_for_frusta(poses[:1], 0.5, 100) == 1
    assert geometry.room_for_frusta(poses[:0], 0.5, 100) == 1


def test_overview_looks_down_on_the_map_whatever_is_up():
    points, centres = green_room().points, walk(40)[:, :3, 3]
    for up in (np.array([0.0, 0.0, 1.0]), np.array([0.0, -1.0, 0.0])):
        position, look_at = geometry.overview(points, centres, up)
        _, radius = geometry.extent(points, centres)
        assert (position - look_at) @ up > 0.5 * radius
        assert 1.5 < np.linalg.norm(position - look_at) / radius < 3.0
    position, _ = geometry.overview(np.zeros((0, 3)), np.zeros((0, 3)), up)
    assert np.isfinite(position).all()


def test_snapshot_of_wrong_shape_is_refused():
    good = green_room(10)
    with pytest.raises(ValueError, match=r"colors is \(9, 3\), expected \(10, 3\)"):
        ViewSnapshot(good.points, good.colors[:9], good.T_map_camera, good.loops)


def test_status_cannot_break_the_table():
    table = status_table({"scale": "unknown", "a|b": "two\nlines"})
    assert table.splitlines()[2:] == ["| scale | unknown |", "| a\\|b | two lines |"]


def test_without_viser_the_reason_and_the_cure_are_told():
    script = (
        "import sys; sys.modules['viser'] = None\n"
        "from scal3r_ros.io.viewer import LiveView\n"
        "LiveView(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode != 0 and "pip install viser" in done.stderr


def test_importing_the_view_does_not_import_viser():
    script = "import sys, scal3r_ros.io.viewer; assert 'viser' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.fixture
def view():
    pytest.importorskip("viser")
    view = LiveView(port=0, max_points=5000, max_frusta=20, period=0.3)
    yield view
    view.close()


def test_only_this_machine_can_connect(view):
    port = int(view.url.rsplit(":", 1)[1])
    with urlopen(view.url, timeout=10.0) as page:
        assert page.status == 200
    with open("/proc/net/tcp") as table:
        listening = [row.split()[1] for row in table if row.split()[3] == "0A"]
    assert [row for row in listening if row.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_many_updates_are_thinned_in_time_and_the_last_one_arrives(view):
    begin = time.monotonic()
    for index in range(200):
        view.update(green_room(100, shift=index))
        view.show(status={"revision": str(index)})
    handed_over = time.monotonic() - begin
    assert handed_over < 2.0, "update must not wait for the browser"
    while "| 199 |" not in view._page._status.content and time.monotonic() - begin < 10.0:
        time.sleep(0.05)
    assert "| 199 |" in view._page._status.content
    assert view.sent <= (time.monotonic() - begin) / 0.3 + 1


def test_close_frees_the_port_and_leaves_no_thread():
    pytest.importorskip("viser")
    before = set(threading.enumerate())
    view = LiveView(port=0)
    port = int(view.url.rsplit(":", 1)[1])
    view.update(green_room(100))
    view.close()
    view.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5.0)
    end = time.monotonic() + 10.0
    while set(threading.enumerate()) - before and time.monotonic() < end:
        time.sleep(0.05)
    assert not set(threading.enumerate()) - before


def count_like(picture: np.ndarray, color: tuple, tolerance: int = 40) -> int:
    """Pixels of the canvas, without panel and notices at its sides, whose colour is near this."""
    canvas = picture[:, 320:650].astype(int)
    return int((np.abs(canvas - color).max(axis=2) < tolerance).sum())


@pytest.mark.slow
def test_a_browser_shows_points_trajectory_loops_and_status(view, tmp_path):
    pytest.importorskip("websockets")
    from headless_browser import Browser, find_browser
    from PIL import Image

    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on this machine")
    green = (20, 200, 60)
    with Browser(view.url) as browser:
        assert browser.wait(lambda b: "waiting for frames" in b.text())
        empty = browser.picture()
        assert count_like(empty, green) < 20
        view.update(green_room())
        view.show(np.full((48, 64, 3), [200, 30, 30], np.uint8), {"scale": "unknown"})
        seen = browser.wait(lambda b: count_like(b.picture(), green) > 2000)
        picture = browser.picture()
        Image.fromarray(picture).save(tmp_path / "view.png")
        print(f"picture: {tmp_path / 'view.png'}")
        assert seen, f"{count_like(picture, green)} green pixels"
        assert browser.wait(lambda b: "unknown" in b.text(), 10.0)
        assert count_like(empty, TRAJECTORY_COLOR) < 20 < count_like(picture, TRAJECTORY_COLOR)
        assert count_like(empty, LOOP_COLOR) < 20 < count_like(picture, LOOP_COLOR)
        view.update(green_room(0))
        gone = browser.wait(lambda b: count_like(b.picture(), green) < 20, 20.0)
        assert gone, "a corrected map replaces the old one"
