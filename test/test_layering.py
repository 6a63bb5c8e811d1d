"""Imports only point down, and importing the package needs neither torch nor ROS."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "scal3r_ros"
LAYER = {
    "nodes": 6, "cli": 6, "train": 6, "bench": 6, "benchmarks": 6,
    "pipeline": 5,
    "workers": 4, "tracking": 4,
    "reconstruct": 3, "io": 3,
    "networks": 2, "mapping": 2,
    "config": 1, "options": 1, "records": 1,
    "files": 0, "rigid": 0, "scratch": 0, "stopwatch": 0, "threads": 0,
}  # fmt: skip
SIDE_BY_SIDE = {"networks", "mapping"}
"""Rooms of one layer that do not know each other."""
ROS = {"rclpy", "sensor_msgs", "geometry_msgs", "nav_msgs", "std_msgs", "std_srvs", "tf2_msgs"}
ROS |= {"tf2_ros", "cv_bridge", "sensor_msgs_py", "tf_transformations", "visualization_msgs"}
ROS |= {"diagnostic_msgs", "lifecycle_msgs", "builtin_interfaces", "rosgraph_msgs"}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem != "__init__")


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def group_of(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py").split("_")[0] if part.endswith(".py") else part


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    group = group_of(path)
    names = imported_modules(path)
    ours = {n.split(".")[1] for n in names if n.startswith("scal3r_ros.") and n.count(".") >= 1}
    for target in ours & LAYER.keys():
        apart = target != group and target in SIDE_BY_SIDE and group in SIDE_BY_SIDE
        assert LAYER[target] <= LAYER[group] and not apart, f"{path.name} imports {target}"
    roots = {n.split(".")[0] for n in names}
    if group != "nodes":
        assert not roots & ROS, f"{path.name} imports ROS: {roots & ROS}"
    if group in ("networks", "workers"):
        assert "scipy" not in roots
    if group == "mapping":
        assert "torch" not in roots
    if LAYER[group] <= 1:
        assert not roots & {"torch", "scipy", "cv2"}


def test_importing_the_package_is_light():
    script = (
        "import sys, scal3r_ros, scal3r_ros.config, scal3r_ros.records, scal3r_ros.pipeline\n"
        "heavy = {'torch', 'rclpy', 'scipy', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PACKAGE.parent)


def test_helpers_of_tests_have_names_of_their_own():
    """They are imported by base name: of two with one name, the first would stand for both."""
    paths = [path for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]
    names = [path.name for path in paths if not path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))
