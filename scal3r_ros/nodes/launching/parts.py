"""What the launch files share: arguments with one wording, and nodes that are started alike."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

PACKAGE = "scal3r_ros"
TRUE_FALSE = ["true", "false"]


def argument(name, default, description, choices=None):
    """An argument with its text for `--show-args`."""
    limits = {"choices": choices} if choices else {}
    return DeclareLaunchArgument(name, default_value=default, description=description, **limits)


def namespace(description):
    return argument("namespace", "", description)


def params_file():
    """None by default: a file would beat the values of an including launch file."""
    return argument(
        "params_file",
        "",
        "YAML file with the parameters, as config/mapping.yaml of the package; arguments given "
        "here beat it, and it beats the values of an including launch file.",
    )


def device(description="auto, cpu, cuda or cuda:N; empty leaves it to params_file."):
    return argument("device", "", description)


def worker_hosts():
    """Machines that reconstruct together; the same text on all of them."""
    return [
        argument(
            "workers",
            "",
            "Machines and their GPUs, such as alpha:2,beta:4, the same on all of them; the first "
            "one runs mapping.launch.py, the others multi_gpu.launch.py.",
        ),
        argument("host", "", "Which entry of workers this machine is; empty goes by host name."),
    ]


def node_arguments():
    """Arguments that reach every node unchanged."""
    return [
        argument(
            "log_level",
            "info",
            "Least severity that the nodes log.",
            ["debug", "info", "warn", "error", "fatal"],
        ),
        argument(
            "autostart",
            "",
            "Configure and activate at start; false waits for a lifecycle manager, empty leaves "
            "it to the parameters, where true is the default.",
            ["", *TRUE_FALSE],
        ),
        argument("respawn", "false", "Start a node again that has died.", TRUE_FALSE),
    ]


def values(context, declared):
    """Name to text of the declared arguments, when all of them are known."""
    return {item.name: LaunchConfiguration(item.name).perform(context) for item in declared}


def robot_namespace(context, namespace):
    """Absolute namespace of what is started here, that of PushRosNamespace included."""
    pushed = context.launch_configurations.get("ros_namespace", "")
    return posixpath.join("/", pushed, namespace).rstrip("/") or "/"


def after(what, then=()):
    """What follows when a process has ended: actions, or the end of the launch if it failed."""

    def on_exit(event, context):
        if event.returncode and not context.is_shutdown:
            raise RuntimeError(f"{what} failed with exit code {event.returncode}; see above")
        return list(then)

    return on_exit


def needed(what):
    """Without this process the others would wait for ever: the launch fails when it ends."""

    def on_exit(event, context):
        if not context.is_shutdown:
            raise RuntimeError(f"{what} ended too early (exit code {event.returncode}); see above")

    return on_exit


def installed(package):
    """Whether a ROS package is installed, by the index of its resources in every prefix."""
    marker = Path("share", "ament_index", "resource_index", "packages", package)
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return any((Path(prefix) / marker).exists() for prefix in prefixes if prefix)


def shared_file(*parts):
    """A file of the installed package."""
    return PathJoinSubstitution([FindPackageShare(PACKAGE), *parts])


def lifecycle_node(given, executable, namespace, overrides, **more):
    """A node of this package; only what the user gave overrides the parameter file, and that the
    values of an including launch file."""
    if given["autostart"]:
        overrides = {"autostart": given["autostart"] == "true", **overrides}
    return Node(
        package=PACKAGE,
        executable=executable,
        name=executable,
        namespace=namespace,
        parameters=[part for part in (given["params_file"], overrides) if part],
        arguments=["--ros-args", "--log-level", f"{executable}:={given['log_level']}"],
        output="screen",
        emulate_tty=True,
        sigterm_timeout="10",
        respawn=given["respawn"] == "true",
        respawn_delay=2.0,
        **more,
    )
