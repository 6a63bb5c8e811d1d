"""Launch files: described arguments, existing executables and parameters, the right names."""

import argparse
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from launch_contract import Recorded, contract

from scal3r_ros.cli_reconstruct import add_arguments, build_config
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.options import walk_options

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(ROOT.glob("launch/*.launch.py"))
BAG = str(ROOT / "demo" / "loop_room")
ENDED = SimpleNamespace(returncode=0)
"""The event of a process that has done its work."""
OPTIONS = {option.name for option in walk_options(NodeConfig)}


def described(path: Path) -> list[Recorded]:
    with contract():
        spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.generate_launch_description().initial_entities


class Context(dict):
    """What a launch file may ask a LaunchContext; `push` is set by PushRosNamespace around it."""

    is_shutdown = False

    def __init__(self, given: dict, push: str) -> None:
        super().__init__(given)
        self.launch_configurations = {**given, **({"ros_namespace": push} if push else {})}


def launched(name: str, push: str = "", **given: str) -> list[Recorded]:
    """What a launch file starts with these arguments; defaults for the others."""
    entities = described(ROOT / "launch" / f"{name}.launch.py")
    declared = [e for e in entities if e.kind == "DeclareLaunchArgument"]
    values = {e.name: e.arguments.get("default_value") for e in declared}
    values = {key: value if isinstance(value, str) else "file" for key, value in values.items()}
    assert set(given) <= set(values), set(given) - set(values)
    for entity in declared:
        choices = entity.arguments.get("choices")
        value = {**values, **given}[entity.name]
        assert choices is None or value in choices, f"{entity.name}: {value} not in {choices}"
    with contract():
        (opaque,) = [e for e in entities if e.kind == "OpaqueFunction"]
        return opaque.function(Context({**values, **given}, push))


def nodes(entities: list[Recorded]) -> dict[str, Recorded]:
    return {f"{e.namespace}/{e.name}": e for e in entities if e.kind == "Node"}


def overrides(node: Recorded) -> dict:
    return {k: v for part in node.parameters if isinstance(part, dict) for k, v in part.items()}


def test_there_are_six():
    names = [file.name.split(".")[0] for file in FILES]
    assert names == ["demo", "localisation", "mapping", "multi_gpu", "nav2_demo", "offline"]


