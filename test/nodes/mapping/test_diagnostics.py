"""What the node says about itself: level and next step follow from the figures."""

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from builtin_interfaces.msg import Time

from scal3r_ros.nodes.mapping import diagnostics
from scal3r_ros.nodes.mapping.diagnostics import ERROR, OK, WARN, Concern, InputHealth
from scal3r_ros.records import ScaleEstimate


def health(**changes):
    values = {
        "active": True, "topic": "/image", "rate": 30.0, "age": 0.1, "timeout": 5.0,
        "encoding": "rgb8", "counts": {"received": 3, "late": 1},
    }  # fmt: skip
    return InputHealth(**{**values, **changes})


@pytest.mark.parametrize(
    "changes, level, words",
    [
        ({}, OK, "ok"),
        ({"age": None}, ERROR, "no image yet on /image"),
        ({"age": 9.0}, ERROR, "no image for 9.0 s"),
        ({"age": 9.0, "active": False}, OK, "not active"),
        ({"recent_drops": 4}, WARN, "4 frames dropped"),
        ({"incompatible": ["cannot be heard"], "age": None}, ERROR, "cannot be heard"),
        ({"recent_malformed": {"malformed_tf": 2}}, WARN, "2 messages could not be used"),
        ({"recent_lost": {"lost_image": 3}}, WARN, "3 messages were lost on the way (lost_image)"),
        ({"unstamped_in_row": 2}, OK, "ok"),
        ({"unstamped_in_row": 3}, ERROR, "no image on /image has a time stamp"),
        ({"malformed_in_row": 3, "malformed_reason": "cut off"}, ERROR, "cut off"),
        ({"failed_callbacks": 1}, ERROR, "1 callbacks failed"),
        ({"calibration_problem": "NaN"}, ERROR, "NaN; images are mapped as they come"),
        ({"calibration_problem": "NaN", "calibrated": True}, WARN, "last good calibration stays"),
    ],
)
def test_input(changes, level, words):
    concern = diagnostics.input_concern(health(**changes))
    assert concern.level == level and words in concern.message
    assert concern.values["received"] == 3 and concern.values["late"] == 1


def test_chunks_that_all_fail_are_an_error():
    def concern(count: int) -> Concern:
        return diagnostics.inference_concern(
            "ready", "", [], [], 0, 0, {"chunk_failed": count}, "", count, "no matches"
        )

    assert concern(2).level == OK
    assert concern(3).level == ERROR and "no matches; move slower" in concern(3).message


def test_scale_is_unknown_until_it_is_known():
    unknown = diagnostics.scale_concern(ScaleEstimate())
    assert unknown.level == WARN and unknown.values["value"] == "unknown"
    measured = diagnostics.scale_concern(ScaleEstimate("odometry", 2.0, 0.04))
    assert measured.level == WARN and measured.values["sigma"] == "0.2"
    assert "not in metres yet" in measured.message and "10.0 %" in measured.message
    metric = diagnostics.scale_concern(ScaleEstimate("odometry", 1.0, 1e-4, True, 2.0))
    assert metric.level == OK and metric.values["sigma"] == "0.01"
    assert (metric.values["value"], metric.values["applied"]) == ("1", "2")


def test_silent_clock_is_told_and_zero_is_not_a_time():
    assert diagnostics.time_concern(True, 0, {}, None).level == WARN
    assert diagnostics.time_concern(True, 5, {}, None).level == OK
    jumped = diagnostics.time_concern(False, 5, {"jump_back": 1}, 2 * 10**9)
    assert jumped.values["last jump [s]"] == "-2.000" and jumped.values["jump_back"] == 1


def test_map_over_budget_and_refused_transform():
    assert diagnostics.map_concern(10, 3_000_000, 2.0, 0, 5, "floor").level == WARN
    assert diagnostics.map_concern(10, 1_000_000, 2.0, 0, 5, "floor").level == OK
    assert diagnostics.tf_concern("map_to_base", "taken", True, True, (0.0, 0.0)).level == ERROR
    assert diagnostics.tf_concern("map_to_base", "taken", True, False, (0.0, 0.0)).level == OK


def test_a_dead_camera_is_told_where_map_to_odom_goes_on():
    concern = diagnostics.tf_concern("map_to_odom", "", False, True, (0.0, 0.0), unseen=7.0)
    assert concern.level == WARN and "no image for 7.0 s" in concern.message
    assert diagnostics.tf_concern("map_to_odom", "", False, True, (0.0, 0.0)).level == OK


def test_poses_that_come_after_listeners_forgot_their_time_are_told():
    def concern(latency):
        return diagnostics.tf_concern(
            "map_to_odom", "", False, True, (0.0, 0.0), latency=latency, buffer=60.0
        )

    late, well = concern([70.0, 80.0, 90.0]), concern([1.0, 2.0, 3.0])
    assert late.level == WARN and "queue.max_delay" in late.message
    assert well.level == OK and well.values["latency [s]"] == "2.00"


def test_message_names_the_worst_first_and_all_of_it():
    concern = Concern("x", [(WARN, "slow"), (ERROR, "dead"), (OK, "idle")], {"a": 1})
    assert concern.message == "dead; slow"
    array = diagnostics.diagnostic_array("node", "camera", [concern], Time(sec=3))
    (status,) = array.status
    assert (status.name, status.level, status.hardware_id) == ("node: x", ERROR, "camera")
    assert [(item.key, item.value) for item in status.values] == [("a", "1")]
    assert array.header.stamp.sec == 3


def test_tracking_says_why_there_is_no_pose():
    lost = diagnostics.tracking_concern("no chunk yet", True, {"tracked": 0, "lost": 3}, [])
    assert (lost.level, lost.message) == (diagnostics.WARN, "no live pose: no chunk yet")
    assert diagnostics.tracking_concern("no chunk yet", False, {}, []).level == diagnostics.OK
    good = diagnostics.tracking_concern("", True, {"tracked": 9}, [0.02, 0.02])
    assert (good.level, good.values["tracked"]) == (diagnostics.OK, 9)
    assert good.values["latency p95 [s]"] == "0.020"
    failed = diagnostics.tracking_concern("", True, {"failed": 2}, [])
    assert failed.level == diagnostics.ERROR
