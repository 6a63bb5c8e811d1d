"""The bundled bag of a synthetic room: CPU, no weights to download, no camera.

ros2 launch scal3r_ros demo.launch.py rviz:=true
"""

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from scal3r_ros.nodes.launching.parts import TRUE_FALSE, argument, shared_file


def generate_launch_description():
    return LaunchDescription(
        [
            argument("rviz", "false", "Also start RViz.", TRUE_FALSE),
            argument("bag_rate", "0.25", "Speed of the bag, 1 is real time."),
            argument("save_to", "out/demo", "Folder for the map."),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(shared_file("launch", "mapping.launch.py")),
                launch_arguments={
                    "bag": shared_file("demo", "loop_room"),
                    "params_file": shared_file("config", "demo.yaml"),
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
