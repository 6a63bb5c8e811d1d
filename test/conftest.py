"""Fixtures that every test may use.

Real ROS: a DDS domain of the test run's own on this machine, and deadlines, no sleeps.
"""

import fcntl
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real sequences; they are not part of the repository."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("SCAL3R_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real sequences are absent: set SCAL3R_TEST_DATA (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def ros_domain(tmp_path_factory):
    """Number of a DDS domain that no other test run on this machine uses.

    Child processes inherit it. A lock per domain, held while the tests run, keeps runs apart.
    """
    folder = Path(tempfile.gettempdir()) / "scal3r_ros_test_domains"
    folder.mkdir(exist_ok=True)
    for domain in range(20, 100):
        lock = (folder / str(domain)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ["ROS_LOG_DIR"] = str(tmp_path_factory.mktemp("ros_log"))
        os.environ.pop("ROS_STATIC_PEERS", None)
        yield domain
        lock.close()
        return
    pytest.fail("80 other test runs seem to be using DDS on this machine")


@pytest.fixture
def ros(ros_domain):
    """rclpy, initialised for one test; its nodes are destroyed by the test or with the context."""
    rclpy = pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
    rclpy.init()
    yield rclpy
    rclpy.try_shutdown()


@pytest.fixture
def node(ros):
    """A plain node that a test may publish, subscribe and call services with."""
    node = ros.create_node("test_node")
    yield node
    node.destroy_node()


@pytest.fixture
def spin_until(ros):
    """`spin_until(condition, node, ..., timeout=10)`: spin the nodes until `condition()` holds.

    Returns what the condition gave; fails the test at the deadline.
    """
    executors = []

    def spin(condition, *nodes, timeout: float = 10.0, what: str = ""):
        from rclpy.executors import SingleThreadedExecutor

        executor = SingleThreadedExecutor()
        executors.append(executor)
        for item in nodes:
            executor.add_node(item)
        deadline = time.monotonic() + timeout
        try:
            while not (result := condition()):
                assert time.monotonic() < deadline, f"{what or 'condition'}: not within {timeout} s"
                executor.spin_once(timeout_sec=0.05)
            return result
        finally:
            for item in nodes:
                executor.remove_node(item)

    yield spin
    for executor in executors:
        executor.shutdown()


@pytest.fixture
def start_mapping(ros_domain, tmp_path):
    """Start `mapping_node` with a network whose answers are known; it is killed after the test."""
    from mapping_process import MappingProcess

    started = []

    def start(options: dict | None = None, **parameters):
        process = MappingProcess(tmp_path / f"node_{len(started)}.log", options, **parameters)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def make_robot(ros):
    """Make a `Robot`: camera and listener in this process."""
    from mapping_process import Robot

    made = []

    def make(options: dict | None = None, **more):
        made.append(Robot(ros, options, **more))
        return made[-1]

    yield make
    for robot in made:
        robot.close()


def pytest_configure() -> None:
    """A run started in the background ignores Ctrl-C and hands that on to the processes it starts;
    tests that interrupt them need the usual answer. Numerical libraries get one thread: inputs are
    small, and threads that wait for each other on shared cores take three times as long."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that runs that share the tests end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
