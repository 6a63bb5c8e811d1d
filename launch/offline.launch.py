"""Map a bag, a video or a folder of images as fast as it goes, without DDS.

ros2 launch scal3r_ros offline.launch.py bag:=drive.mcap out:=result
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch_ros.substitutions import ExecutableInPackage

from scal3r_ros.nodes.launching.parts import PACKAGE, after, argument, device, params_file, values


def generate_launch_description():
    return LaunchDescription([*arguments(), OpaqueFunction(function=reconstruct)])


def arguments():
    return [
        DeclareLaunchArgument("bag", description="rosbag2, video file or folder of images to map."),
        argument("out", "out/offline", "Folder for map, trajectory, pictures and report."),
        argument("image_topic", "", "Image topic of the bag; empty takes the only one."),
        params_file(),
        device(),
    ]


def reconstruct(context):
    """The command line's `scal3r reconstruct`; the launch ends with it, and fails if it does."""
    given = values(context, arguments())
    options = {
        "--out": given["out"],
        "--config": given["params_file"],
        "--topic": given["image_topic"],
        "--set": f"model.device={given['device']}" if given["device"] else "",
    }
    words = [word for option, value in options.items() if value for word in (option, value)]
    scal3r = ExecutableInPackage(package=PACKAGE, executable="scal3r")
    return [
        ExecuteProcess(
            cmd=[scal3r, "reconstruct", given["bag"], *words],
            output="screen",
            emulate_tty=True,
            on_exit=after("scal3r reconstruct"),
        )
    ]
