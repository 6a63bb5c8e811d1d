"""A plain `colcon build` of the repository installs what ROS users run; `colcon test` tests it."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(1200)]
pytest.importorskip("rclpy", reason="rclpy is absent")
pytest.importorskip("colcon_core", reason="colcon is absent")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> Path:
    """Folder with a copying installation of the package, built from a copy of the sources."""
    base = tmp_path_factory.mktemp("colcon")
    unwanted = shutil.ignore_patterns(".*", "build", "install", "log", "out", "__pycache__")
    source = Path(shutil.copytree(ROOT, base / "source", ignore=unwanted))
    stale = source / "scal3r_ros" / "__pycache__" / "deleted_module.cpython-311.pyc"
    stale.parent.mkdir()
    stale.write_bytes(b"left by a run from the checkout")
    options = ["--merge-install", "--cmake-args", f"-DPython3_EXECUTABLE={sys.executable}"]
    done = colcon(base, "build", *options, "-Wno-author")
    assert done.returncode == 0, done.stdout + done.stderr
    return base / "install"


def colcon(base: Path, verb: str, *options: str, **more: str) -> subprocess.CompletedProcess:
    """Run colcon on the copied sources, in a sourced environment."""
    command = [sys.executable, "-m", "colcon", "--log-base", base / "log", verb]
    command += ["--paths", base / "source", "--build-base", base / "build"]
    command += ["--install-base", base / "install", *options]
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    environment["AMENT_PREFIX_PATH"] = environment["CMAKE_PREFIX_PATH"] = sys.prefix
    environment |= more
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=base)


@pytest.fixture(scope="module")
def source(prefix) -> Path:
    """The copied sources, which do not change while the tests run."""
    return prefix.parent / "source"


@pytest.fixture
def environment(prefix, ros_domain) -> dict[str, str]:
    """What sourcing the installation would set."""
    site = prefix / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    return dict(
        os.environ,
        PYTHONPATH=str(site),
        AMENT_PREFIX_PATH=f"{prefix}:{sys.prefix}",
        LD_LIBRARY_PATH=f"{prefix / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
    )


def test_everything_is_installed(prefix, source):
    share = prefix / "share" / "scal3r_ros"
    for path in ("package.xml", "msg/Chunk.msg", "srv/SaveMap.srv", "config/mapping.rviz"):
        assert (share / path).is_file(), path
    for path in source.glob("launch/*.launch.py"):
        assert (share / "launch" / path.name).is_file()
    for path in (source / "demo").rglob("*"):
        assert (share / "demo" / path.relative_to(source / "demo")).exists()
    for name in ("mapping_node", "reconstruction_node", "context_sync_node", "scal3r"):
        assert os.access(prefix / "lib" / "scal3r_ros" / name, os.X_OK), name
    assert os.access(prefix / "bin" / "scal3r", os.X_OK)
    assert not [path for path in prefix.rglob("*") if path.is_symlink() and "scal3r" in path.name]
    assert not list(prefix.rglob("deleted_module*"))  # caches of the checkout stay behind


def test_every_module_is_installed(source, environment):
    site = Path(environment["PYTHONPATH"])
    for path in (source / "scal3r_ros").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (site / "scal3r_ros" / path.relative_to(source / "scal3r_ros")).is_file(), path


@pytest.mark.parametrize("name", ["mapping_node", "reconstruction_node", "context_sync_node"])
def test_an_installed_node_starts_and_stops(prefix, environment, tmp_path, name):
    command = [prefix / "lib" / "scal3r_ros" / name, "--ros-args", "-p", "autostart:=false"]
    command += ["--params-file", prefix / "share" / "scal3r_ros" / "config" / "mapping.yaml"]
    query = "\n".join([
        "import rclpy, time",
        "rclpy.init()",
        "node = rclpy.create_node('probe')",
        "end = time.monotonic() + 20",
        f"while time.monotonic() < end and '{name}' not in node.get_node_names():",
        "    time.sleep(0.1)",
        "print(node.get_node_names())",
    ])  # fmt: skip
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        seen = subprocess.run(
            [sys.executable, "-c", query], env=environment, capture_output=True, text=True
        )
        assert name in seen.stdout, seen.stderr
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0 and "Traceback" not in errors, errors
        assert "unknown option" not in errors, errors
        assert time.monotonic() - start < 5
    finally:
        process.kill()


def test_the_installed_package_is_the_one_that_runs(environment, tmp_path):
    code = (
        "import scal3r_ros.msg; from scal3r_ros.nodes.launching import play; print(play.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.startswith(environment["PYTHONPATH"]), done.stdout + done.stderr


def test_colcon_test_runs_our_pytest(prefix):
    """A few tests stand for all: how they are found and reported is what is tested here."""
    base = prefix.parent
    done = colcon(base, "test", "--merge-install", PYTEST_ADDOPTS="-k test_sim3.py")
    assert done.returncode == 0, done.stdout + done.stderr
    results = ElementTree.parse(next((base / "build").rglob("pytest.xunit.xml")))
    (suite,) = results.iter("testsuite")
    assert suite.get("errors") == suite.get("failures") == "0", done.stdout
    assert int(suite.get("tests")) >= 9
    command = [sys.executable, "-m", "colcon", "test-result", "--test-result-base", base / "build"]
    assert subprocess.run([*command, "--verbose"], cwd=base).returncode == 0
