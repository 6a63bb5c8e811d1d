"""Camera stream or bag in, poses and map out.

ros2 launch scal3r_ros mapping.launch.py image_topic:=/camera/image_raw
"""

import posixpath

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

PACKAGE = "scal3r_ros"
NODE = "mapping_node"
TRUE_FALSE = ["true", "false"]


def generate_launch_description():
    config = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "mapping.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of all nodes started here."
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=config,
                description="YAML file with the node's parameters; arguments given here beat it.",
            ),
            DeclareLaunchArgument(
                "image_topic",
                default_value="image",
                description="Base topic of the camera images, without /compressed.",
            ),
            DeclareLaunchArgument(
                "camera_info_topic",
                default_value="",
                description="Calibration of the camera; empty takes camera_info beside the images.",
            ),
            DeclareLaunchArgument(
                "odom_topic",
                default_value="odom",
                description="Odometry, read only if the parameter input.odometry is true.",
            ),
            DeclareLaunchArgument(
                "imu_topic",
                default_value="imu",
                description="Inertial sensor, read only if the parameter map.alignment is imu.",
            ),
            DeclareLaunchArgument(
                "image_transport",
                default_value="",
                choices=["", "raw", "compressed"],
                description="raw or compressed (<image_topic>/compressed); empty leaves it to "
                "params_file.",
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="auto",
                choices=["auto", *TRUE_FALSE],
                description="Take time from /clock; auto does so when a bag is played.",
            ),
            DeclareLaunchArgument(
                "bag",
                default_value="",
                description="rosbag2 to play with /clock; at its end the rest of the stream is "
                "processed and the launch stops.",
            ),
            DeclareLaunchArgument(
                "bag_delay",
                default_value="5.0",
                description="Seconds before the bag starts, for the nodes to find each other.",
            ),
            DeclareLaunchArgument(
                "bag_rate", default_value="1.0", description="Speed of the bag, 1 is real time."
            ),
            DeclareLaunchArgument(
                "save_to",
                default_value="",
                description="Folder in which the map is saved on shutdown; empty leaves it to "
                "params_file.",
            ),
            DeclareLaunchArgument(
                "rviz", default_value="false", choices=TRUE_FALSE, description="Also start RViz."
            ),
            DeclareLaunchArgument(
                "device",
                default_value="",
                description="auto, cpu, cuda or cuda:N; empty leaves it to params_file.",
            ),
            DeclareLaunchArgument(
                "num_gpus",
                default_value="1",
                description="1 runs the network inside mapping_node; more start one "
                "reconstruction_node per GPU and the context_sync_node.",
            ),
            DeclareLaunchArgument(
                "remote_gpus",
                default_value="0",
                description="GPUs of other machines, on which multi_gpu.launch.py runs.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Least severity that the nodes log.",
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="true",
                choices=TRUE_FALSE,
                description="Configure and activate at start; false waits for a lifecycle manager.",
            ),
            OpaqueFunction(function=start_everything),
        ]
    )


def start_everything(context):
    """The nodes that the arguments ask for; runs when all of them are known."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    workers = int(given["num_gpus"]) + int(given["remote_gpus"])
    actions = [mapping_node(given, workers if workers > 1 else 0)]
    if workers > 1:
        actions.append(workers_on_this_machine(given))
    if given["rviz"] == "true":
        actions.append(rviz(given))
    if given["bag"]:
        actions += play_bag(given)
    return actions


ARGUMENTS = (
    "namespace", "params_file", "image_topic", "camera_info_topic", "odom_topic", "imu_topic",
    "image_transport", "use_sim_time", "bag", "bag_delay", "bag_rate", "save_to", "rviz", "device",
    "num_gpus", "remote_gpus", "log_level", "autostart",
)  # fmt: skip


def mapping_node(given, workers):
    """The node itself; only what the user gave overrides the parameter file."""
    image = given["image_topic"]
    info = given["camera_info_topic"] or posixpath.join(posixpath.dirname(image), "camera_info")
    overrides = {
        "use_sim_time": sim_time(given),
        "autostart": given["autostart"] == "true",
    }
    if given["image_transport"]:
        overrides["input.image_transport"] = given["image_transport"]
    if given["device"]:
        overrides["model.device"] = given["device"]
    if given["save_to"]:
        overrides["autosave.path"] = given["save_to"]
        overrides["autosave.on_shutdown"] = True
    if workers:
        overrides["worker.count"] = workers
    return Node(
        package=PACKAGE,
        executable=NODE,
        name=NODE,
        namespace=given["namespace"],
        parameters=[given["params_file"], overrides],
        remappings=[
            ("image", image),
            ("image/compressed", f"{image}/compressed"),
            ("camera_info", info),
            ("odom", given["odom_topic"]),
            ("imu", given["imu_topic"]),
        ],
        arguments=["--ros-args", "--log-level", f"{NODE}:={given['log_level']}"],
        output="screen",
        emulate_tty=True,
        sigterm_timeout="10",
    )


def workers_on_this_machine(given):
    launch_file = PathJoinSubstitution([FindPackageShare(PACKAGE), "launch", "multi_gpu.launch.py"])
    passed = ("namespace", "params_file", "num_gpus", "device", "log_level", "autostart")
    arguments = {name: given[name] for name in passed}
    arguments["world_size"] = str(int(given["num_gpus"]) + int(given["remote_gpus"]))
    arguments["use_sim_time"] = "true" if sim_time(given) else "false"
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(launch_file), launch_arguments=arguments.items()
    )


def rviz(given):
    config = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "mapping.rviz"])
    outputs = ("map", "cloud", "path", "graph", "depth", "odometry")
    moved = [(f"/{NODE}/{name}", f"{node_name(given)}/{name}") for name in outputs]
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        namespace=given["namespace"],
        arguments=["-d", config],
        parameters=[{"use_sim_time": sim_time(given)}],
        remappings=[*moved, ("/image", given["image_topic"])],
        output="log",
    )


def play_bag(given):
    """Play, then process the tail of the stream, then stop the launch."""
    play = ExecuteProcess(
        cmd=[
            "ros2", "bag", "play", given["bag"], "--clock", "100",
            "--rate", given["bag_rate"], "--delay", given["bag_delay"],
        ],
        output="screen",
    )  # fmt: skip
    flush = ExecuteProcess(
        cmd=["ros2", "service", "call", f"{node_name(given)}/flush", "std_srvs/srv/Trigger", "{}"],
        output="screen",
    )
    stop = EmitEvent(event=Shutdown(reason="the bag has ended"))
    return [
        play,
        RegisterEventHandler(
            OnProcessExit(target_action=play, on_exit=[LogInfo(msg="bag has ended"), flush])
        ),
        RegisterEventHandler(OnProcessExit(target_action=flush, on_exit=[stop])),
    ]


def sim_time(given):
    return given["use_sim_time"] == "true" or (
        given["use_sim_time"] == "auto" and bool(given["bag"])
    )


def node_name(given):
    return posixpath.join("/", given["namespace"].strip("/"), NODE)
