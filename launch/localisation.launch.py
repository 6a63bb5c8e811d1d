"""Find the camera in a saved map, which stays as it is.

ros2 launch scal3r_ros localisation.launch.py map:=~/maps/house image_topic:=/camera/image_raw
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from scal3r_ros.nodes.launching.parts import (
    argument,
    lifecycle_node,
    namespace,
    node_arguments,
    params_file,
    shared_file,
    values,
)

NODE = "mapping_node"


def generate_launch_description():
    return LaunchDescription([*arguments(), OpaqueFunction(function=start)])


def arguments():
    return [
        DeclareLaunchArgument("map", description="Folder with a saved map (~/save_map)."),
        namespace("Namespace of the node."),
        params_file(),
        argument("image_topic", "image", "Base topic of the camera images, without /compressed."),
        argument("camera_info_topic", "camera_info", "Calibration of the camera."),
        argument("odom_topic", "odom", "Odometry of the robot."),
        argument("tf_mode", "map_to_odom", "tf.mode; map_to_camera for a hand-held camera."),
        *node_arguments(),
    ]


def start(context):
    """The node with the shipped options, below those of params_file."""
    given = values(context, arguments())
    folder = Path(given["map"]).expanduser()
    if not (folder / "map_state.npz").is_file():
        raise FileNotFoundError(f"map:={given['map']} holds no saved map (map_state.npz)")
    image = given["image_topic"]
    overrides = {
        "mode": "localisation",
        "load_path": str(folder.absolute()),
        "tf.mode": given["tf_mode"],
    }
    given["params_file"] = given["params_file"] or shared_file("config", "localisation.yaml")
    return [
        lifecycle_node(
            given,
            NODE,
            given["namespace"],
            overrides,
            remappings=[
                ("image", image),
                ("image/compressed", f"{image}/compressed"),
                ("camera_info", given["camera_info_topic"]),
                ("odom", given["odom_topic"]),
            ],
        )
    ]
