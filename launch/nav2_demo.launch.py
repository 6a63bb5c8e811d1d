"""One camera and odometry in, a robot that drives: the mapper with its grid, and Nav2 on it.

ros2 launch scal3r_ros nav2_demo.launch.py image_topic:=/camera/image_raw odom_topic:=/odom

Where nav2_bringup is not installed the grid is published all the same, and a line says so.
"""

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, LogInfo, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from scal3r_ros.nodes.launching.parts import (
    TRUE_FALSE,
    argument,
    installed,
    shared_file,
    values,
)

NAVIGATION = "nav2_bringup"


def generate_launch_description():
    return LaunchDescription([*arguments(), OpaqueFunction(function=start_everything)])


def arguments():
    return [
        argument("image_topic", "image", "Base topic of the camera images, without /compressed."),
        argument("odom_topic", "odom", "Odometry of the robot's base, which gives the metres."),
        argument("params_file", "", "Parameters of mapping_node; empty takes config/nav2.yaml."),
        argument(
            "nav2_params_file",
            "",
            "Parameters of Nav2; empty takes its own, which know nothing of this camera: merge "
            "config/nav2_costmaps.yaml into them.",
        ),
        argument("navigation", "true", "Also start Nav2, if it is installed.", TRUE_FALSE),
        argument("rviz", "false", "Also start RViz.", TRUE_FALSE),
    ]


def start_everything(context):
    given = values(context, arguments())
    return [mapping(given), *navigation(given)]


def mapping(given):
    """The mapper, by the launch file that everybody uses."""
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(shared_file("launch", "mapping.launch.py")),
        launch_arguments={
            "params_file": given["params_file"] or shared_file("config", "nav2.yaml"),
            "image_topic": given["image_topic"],
            "odom_topic": given["odom_topic"],
            "rviz": given["rviz"],
            "respawn": "true",
        }.items(),
    )


def navigation(given):
    """Controllers and planners of Nav2 without a localiser: the mapper is one."""
    if given["navigation"] == "false":
        return []
    if not installed(NAVIGATION):
        return [LogInfo(msg=f"{NAVIGATION} is not installed: the grid is published without it")]
    file = PathJoinSubstitution([FindPackageShare(NAVIGATION), "launch", "navigation_launch.py"])
    more = {"params_file": given["nav2_params_file"]} if given["nav2_params_file"] else {}
    return [
        IncludeLaunchDescription(PythonLaunchDescriptionSource(file), launch_arguments=more.items())
    ]
