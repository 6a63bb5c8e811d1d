"""The live view of the real node, in a real browser without a display."""

import importlib.util
import sys

import pytest
from PIL import Image

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from headless_browser import Browser, find_browser

pytestmark = [pytest.mark.ros, pytest.mark.slow]
BROWSER_ABSENT = "no Chromium for the screenshot: apt install chromium"
VISER_ABSENT = "viser is not installed"


def coloured(picture) -> int:
    """Pixels of the scene that are neither background nor grey text."""
    scene = picture[:, : picture.shape[1] * 2 // 3].astype(int)
    return int((scene.max(axis=2) - scene.min(axis=2) > 30).sum())


@pytest.mark.skipif(find_browser() is None, reason=BROWSER_ABSENT)
@pytest.mark.skipif(importlib.util.find_spec("viser") is None, reason=VISER_ABSENT)
def test_the_page_shows_the_map_that_the_node_builds(start_mapping, make_robot, tmp_path):
    options = {"frames": 60, "width": 96, "height": 64}
    robot = make_robot(options, listen=False)
    process = start_mapping(options, **{"viewer.enabled": True, "viewer.port": 8190})
    robot.until_active()
    robot.listen_to_diagnostics()
    (line,) = (line for line in process.output.splitlines() if "live view at" in line)
    with Browser(line.split("live view at ")[1].strip()) as page:
        assert page.wait(lambda p: "waiting for frames" in p.text() or "received" in p.text())
        empty = coloured(page.picture())
        robot.show(range(40))
        robot.flush()
        assert page.wait(lambda p: "40 received" in p.text(), 30), page.text()
        shown = page.wait(lambda p: coloured(p.picture()) > empty + 2000, 30)
        text, picture = page.text(), page.picture()
    Image.fromarray(picture).save(tmp_path / "page.png")
    assert shown, f"no points in {tmp_path / 'page.png'}: {coloured(picture)} after {empty}"
    assert "unknown" in text and "revision" in text
    assert process.stop() == 0 and "Traceback" not in process.output


def test_a_view_without_its_library_is_told_and_left_out(monkeypatch):
    from types import SimpleNamespace

    from scal3r_ros.nodes.base.node_config import NodeConfig
    from scal3r_ros.nodes.output.live_view import open_view
    from scal3r_ros.options import from_dict

    monkeypatch.setitem(sys.modules, "rerun", None)
    options = {"viewer.enabled": True, "viewer.kind": "rerun", "viewer.rerun_url": "file:/nowhere"}
    said: list[str] = []
    logger = SimpleNamespace(warning=said.append, info=said.append)
    assert open_view(from_dict(NodeConfig, options), logger) is None
    assert len(said) == 1 and "rerun-sdk is absent" in said[0] and "viewer.kind to page" in said[0]
