"""The running node offers the topics and services of its page, and no others; RViz, set up
by the shipped file, would hear it."""

import json
import re
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from rclpy.action import get_action_server_names_and_types_by_node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "interface.md"
HIDDEN = "/_action/"
"""What an action is made of."""
OF_EVERY_NODE = {"/rosout", "/parameter_events", "/mapping_node/transition_event"}


def tables(heading: str) -> list[list[tuple[str, str]]]:
    """(name, type) rows of every table below a heading of the page; type without package."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n#")[0]
    rows = [re.findall(r"^\| `([^`]+)`[^|]*\| \w+/(\w+)", t, re.M) for t in section.split("\n\n")]
    return [table for table in rows if table]


def resolved(name: str) -> str:
    return "/" + name.replace("~", "mapping_node").lstrip("/")


def named(found) -> dict[str, str]:
    """Resolved names to message types, without what rclpy adds to every node and every action."""
    return {
        name: types[0].rsplit("/", 1)[1]
        for name, types in found
        if name not in OF_EVERY_NODE and "rcl_interfaces" not in types[0] and HIDDEN not in name
    }


def actions_of(node) -> dict[str, str]:
    """Resolved names to types of the actions that `mapping_node` serves."""
    found = get_action_server_names_and_types_by_node(node, "mapping_node", "/")
    return {name: types[0].rsplit("/", 1)[1] for name, types in found}


def check_displays(node, inputs: set[str]) -> None:
    """Every display of the RViz file has a topic that the node publishes, compatibly."""
    config = yaml.safe_load((ROOT / "config" / "mapping.rviz").read_text())
    displays = config["Visualization Manager"]["Displays"]
    shown = [display for display in displays if "Topic" in display]
    assert len(shown) >= 6
    for display in shown:
        topic = display["Topic"]
        if topic["Value"] in inputs:
            continue
        (publisher,) = node.get_publishers_info_by_topic(topic["Value"])
        kind = display["Class"].removeprefix("rviz_default_plugins/")
        assert publisher.topic_type.endswith(f"/{kind}"), display["Name"]
        asked = QoSProfile(
            depth=topic["Depth"],
            reliability=ReliabilityPolicy[policy(topic, "Reliability")],
            durability=DurabilityPolicy[policy(topic, "Durability")],
        )
        verdict, reason = qos_check_compatible(publisher.qos_profile, asked)
        assert verdict != QoSCompatibility.ERROR, (display["Name"], reason)
        latched = publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert latched == (policy(topic, "Durability") == "TRANSIENT_LOCAL"), display["Name"]


def check_foxglove(expected: dict) -> None:
    """Every topic of the Foxglove layout is one of the interface."""
    layout = json.loads((ROOT / "config" / "foxglove.json").read_text())
    panels = layout["configById"].values()
    named = {topic for panel in panels for topic in panel.get("topics", {})}
    for panel in panels:
        mode = panel.get("imageMode", {})
        named |= {mode[key] for key in ("imageTopic", "calibrationTopic") if key in mode}
    assert len(named) >= 8 and named <= expected["publishers"].keys()


def policy(topic: dict, name: str) -> str:
    return topic[f"{name} Policy"].upper().replace(" ", "_")


def test_the_interface_is_that_of_its_page_and_of_rviz(start_mapping, make_robot):
    options = {
        "input.odometry": True,
        "map.alignment": "imu",
        "scale.source": "depth",
        "scale.also": "gnss",
    }
    start_mapping({}, **options)
    node = make_robot({}, listen=False).node
    inputs, outputs = tables("Topics")
    expected = {
        "actions": {resolved(name): kind for table in tables("Actions") for name, kind in table},
        "publishers": {resolved(name): kind for name, kind in outputs},
        "subscribers": {resolved(name): kind for name, kind in inputs} | {
            "/tf": "TFMessage", "/tf_static": "TFMessage",
        },
        "services": {resolved(name): kind for table in tables("Services") for name, kind in table},
    }  # fmt: skip
    found: dict[str, dict[str, str]] = {}
    end = time.monotonic() + 40.0
    while found != expected and time.monotonic() < end:
        time.sleep(0.2)
        if ("mapping_node", "/") not in node.get_node_names_and_namespaces():
            continue
        of_node = ("mapping_node", "/")
        found = {
            "actions": actions_of(node),
            "publishers": named(node.get_publisher_names_and_types_by_node(*of_node)),
            "subscribers": named(node.get_subscriber_names_and_types_by_node(*of_node)),
            "services": {
                name: kind
                for name, kind in named(node.get_service_names_and_types_by_node(*of_node)).items()
                if kind in expected["services"].values()
            },
        }
    assert found == expected
    check_foxglove(expected)
    check_displays(node, set(expected["subscribers"]))
