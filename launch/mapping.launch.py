"""Camera stream or bag in, poses and map out.

ros2 launch scal3r_ros mapping.launch.py image_topic:=/camera/image_raw
"""

import posixpath
from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
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
from launch_ros.actions import Node

from scal3r_ros.nodes.launching.parts import (
    TRUE_FALSE,
    after,
    argument,
    device,
    lifecycle_node,
    namespace,
    needed,
    node_arguments,
    params_file,
    robot_namespace,
    shared_file,
    values,
    worker_hosts,
)
from scal3r_ros.nodes.workers.hosts import parse_hosts

NODE = "mapping_node"


def generate_launch_description():
    return LaunchDescription([*arguments(), OpaqueFunction(function=start_everything)])


def arguments():
    return [*stream_arguments(), *bag_arguments(), *machine_arguments(), *node_arguments()]


def stream_arguments():
    """Where images and measurements come from."""
    return [
        namespace("Namespace of all nodes started here."),
        params_file(),
        argument("image_topic", "image", "Base topic of the camera images, without /compressed."),
        argument(
            "camera_info_topic",
            "",
            "Calibration of the camera; empty takes camera_info beside the images.",
        ),
        argument(
            "odom_topic", "odom", "Odometry, read only if the parameter input.odometry is true."
        ),
        argument(
            "imu_topic",
            "imu",
            "Inertial sensor, read only if the parameter map.alignment is imu.",
        ),
        argument(
            "depth_topic",
            "depth",
            "Registered depth images, read only if the parameter scale.source is depth.",
        ),
        argument(
            "image_transport",
            "",
            "raw or compressed (<image_topic>/compressed); empty leaves it to params_file.",
            ["", "raw", "compressed"],
        ),
        argument(
            "use_sim_time",
            "auto",
            "Take time from /clock; auto does so when a bag is played, and else leaves it to the "
            "parameters.",
            ["auto", *TRUE_FALSE],
        ),
    ]


def bag_arguments():
    """A recording in place of a camera, and what is kept."""
    return [
        argument(
            "bag",
            "",
            "rosbag2 to play with /clock; at its end the rest of the stream is processed and the "
            "launch stops.",
        ),
        argument(
            "bag_delay", "5.0", "Seconds before the bag starts, for the nodes to find each other."
        ),
        argument("bag_rate", "1.0", "Speed of the bag, 1 is real time."),
        argument(
            "save_to",
            "",
            "Folder in which the map is saved on shutdown; empty leaves it to params_file.",
        ),
        argument("rviz", "false", "Also start RViz.", TRUE_FALSE),
    ]


def machine_arguments():
    """Where the network runs."""
    return [
        device(),
        argument(
            "num_gpus",
            "1",
            "1 runs the network inside mapping_node; more start one reconstruction_node per GPU "
            "and the context_sync_node.",
        ),
        argument("remote_gpus", "0", "GPUs of other machines, on which multi_gpu.launch.py runs."),
        *worker_hosts(),
    ]


def start_everything(context):
    """The nodes that the arguments ask for; runs when all of them are known."""
    given = values(context, arguments())
    given["robot"] = robot_namespace(context, given["namespace"])
    if given["bag"] and not Path(given["bag"]).exists():
        raise FileNotFoundError(f"bag:={given['bag']} does not exist; give a rosbag2 to play")
    workers = worker_count(given)
    actions = [mapping_node(given, workers)]
    if workers:
        actions.append(workers_on_this_machine(given))
    actions += what_others_start(given)
    if given["rviz"] == "true":
        actions.append(rviz(given))
    if given["bag"]:
        actions += play_bag(given)
    return actions


