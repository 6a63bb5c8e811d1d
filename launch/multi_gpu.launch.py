"""One reconstruction_node per GPU of this machine, and the context_sync_node that joins them.

mapping.launch.py num_gpus:=N includes this file. On every further machine of the same DDS domain:

ros2 launch scal3r_ros multi_gpu.launch.py num_gpus:=2 context_sync:=false prefix:=second_gpu_
"""

import posixpath

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

PACKAGE = "scal3r_ros"
TRUE_FALSE = ["true", "false"]
SHARED_TOPICS = ("context_state", "worker_state")


def generate_launch_description():
    config = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "mapping.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the mapping_node to serve."
            ),
            DeclareLaunchArgument(
                "params_file", default_value=config, description="YAML file with the parameters."
            ),
            DeclareLaunchArgument(
                "num_gpus", default_value="2", description="Reconstruction nodes on this machine."
            ),
            DeclareLaunchArgument(
                "world_size",
                default_value="0",
                description="Reconstruction nodes on all machines; 0 means those of this one.",
            ),
            DeclareLaunchArgument(
                "prefix",
                default_value="gpu_",
                description="Sub-namespace of each reconstruction_node, its number is appended; "
                "must differ between machines.",
            ),
            DeclareLaunchArgument(
                "context_sync",
                default_value="true",
                choices=TRUE_FALSE,
                description="Also start the context_sync_node; exactly one per robot.",
            ),
            DeclareLaunchArgument(
                "device",
                default_value="",
                description="cpu starts workers without GPUs; else worker i sees GPU i alone.",
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=TRUE_FALSE,
                description="Take time from /clock.",
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
            OpaqueFunction(function=start_nodes),
        ]
    )


def start_nodes(context):
    """As many nodes as the arguments ask for; runs when all of them are known."""
    names = (
        "namespace", "params_file", "num_gpus", "world_size", "prefix", "context_sync", "device",
        "use_sim_time", "log_level", "autostart",
    )  # fmt: skip
    given = {name: LaunchConfiguration(name).perform(context) for name in names}
    count = int(given["num_gpus"])
    actions = [reconstruction_node(given, index) for index in range(count)]
    if given["context_sync"] == "true":
        size = int(given["world_size"]) or count
        actions.append(node(given, "context_sync_node", given["namespace"], {"workers": size}))
    return actions


def reconstruction_node(given, index):
    """Worker `index`; it shares the robot's control topics and sees one GPU as its cuda:0."""
    robot = posixpath.join("/", given["namespace"].strip("/"))
    shared = [(topic, posixpath.join(robot, topic)) for topic in SHARED_TOPICS]
    own = posixpath.join(given["namespace"], f"{given['prefix']}{index}")
    overrides = {"model.device": given["device"]} if given["device"] else {}
    environment = {} if given["device"] == "cpu" else {"CUDA_VISIBLE_DEVICES": str(index)}
    return node(
        given, "reconstruction_node", own, overrides, remappings=shared, additional_env=environment
    )


def node(given, executable, namespace, overrides, **arguments):
    overrides = {
        "use_sim_time": given["use_sim_time"] == "true",
        "autostart": given["autostart"] == "true",
        **overrides,
    }
    return Node(
        package=PACKAGE,
        executable=executable,
        name=executable,
        namespace=namespace,
        parameters=[given["params_file"], overrides],
        arguments=["--ros-args", "--log-level", f"{executable}:={given['log_level']}"],
        output="screen",
        emulate_tty=True,
        sigterm_timeout="10",
        **arguments,
    )