def test_localisation_takes_a_saved_map_and_leaves_nothing_to_guess(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no saved map"):
        launched("localisation", map=str(tmp_path))
    (tmp_path / "map_state.npz").touch()
    (node,) = nodes(launched("localisation", map=str(tmp_path), tf_mode="map_to_camera")).values()
    given = overrides(node)
    assert given["mode"] == "localisation" and given["load_path"] == str(tmp_path)
    assert given["tf.mode"] == "map_to_camera" and set(given) <= OPTIONS
    assert node.parameters[0].substitutions[-1] == "localisation.yaml"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_is_described(path):
    declared = [e for e in described(path) if e.kind == "DeclareLaunchArgument"]
    assert declared
    for argument in declared:
        assert len(argument.description) > 10, argument.name
        default = argument.arguments.get("default_value")
        choices = argument.arguments.get("choices")
        assert choices is None or default in choices, argument.name


def test_the_promised_arguments_exist():
    promised = (
        "namespace params_file image_topic camera_info_topic image_transport use_sim_time bag rviz "
        "device num_gpus log_level autostart"
    )
    declared = described(ROOT / "launch" / "mapping.launch.py")
    names = {e.name for e in declared if e.kind == "DeclareLaunchArgument"}
    assert set(promised.split()) <= names


@pytest.mark.parametrize("gpus", ["1", "3"])
def test_what_is_started_is_installed_and_known(gpus):
    installed = (ROOT / "CMakeLists.txt").read_text()
    started = launched("mapping", num_gpus=gpus, device="cpu", save_to="x", image_transport="raw")
    started += launched("multi_gpu", num_gpus=gpus)
    for name, node in nodes(started).items():
        assert re.search(rf"\b{node.executable}\b", installed), node.executable
        given = set(overrides(node)) - {"use_sim_time"}
        assert given <= options_of(node.executable), f"{name}: {given}"


def options_of(executable: str) -> set[str]:
    """Parameters that a node declares."""
    if executable == "mapping_node":
        return OPTIONS
    pytest.importorskip("rclpy", reason="rclpy is absent")
    from scal3r_ros.nodes.context_sync_node import ContextSyncConfig
    from scal3r_ros.nodes.reconstruction_node import ReconstructionConfig

    section = {
        "context_sync_node": ContextSyncConfig,
        "reconstruction_node": ReconstructionConfig,
    }[executable]
    return {option.name for option in walk_options(section)}


@pytest.mark.parametrize("device", ["", "cpu"])
def test_offline_gives_a_command_that_exists(device):
    (started,) = launched("offline", bag="drive.mcap", device=device, image_topic="/camera")
    words = started.cmd[1:]
    assert words[0] == "reconstruct"
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    chosen = parser.parse_args(words[1:])  # ends the test if it does not know an option
    assert str(chosen.input) == "drive.mcap" and chosen.topic == "/camera"
    chosen.config = None
    assert build_config(chosen).model.device == (device or "auto")


def test_only_what_the_user_gave_beats_the_file():
    chosen = {"device": "cuda:1", "image_transport": "compressed", "autostart": "false"}
    node = nodes(launched("mapping", params_file="mine.yaml", **chosen))["/mapping_node"]
    assert node.parameters[0] == "mine.yaml"
    assert overrides(node) == {
        "model.device": "cuda:1", "input.image_transport": "compressed", "autostart": False
    }  # fmt: skip


def test_without_arguments_the_values_of_an_including_launch_file_stand():
    """A parameter file or dictionary would beat what SetParameter says around it."""
    started = {**nodes(launched("mapping")), **nodes(launched("multi_gpu"))}
    given = {name: node.parameters for name, node in started.items()}
    assert given.pop("/context_sync_node") == [{"workers": 2}]
    assert set(map(str, given.values())) == {"[]"}, given


@pytest.mark.parametrize(
    ("image", "info", "expected"),
    [
        ("/camera/color/image_raw", "", "/camera/color/camera_info"),
        ("image", "", "camera_info"),
        ("/image", "", "/camera_info"),
        ("/a/image", "/calibration", "/calibration"),
    ],
)
def test_topics_are_remapped(image, info, expected):
    started = launched("mapping", image_topic=image, camera_info_topic=info)
    remapped = dict(nodes(started)["/mapping_node"].remappings)
    assert remapped["image"] == image
    assert remapped["image/compressed"] == f"{image}/compressed"
    assert remapped["camera_info"] == expected


def test_a_bag_is_played_flushed_and_ends_the_launch():
    started = launched("mapping", bag=BAG, namespace="robot")
    assert overrides(nodes(started)["robot/mapping_node"])["use_sim_time"] is True
    play = next(e for e in started if e.kind == "ExecuteProcess")
    assert play.cmd[:4] == ["ros2", "bag", "play", BAG] and "--clock" in play.cmd
    first, second = [e.event_handler for e in started if e.kind == "RegisterEventHandler"]
    assert first.target_action is play
    flush = first.on_exit(ENDED, Context({}, ""))[-1]
    assert flush.cmd[3] == "/robot/mapping_node/flush" and second.target_action is flush
    assert second.on_exit(ENDED, Context({}, ""))[0].event.kind == "Shutdown"


def test_what_fails_fails_the_launch():
    """An exception of a handler gives the launch its exit code; a normal stop is none."""
    with pytest.raises(FileNotFoundError, match=r"bag:=/nowhere.mcap does not exist"):
        launched("mapping", bag="/nowhere.mcap")
    started = launched("mapping", bag=BAG)
    handlers = [e.event_handler.on_exit for e in started if e.kind == "RegisterEventHandler"]
    handlers.append(nodes(started)["/mapping_node"].on_exit)
    handlers.append(launched("offline", bag=BAG)[0].on_exit)
    stopping = Context({}, "")
    stopping.is_shutdown = True
    for handler in handlers:
        with pytest.raises(RuntimeError, match="exit code 3"):
            handler(SimpleNamespace(returncode=3), Context({}, ""))
        handler(SimpleNamespace(returncode=3), stopping)
    assert "on_exit" not in nodes(launched("mapping"))["/mapping_node"].arguments


def test_a_node_that_dies_comes_back_if_asked():
    for name in ("mapping", "multi_gpu"):
        assert not any(node.respawn for node in nodes(launched(name)).values())
        assert all(node.respawn for node in nodes(launched(name, respawn="true")).values())
    started = launched("mapping", bag=BAG, respawn="true")
    assert "on_exit" not in nodes(started)["/mapping_node"].arguments


@pytest.mark.parametrize("push", ["/fleet", "fleet"])
def test_a_pushed_namespace_is_part_of_every_name(push):
    started = launched("mapping", push, bag=BAG, namespace="robot", num_gpus="2", rviz="true")
    (first, _) = [e.event_handler for e in started if e.kind == "RegisterEventHandler"]
    flush = first.on_exit(ENDED, Context({}, ""))[-1]
    assert flush.cmd[3] == "/fleet/robot/mapping_node/flush"
    moved = dict(nodes(started)["robot/rviz2"].remappings)
    assert moved["/mapping_node/map"] == "/fleet/robot/mapping_node/map"
    (include,) = [e for e in started if e.kind == "IncludeLaunchDescription"]
    assert dict(include.launch_arguments)["namespace"] == "robot", "the push holds there too"
    workers = nodes(launched("multi_gpu", push, namespace="robot"))
    worker = workers["robot/gpu_0/reconstruction_node"]
    assert dict(worker.remappings)["worker_state"] == "/fleet/robot/worker_state"
    alone = nodes(launched("multi_gpu", push))["gpu_0/reconstruction_node"]
    assert dict(alone.remappings)["worker_state"] == "/fleet/worker_state"


def test_sim_time_can_be_refused():
    node = nodes(launched("mapping", bag=BAG, use_sim_time="false"))["/mapping_node"]
    assert overrides(node)["use_sim_time"] is False


def test_workers_have_a_gpu_and_a_namespace_each():
    started = nodes(launched("multi_gpu", namespace="robot", num_gpus="2"))
    assert set(started) == {
        "robot/gpu_0/reconstruction_node",
        "robot/gpu_1/reconstruction_node",
        "robot/context_sync_node",
    }
    second = started["robot/gpu_1/reconstruction_node"]
    assert second.additional_env == {"CUDA_VISIBLE_DEVICES": "1"}
    assert dict(second.remappings)["worker_state"] == "/robot/worker_state"
    without = nodes(launched("multi_gpu", context_sync="false", prefix="b_", device="cpu"))
    assert set(without) == {f"b_{i}/reconstruction_node" for i in range(2)}
    assert without["b_0/reconstruction_node"].additional_env == {}


def test_mapping_includes_the_workers_of_several_gpus():
    started = launched("mapping", num_gpus="2", remote_gpus="1", namespace="robot")
    assert overrides(nodes(started)["robot/mapping_node"])["worker.count"] == 3
    (include,) = [e for e in started if e.kind == "IncludeLaunchDescription"]
    passed = dict(include.launch_arguments)
    assert (passed["num_gpus"], passed["world_size"], passed["namespace"]) == ("2", "3", "robot")
    declared = described(ROOT / "launch" / "multi_gpu.launch.py")
    assert set(passed) <= {e.name for e in declared if e.kind == "DeclareLaunchArgument"}
    assert not [e for e in launched("mapping") if e.kind == "IncludeLaunchDescription"]


def test_a_list_of_machines_is_the_same_on_all_of_them():
    """Every machine starts its share, the first one the mapper and the context_sync_node too."""
    workers = "alpha:2,beta-1.lan:3"
    started = launched("mapping", workers=workers, host="alpha", namespace="robot")
    assert overrides(nodes(started)["robot/mapping_node"])["worker.count"] == 5
    (include,) = [e for e in started if e.kind == "IncludeLaunchDescription"]
    (hint,) = [e.msg for e in started if e.kind == "LogInfo"]
    assert hint.startswith("on beta-1.lan,") and f"workers:={workers} namespace:=robot" in hint
    passed = dict(include.launch_arguments)
    assert (passed["workers"], passed["host"]) == (workers, "alpha")
    first = nodes(launched("multi_gpu", **{k: v for k, v in passed.items() if v != "file"}))
    second = nodes(launched("multi_gpu", workers=workers, host="beta-1.lan", namespace="robot"))
    assert set(first) == {"robot/context_sync_node"} | {
        f"robot/gpu_alpha_{i}/reconstruction_node" for i in range(2)
    }
    assert set(second) == {f"robot/gpu_beta_1_lan_{i}/reconstruction_node" for i in range(3)}
    assert overrides(first["robot/context_sync_node"])["workers"] == 5
    for node in (*first.values(), *second.values()):
        assert overrides(node)["distributed.address"] == "alpha"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"workers": "alpha:2,beta:2", "host": "beta"}, "belongs on alpha"),
        ({"workers": "alpha:2,beta:2", "host": "gamma"}, "gamma.* is not in workers"),
        ({"workers": "alpha:2", "host": "alpha", "num_gpus": "2"}, "not both"),
        ({"workers": "alpha=2"}, "not a list of host:gpus"),
    ],
)
def test_a_list_of_machines_that_does_not_fit_is_told(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        launched("mapping", **given)


def test_one_machine_in_the_list_is_as_without_a_list():
    alone = launched("mapping", workers="localhost:1")
    assert "worker.count" not in overrides(nodes(alone)["/mapping_node"])
    several = nodes(launched("multi_gpu", workers="localhost:2"))
    assert "distributed.address" not in overrides(several["/context_sync_node"])
    lent = launched("mapping", workers="alpha:0,beta:1", host="alpha")
    assert overrides(nodes(lent)["/mapping_node"])["worker.count"] == 1


def test_rviz_sees_the_namespaced_topics():
    started = nodes(launched("mapping", rviz="true", namespace="robot", image_topic="/cam"))
    moved = dict(started["robot/rviz2"].remappings)
    config = yaml.safe_load((ROOT / "config" / "mapping.rviz").read_text())
    displays = config["Visualization Manager"]["Displays"]
    shown = {d["Topic"]["Value"] for d in displays if "Topic" in d}
    assert shown <= set(moved), shown - set(moved)
    assert moved["/mapping_node/map"] == "/robot/mapping_node/map" and moved["/image"] == "/cam"


def test_rviz_asks_for_what_is_latched():
    config = yaml.safe_load((ROOT / "config" / "mapping.rviz").read_text())
    displays = {d["Name"]: d for d in config["Visualization Manager"]["Displays"]}
    for name in ("Map", "Path", "Pose graph"):
        assert displays[name]["Topic"]["Durability Policy"] == "Transient Local"
    assert config["Visualization Manager"]["Global Options"]["Fixed Frame"] == "map"


@pytest.mark.parametrize("name", ["mapping", "demo", "localisation", "nav2"])
def test_shipped_parameter_files_hold_valid_options(name):
    from scal3r_ros.config import load

    load(ROOT / "config" / f"{name}.yaml", NodeConfig)


def test_the_commented_file_shows_the_defaults():
    from scal3r_ros.config import load

    assert load(ROOT / "config" / "mapping.yaml", NodeConfig) == NodeConfig()


def test_navigation_is_started_where_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    mapping, told = launched("nav2_demo", odom_topic="/wheels")
    assert dict(mapping.launch_arguments)["odom_topic"] == "/wheels"
    assert told.kind == "LogInfo" and "nav2_bringup is not installed" in told.msg
    packages = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    packages.mkdir(parents=True)
    (packages / "nav2_bringup").touch()
    _, started = launched("nav2_demo")
    assert started.kind == "IncludeLaunchDescription"
    assert [item.kind for item in launched("nav2_demo", navigation="false")] == [mapping.kind]


@pytest.mark.skipif(not shutil.which("ros2"), reason="the ros2 command is absent")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_real_launch_shows_the_arguments(path):
    done = subprocess.run(
        ["ros2", "launch", str(path), "--show-args"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for argument in described(path):
        if argument.kind == "DeclareLaunchArgument":
            assert f"'{argument.name}'" in done.stdout


def test_the_aggregator_groups_every_concern_once():
    pytest.importorskip("rclpy", reason="rclpy is absent")
    from scal3r_ros.nodes.mapping.health import HealthReport

    class Unconfigured:
        lifecycle_state = "unconfigured"

        def create_publisher(self, *_):
            return None

    concerns = [c.name for c in HealthReport(Unconfigured())._without_session()]
    file = yaml.safe_load((ROOT / "config" / "diagnostics.yaml").read_text())
    groups = file["analyzers"]["ros__parameters"]["mapping"]["analyzers"].values()
    grouped = [name for group in groups for name in group["contains"]]
    assert sorted(grouped) == sorted(f"mapping_node: {name}" for name in concerns)
