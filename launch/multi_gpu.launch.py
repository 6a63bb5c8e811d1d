"""One reconstruction_node per GPU of this machine, and the context_sync_node that joins them.

mapping.launch.py num_gpus:=N includes this file. With mapping.launch.py workers:=alpha:2,beta:4 on
alpha, run on every further machine of the same DDS domain:

ros2 launch scal3r_ros multi_gpu.launch.py workers:=alpha:2,beta:4
"""

import posixpath

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from scal3r_ros.nodes.launching.parts import (
    TRUE_FALSE,
    argument,
    device,
    lifecycle_node,
    namespace,
    node_arguments,
    params_file,
    robot_namespace,
    values,
    worker_hosts,
)
from scal3r_ros.nodes.workers.hosts import node_prefix, parse_hosts

SHARED_TOPICS = ("context_state", "worker_state")


def generate_launch_description():
    return LaunchDescription([*arguments(), OpaqueFunction(function=start_nodes)])


def arguments():
    return [
        namespace("Namespace of the mapping_node to serve."),
        params_file(),
        *worker_hosts(),
        argument("num_gpus", "2", "Reconstruction nodes on this machine, unless workers tells."),
        argument(
            "world_size", "0", "Reconstruction nodes on all machines; 0 means those of this one."
        ),
        argument(
            "prefix",
            "gpu_",
            "Sub-namespace of each reconstruction_node, its number is appended; must differ "
            "between machines.",
        ),
        argument(
            "context_sync",
            "true",
            "Also start the context_sync_node; exactly one per robot.",
            TRUE_FALSE,
        ),
        device("cpu starts workers without GPUs; else worker i sees GPU i alone."),
        argument(
            "use_sim_time",
            "",
            "Take time from /clock; empty leaves it to the parameters.",
            ["", *TRUE_FALSE],
        ),
        *node_arguments(),
    ]


def start_nodes(context):
    """As many nodes as the arguments ask for; runs when all of them are known."""
    given = placed(values(context, arguments()))
    given["robot"] = robot_namespace(context, given["namespace"])
    count = int(given["num_gpus"])
    actions = [reconstruction_node(given, index) for index in range(count)]
    if given["context_sync"] == "true":
        size = int(given["world_size"]) or count
        actions.append(node(given, "context_sync_node", given["namespace"], {"workers": size}))
    return actions


def placed(given):
    """What this machine starts, if `workers` tells it, and where the group meets."""
    if not given["workers"]:
        return {**given, "address": ""}
    hosts = parse_hosts(given["workers"])
    own = hosts.own(given["host"])
    return {
        **given,
        "num_gpus": hosts.gpus[own],
        "world_size": hosts.total,
        "prefix": node_prefix(own),
        "context_sync": given["context_sync"] if own == hosts.first else "false",
        "address": hosts.address,
    }


def reconstruction_node(given, index):
    """Worker `index`; it shares the robot's control topics and sees one GPU as its cuda:0."""
    shared = [(topic, posixpath.join(given["robot"], topic)) for topic in SHARED_TOPICS]
    own = posixpath.join(given["namespace"], f"{given['prefix']}{index}")
    overrides = {"model.device": given["device"]} if given["device"] else {}
    environment = {} if given["device"] == "cpu" else {"CUDA_VISIBLE_DEVICES": str(index)}
    return node(
        given, "reconstruction_node", own, overrides, remappings=shared, additional_env=environment
    )


def node(given, executable, namespace, overrides, **more):
    if given["use_sim_time"]:
        overrides = {"use_sim_time": given["use_sim_time"] == "true", **overrides}
    if given["address"]:
        overrides["distributed.address"] = given["address"]
    return lifecycle_node(given, executable, namespace, overrides, **more)
