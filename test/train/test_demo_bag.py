"""The demo recording: what it holds, and that the script writes such recordings."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("rosbags")

from rosbags.highlevel import AnyReader  # noqa: E402

from scal3r_ros.train.demo_bag import (  # noqa: E402
    IMAGE_TOPIC,
    INFO_TOPIC,
    TRUTH_TOPIC,
    write_demo_bag,
)

SHIPPED = Path(__file__).resolve().parents[2] / "demo" / "loop_room"


def _read(folder: Path) -> dict[str, list]:
    """Messages by topic, in order of time."""
    messages: dict[str, list] = {}
    with AnyReader([folder]) as reader:
        for connection, stamp, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            time = message.header.stamp
            assert stamp == time.sec * 10**9 + time.nanosec
            messages.setdefault(connection.topic, []).append((stamp, message))
    return messages


@pytest.fixture(scope="module")
def shipped():
    return _read(SHIPPED)


def _positions(messages: dict[str, list]) -> np.ndarray:
    points = [m.pose.position for _, m in messages[TRUTH_TOPIC]]
    return np.array([[p.x, p.y, p.z] for p in points])


def test_it_is_small_and_every_image_has_a_pose(shipped):
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) <= 5 * 10**6
    stamps = [[stamp for stamp, _ in shipped[t]] for t in (IMAGE_TOPIC, INFO_TOPIC, TRUTH_TOPIC)]
    assert stamps[0] == stamps[1] == stamps[2] and len(stamps[0]) == 360
    assert np.all(np.diff(stamps[0]) > 0)


def test_images_and_intrinsics_fit(shipped):
    info = shipped[INFO_TOPIC][0][1]
    for _, message in shipped[IMAGE_TOPIC][::90]:
        image = Image.open(io.BytesIO(message.data.tobytes()))
        assert image.size == (info.width, info.height) == (320, 240)
        assert np.asarray(image.convert("L")).std() > 10
    assert np.rad2deg(2 * np.arctan(info.width / 2 / info.k[0])) == pytest.approx(70.0, abs=0.01)


def test_it_closes_a_loop(shipped):
    """The last frames pass the places of the first, after having been metres away."""
    positions = _positions(shipped)
    away = np.linalg.norm(positions - positions[0], axis=1)
    assert away.max() > 2.0
    assert np.linalg.norm(positions[330:, None] - positions[None, :60], axis=-1).min(1).max() < 0.1


def test_quaternions_are_unit_and_motion_is_smooth(shipped):
    q = [m.pose.orientation for _, m in shipped[TRUTH_TOPIC]]
    q = np.array([[o.x, o.y, o.z, o.w] for o in q])
    assert np.allclose(np.linalg.norm(q, axis=1), 1.0, atol=1e-6)
    turn = np.rad2deg(2 * np.arccos(np.clip(np.abs((q[1:] * q[:-1]).sum(1)), 0, 1)))
    step = np.linalg.norm(np.diff(_positions(shipped), axis=0), axis=1)
    assert turn.max() < 8 and step.max() < 0.15


def test_the_script_writes_such_a_recording(tmp_path):
    messages = _read(write_demo_bag(tmp_path / "bag", frames=6))
    assert {topic: len(m) for topic, m in messages.items()} == {
        IMAGE_TOPIC: 6,
        INFO_TOPIC: 6,
        TRUTH_TOPIC: 6,
    }
