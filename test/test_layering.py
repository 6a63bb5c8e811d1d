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
    "files": 0, "rigid": 0, "scratch": 0, "stopwatch": 0, "texts": 0,
    "threads": 0,
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


def test_no_circles():
    """Not even through imports inside functions or for types: each module can be read alone."""
    modules = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    imports = {
        name: {n for n in imported_modules(path) if n in modules and n != name}
        for name, path in modules.items()
    }
    circles = [sorted(circle) for circle in strongly_connected(imports) if len(circle) > 1]
    assert not circles, f"modules that import each other: {circles}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def strongly_connected(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of nodes that reach each other, by Kosaraju's two sweeps."""
    order: list[str] = []
    seen: set[str] = set()
    backwards: dict[str, set[str]] = {node: set() for node in graph}
    for node, targets in graph.items():
        for target in targets:
            backwards[target].add(node)

    def visit(node: str, edges: dict[str, set[str]], done: list[str]) -> None:
        stack = [(node, iter(edges[node]))]
        seen.add(node)
        while stack:
            current, targets = stack[-1]
            following = next((t for t in targets if t not in seen), None)
            if following is None:
                done.append(stack.pop()[0])
            else:
                seen.add(following)
                stack.append((following, iter(edges[following])))

    for node in graph:
        if node not in seen:
            visit(node, graph, order)
    seen.clear()
    groups = []
    for node in reversed(order):
        if node not in seen:
            group: list[str] = []
            visit(node, backwards, group)
            groups.append(set(group))
    return groups


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"f"}}
    assert {"a", "b", "c"} in strongly_connected(graph)
    assert sorted(map(len, strongly_connected(graph))) == [1, 1, 1, 3]


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
