"""Imports only point down, and importing the package needs neither torch nor ROS."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "scal3r_ros"
LAYER = {
    "nodes": 3, "cli": 3, "train": 3, "bench": 3,
    "pipeline": 2, "io": 2,
    "model": 1, "mapping": 1, "distributed": 1,
    "config": 0, "options": 0, "records": 0,
}  # fmt: skip
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
        same = target == group or LAYER[group] in (0, 2, 3)
        assert LAYER[target] < LAYER[group] or (LAYER[target] == LAYER[group] and same), (
            f"{path.name} imports {target}"
        )
    roots = {n.split(".")[0] for n in names}
    if group != "nodes":
        assert not roots & ROS, f"{path.name} imports ROS: {roots & ROS}"
    if group in ("model", "distributed"):
        assert "scipy" not in roots
    if group == "mapping":
        assert "torch" not in roots
    if LAYER[group] == 0:
        assert not roots & {"torch", "scipy", "cv2"}


def test_importing_the_package_is_light():
    script = (
        "import sys, scal3r_ros, scal3r_ros.config, scal3r_ros.records, scal3r_ros.pipeline\n"
        "heavy = {'torch', 'rclpy', 'scipy', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PACKAGE.parent)


def test_test_modules_have_names_of_their_own():
    """pytest imports them by base name: of two with one name, the first would stand for both."""
    paths = [path for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]
    names = [path.name for path in paths]
    assert sorted(names) == sorted(set(names))
