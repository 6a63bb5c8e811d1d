"""The node under many and under bad messages; at length by `scal3r bench soak` and `fuzz`."""

import json

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")

from scal3r_ros.nodes.bench.fuzz import as_json, fuzz
from scal3r_ros.nodes.bench.fuzz_messages import Fuzzer
from scal3r_ros.nodes.bench.soak import SoakResult, Window, soak

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_no_message_ends_the_node_and_each_is_counted(ros_domain, tmp_path, transport):
    result = fuzz(transport, 400, seed=1, folder=tmp_path)
    assert sum(result.sent.values()) == 400
    assert min(result.sent.values()) > 0 and min(result.left_out.values()) > 0
    assert result.unaccounted == {}
    assert result.counted["failed callbacks"] == 0
    assert 20 < result.mapped == result.counted["decoded"]
    assert result.exit_code == 0
    assert json.loads(as_json([result]))[0]["sent"] == dict(result.sent)


def test_every_frame_of_a_long_run_is_mapped_and_nothing_piles_up(ros_domain, tmp_path):
    result = soak(300, 100, tmp_path / "node.log")
    assert result.sent == result.received == result.decoded == result.mapped == 300
    assert result.exit_code == 0
    first, *others = result.windows
    assert {window.threads for window in others} == {first.threads}
    assert max(window.files for window in others) <= first.files + 2
    assert max(window.megabytes for window in others) < first.megabytes + 30.0


def test_growth_is_that_of_the_frames_after_the_map_was_full():
    windows = [Window(1000 * i, 5.0, 90.0, 8.0, 20, 12) for i in range(1, 10)]
    assert SoakResult(tuple(windows), 0, 0, 0, 0, 0).cost_growth == pytest.approx(0.0)
    grown = [Window(1000 * i, 5.0 + i, 90.0 + 2.0 * i, 8.0, 20, 12) for i in range(1, 10)]
    result = SoakResult(tuple(grown), 0, 0, 0, 0, 0)
    assert result.megabytes_per_thousand == pytest.approx(2.0)
    assert result.cost_growth == pytest.approx(13.5 / 7.5 - 1.0)


def test_the_fuzzer_says_what_is_wrong_before_the_node_does():
    fuzzer = Fuzzer(seed=0, compressed=False)
    kinds = [fuzzer.sample() for _ in range(500)]
    assert {sample.kind for sample in kinds} == {"image", "camera_info", "odom", "imu", "tf"}
    assert 0 < sum(sample.left_out for sample in kinds) < 500