def worker_count(given):
    """Reconstruction nodes on all machines; 0 if mapping_node runs the network itself."""
    if not given["workers"]:
        count = int(given["num_gpus"]) + int(given["remote_gpus"])
        return count if count > 1 else 0
    if (given["num_gpus"], given["remote_gpus"]) != ("1", "0"):
        raise ValueError("give either workers:= or num_gpus:= and remote_gpus:=, not both")
    hosts = parse_hosts(given["workers"])
    own = hosts.own(given["host"])
    if own != hosts.first:
        raise ValueError(
            f"mapping.launch.py belongs on {hosts.first}, the first machine of workers:={hosts}; "
            f"on this one ({own}) start multi_gpu.launch.py with the same workers:="
        )
    return hosts.total if hosts.total > 1 or hosts.others else 0


def what_others_start(given):
    """A line per further machine, to be copied there."""
    hosts = parse_hosts(given["workers"]).others if given["workers"] else []
    words = ["ros2 launch scal3r_ros multi_gpu.launch.py", f"workers:={given['workers']}"]
    words += [f"namespace:={given['robot'].strip('/')}"] if given["robot"] != "/" else []
    command = " ".join(words)
    same = "with the same parameters and the same distributed.secret_file"
    return [LogInfo(msg=f"on {host}, {same}: {command}") for host in hosts]


def mapping_node(given, workers):
    """The node itself."""
    image = given["image_topic"]
    info = given["camera_info_topic"] or posixpath.join(posixpath.dirname(image), "camera_info")
    simulated = sim_time(given)
    overrides = {} if simulated is None else {"use_sim_time": simulated}
    if given["image_transport"]:
        overrides["input.image_transport"] = given["image_transport"]
    if given["device"]:
        overrides["model.device"] = given["device"]
    if given["save_to"]:
        overrides["autosave.path"] = given["save_to"]
        overrides["autosave.on_shutdown"] = True
    if workers:
        overrides["worker.count"] = workers
    return lifecycle_node(
        given,
        NODE,
        given["namespace"],
        overrides,
        remappings=[
            ("image", image),
            ("image/compressed", f"{image}/compressed"),
            ("camera_info", info),
            ("odom", given["odom_topic"]),
            ("imu", given["imu_topic"]),
            ("depth", given["depth_topic"]),
        ],
        **({"on_exit": needed(NODE)} if given["bag"] and given["respawn"] == "false" else {}),
    )


def workers_on_this_machine(given):
    launch_file = shared_file("launch", "multi_gpu.launch.py")
    passed = (
        "namespace", "params_file", "workers", "host", "num_gpus", "device", "log_level",
        "autostart", "respawn",
    )  # fmt: skip
    chosen = {name: given[name] for name in passed}
    chosen["world_size"] = str(int(given["num_gpus"]) + int(given["remote_gpus"]))
    chosen["use_sim_time"] = {True: "true", False: "false", None: ""}[sim_time(given)]
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(launch_file), launch_arguments=chosen.items()
    )


def rviz(given):
    outputs = ("map", "cloud", "path", "graph", "depth", "odometry")
    moved = [(f"/{NODE}/{name}", posixpath.join(given["robot"], NODE, name)) for name in outputs]
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        namespace=given["namespace"],
        arguments=["-d", shared_file("config", "mapping.rviz")],
        parameters=[{"use_sim_time": True}] if sim_time(given) else [],
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
        cmd=[
            "ros2",
            "service",
            "call",
            posixpath.join(given["robot"], NODE, "flush"),
            "std_srvs/srv/Trigger",
            "{}",
        ],
        output="screen",
    )
    stop = EmitEvent(event=Shutdown(reason="the bag has ended"))
    ended = after("playing the bag", [LogInfo(msg="bag has ended"), flush])
    return [
        play,
        RegisterEventHandler(OnProcessExit(target_action=play, on_exit=ended)),
        RegisterEventHandler(
            OnProcessExit(target_action=flush, on_exit=after("the flush", [stop]))
        ),
    ]


def sim_time(given):
    """Whether time comes from /clock; None leaves it to the parameters."""
    if given["use_sim_time"] == "auto":
        return True if given["bag"] else None
    return given["use_sim_time"] == "true"
