"""The demo as a user runs it: real processes, a result that is right, nothing left behind."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from scal3r_ros.records import Frame

pytest.importorskip("rclpy", reason="rclpy is absent")

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(tmp_path, ros_domain):
    """Command line of the demo on a copy of the bundled bag, sparse enough to be quick."""
    bag = shutil.copytree(ROOT / "demo" / "loop_room", tmp_path / "bag")
    config = tmp_path / "quick.yaml"
    text = (ROOT / "config" / "demo.yaml").read_text()
    assert "stride: 3" in text
    config.write_text(text.replace("stride: 3", "stride: 5"))
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), "--bag", str(bag)]
    return [*command, "--config", str(config), "--out", str(tmp_path / "out"), "--rate", "3"]


def processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(folder) in words:
            found.append(words)
    return found


def test_twice_in_a_row(demo, tmp_path):
    for _ in range(2):
        done = subprocess.run(demo, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ATE" in done.stdout and "Traceback" not in done.stderr
    assert processes_of(tmp_path) == []
    out = tmp_path / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == summary["frames_received"] == 360
    assert summary["frames_dropped"] == 0
    assert summary["frames_gated"] == 360 - 360 // 5
    assert summary["frames_mapped"] >= 65
    assert summary["accuracy"]["percent"] < 1
    for name in ("trajectory.txt", "map.ply", "report.json", "against_ground_truth.png"):
        assert (out / name).stat().st_size > 0
    assert (out / "map").is_dir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_cleans_up(demo, tmp_path, number):
    process = subprocess.Popen(demo, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "playing" in line:
            break
    time.sleep(1.0)
    assert len(processes_of(tmp_path)) >= 3
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number and "Traceback" not in errors
    assert processes_of(tmp_path) == []


def test_a_bag_that_shows_nothing_fails_with_the_reason(tmp_path, ros_domain):
    from recordings import write_bag

    blank = np.full((120, 160, 3), 90, np.uint8)
    frames = [Frame(i, 10**9 + i * 10**8, blank) for i in range(25)]
    bag = write_bag(tmp_path / "bag", frames)
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), "--bag", str(bag), "--rate", "3"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no frame could be mapped" in done.stderr
    assert "chunk_failed: chunk 0" in (tmp_path / "out" / "logs" / "mapping_node.log").read_text()
    assert processes_of(tmp_path) == []


def test_a_bag_that_cannot_be_used_is_explained(demo, tmp_path):
    for arguments, words in (
        (["--bag", "/nowhere"], "/nowhere does not exist"),
        (["--image-topic", "/lidar"], "no images on /lidar"),
    ):
        done = subprocess.run([*demo, *arguments], capture_output=True, text=True)
        assert done.returncode == 1 and words in done.stderr
        assert "Traceback" not in done.stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    done = subprocess.run(demo, capture_output=True, text=True)
    assert done.returncode == 1 and "holds other files" in done.stderr
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"
