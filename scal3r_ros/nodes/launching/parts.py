"""What the launch files share: arguments with one wording, and nodes that are started alike."""

from __future__ import annotations

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
    return argument(
        "params_file",
        shared_file("config", "mapping.yaml"),
        "YAML file with the parameters; arguments given here beat it.",
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
            "true",
            "Configure and activate at start; false waits for a lifecycle manager.",
            TRUE_FALSE,
        ),
    ]


def values(context, declared):
    """Name to text of the declared arguments, when all of them are known."""
    return {item.name: LaunchConfiguration(item.name).perform(context) for item in declared}


def shared_file(*parts):
    """A file of the installed package."""
    return PathJoinSubstitution([FindPackageShare(PACKAGE), *parts])


def lifecycle_node(given, executable, namespace, overrides, **more):
    """A node of this package; only what the user gave overrides the parameter file."""
    overrides = {"autostart": given["autostart"] == "true", **overrides}
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
        **more,
    )
