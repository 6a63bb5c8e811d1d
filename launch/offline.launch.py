"""Map a bag, a video or a folder of images as fast as it goes, without DDS.

ros2 launch scal3r_ros offline.launch.py bag:=drive.mcap out:=result
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

PACKAGE = "scal3r_ros"


def generate_launch_description():
    config = PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "mapping.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "bag", description="rosbag2, video file or folder of images to map."
            ),
            DeclareLaunchArgument(
                "out",
                default_value="out/offline",
                description="Folder for map, trajectory, pictures and report.",
            ),
            DeclareLaunchArgument(
                "image_topic",
                default_value="",
                description="Image topic of the bag; empty takes the only one.",
            ),
            DeclareLaunchArgument(
                "params_file", default_value=config, description="YAML file with the parameters."
            ),
            DeclareLaunchArgument(
                "device",
                default_value="",
                description="auto, cpu, cuda or cuda:N; empty leaves it to params_file.",
            ),
            OpaqueFunction(function=reconstruct),
        ]
    )


def reconstruct(context):
    """The command line's `scal3r reconstruct`; the launch ends with it and has its exit code."""
    names = ("bag", "out", "image_topic", "params_file", "device")
    given = {name: LaunchConfiguration(name).perform(context) for name in names}
    options = {
        "--out": given["out"],
        "--config": given["params_file"],
        "--topic": given["image_topic"],
        "--device": given["device"],
    }
    words = [word for option, value in options.items() if value for word in (option, value)]
    scal3r = ExecutableInPackage(package=PACKAGE, executable="scal3r")
    return [
        ExecuteProcess(
            cmd=[scal3r, "reconstruct", given["bag"], *words], output="screen", emulate_tty=True
        )
    ]
