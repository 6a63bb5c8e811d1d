"""The bundled bag of a synthetic room: CPU, no weights to download, no camera.

ros2 launch scal3r_ros demo.launch.py rviz:=true
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

PACKAGE = "scal3r_ros"


def generate_launch_description():
    share = FindPackageShare(PACKAGE)
    mapping = PathJoinSubstitution([share, "launch", "mapping.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "rviz",
                default_value="false",
                choices=["true", "false"],
                description="Also start RViz.",
            ),
            DeclareLaunchArgument(
                "bag_rate", default_value="0.25", description="Speed of the bag, 1 is real time."
            ),
            DeclareLaunchArgument(
                "save_to", default_value="out/demo", description="Folder for the map."
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(mapping),
                launch_arguments={
                    "bag": PathJoinSubstitution([share, "demo", "loop_room"]),
                    "params_file": PathJoinSubstitution([share, "config", "demo.yaml"]),
                    "image_topic": "/camera/image_raw",
                    "image_transport": "compressed",
                    "device": "cpu",
                    "rviz": LaunchConfiguration("rviz"),
                    "bag_rate": LaunchConfiguration("bag_rate"),
                    "save_to": LaunchConfiguration("save_to"),
                }.items(),
            ),
        ]
    )
