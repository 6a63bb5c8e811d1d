"""Workers as real processes on real DDS: they come, die, stop, return; results stay the same."""

import signal
import threading

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
pytest.importorskip("torch", reason="torch is absent; run the tests with `make test`")

from crew import make_chunk, of_mixed_sizes, tiny_network  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from worker_processes import (  # noqa: E402
    BLIND,
    CRAMPED,
    FIRST,
    ROOM,
    SECOND,
    SYNC,
    THIRD,
    WAITS,
    Robot,
    wait_for,
)

from scal3r_ros.config import DistributedConfig  # noqa: E402
from scal3r_ros.reconstruct.interface import OutOfDeviceMemory, ReconstructionFailed  # noqa: E402
from scal3r_ros.srv import LoadContext, SaveContext  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(240)]
OPTIONS = {name.removeprefix("distributed."): value for name, value in WAITS.items()}
PATIENCE = 60.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from scal3r_ros.networks.scal3r.checkpoint import save_checkpoint

    network = tiny_network()
    folder = tmp_path_factory.mktemp("weights")
    return save_checkpoint(network.state_dict(), network.architecture, folder, "tiny")[0]


@pytest.fixture
def alone(checkpoint):
    """The same network in this process."""
    from scal3r_ros.config import MemoryConfig, ModelConfig
    from scal3r_ros.reconstruct.scal3r.setup import open_scal3r

    return open_scal3r(ModelConfig(checkpoint=str(checkpoint), device="cpu"), MemoryConfig())


@pytest.fixture
def make_robot(checkpoint, tmp_path, ros_domain):
    robots = []

    def make(namespace="robot", **options):
        robots.append(Robot(namespace, checkpoint, tmp_path, **options))
        return robots[-1]

    yield make
    for robot in robots:
        robot.close()


@pytest.fixture
def open_remote(ros):
    """Connect to a robot's workers as mapping_node does."""
    from scal3r_ros.nodes.workers.context_client import ContextClient
    from scal3r_ros.nodes.workers.remote_reconstructor import RemoteReconstructor

    opened = []

    def open_(robot, **options):
        config = DistributedConfig(**{"ready_timeout": PATIENCE, **OPTIONS, **options})
        client = ContextClient(ros.get_default_context(), f"/{robot.namespace}", "asker", config)
        opened.append(RemoteReconstructor(client, config, robot.workers))
        return opened[-1]

    yield open_
    for remote in opened:
        remote.close()


def group(remote):
    return remote._client.state


def wait_for_group(remote, *workers, state=("ready", "degraded")):
    def formed():
        found = group(remote)
        names = sorted(w.rpartition("/")[2] for w in found.workers) if found else []
        return found if names == sorted(workers) and found.state in state else None

    return wait_for(formed, PATIENCE, f"group of {', '.join(workers)}")


def chunks(*indices):
    return [make_chunk(i) for i in indices]


def assert_same(found, expected, tolerance=1e-5):
    assert [p.chunk_index for p in found] == [p.chunk_index for p in expected]
    for a, b in zip(found, expected):
        for name in ("T_chunk_camera", "depth", "confidence"):
            x, y = getattr(a, name), getattr(b, name)
            assert np.linalg.norm(x - y) <= tolerance * np.linalg.norm(y), (a.chunk_index, name)


def during(action, delay, work):
    """Result of `work` while `action` happens after `delay` seconds."""
    timer = threading.Timer(delay, action)
    timer.start()
    try:
        return work()
    finally:
        timer.join()


def test_rounds_of_two_workers_and_the_memory_they_share(make_robot, open_remote, alone):
    robot = make_robot()
    robot.start(SYNC, FIRST, SECOND)
    remote = open_remote(robot)
    remote.reset()
    wait_for_group(remote, FIRST, SECOND, state=("ready",))
    assert_same(remote.reconstruct_round(chunks(0, 1)), alone.reconstruct_round(chunks(0, 1)))
    assert_same([remote.reconstruct(make_chunk(7), contribute=False)],
                [alone.reconstruct(make_chunk(7), contribute=False)])  # fmt: skip
    assert_same([remote.reconstruct(make_chunk(2))], [alone.reconstruct(make_chunk(2))])
    state = remote.state()
    assert (state.version, state.fingerprint) == (3, alone.fingerprint)
    expected = alone.state().arrays
    for name, value in state.arrays.items():
        assert np.linalg.norm(value - expected[name]) <= 1e-5 * np.linalg.norm(expected[name])

    def reported():
        found = group(remote)
        counts = (found.committed_round, found.chunks_merged, found.sync_bytes)
        return found if counts == (2, 3, 3 * 3 * 32 * 128 * 4) else None

    report = wait_for(reported, PATIENCE, "report of the round")
    assert len(report.norms) == 3 and report.digest and report.round_seconds > 0
    remote.reset()
    assert remote.state().version == 0
    remote.restore(state)
    again = remote.state()
    assert all(again.arrays[name].tobytes() == v.tobytes() for name, v in state.arrays.items())
    assert_same(remote.reconstruct_round(chunks(3, 4)), alone.reconstruct_round(chunks(3, 4)))
    assert robot.stop(FIRST) == 0
    wait_for_group(remote, SECOND)
    assert robot.stop(SECOND) == 0 and robot.stop(SYNC) == 0
    assert not any("Traceback" in robot.log(n).read_text() for n in (SYNC, FIRST, SECOND))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_lost_worker_costs_no_chunk_and_may_return(make_robot, open_remote, alone, number):
    robot = make_robot()
    robot.start(SYNC, FIRST, SECOND)
    remote = open_remote(robot)
    wait_for_group(remote, FIRST, SECOND)
    rounds = [chunks(2 * i, 2 * i + 1) for i in range(12)]
    found = remote.reconstruct_round(rounds[0])

    def run_rounds():
        return [p for r in rounds[1:-1] for p in remote.reconstruct_round(r)]

    found += during(lambda: robot.kill(SECOND, number), 0.3, run_rounds)
    wait_for_group(remote, FIRST, state=("degraded",))
    if number == signal.SIGSTOP:
        robot.kill(SECOND, signal.SIGCONT)
    else:
        robot.start(SECOND)
    wait_for_group(remote, FIRST, SECOND, state=("ready",))
    found += remote.reconstruct_round(rounds[-1])
    assert_same(found, [p for r in rounds for p in alone.reconstruct_round(r)])
    assert remote.state().version == 24


def test_sync_node_killed_and_restarted(make_robot, open_remote, alone, tmp_path):
    """Rounds go on without it; the restarted one forms the group again from those who are there.
    When everything has died, its snapshot gives the memory back."""
    robot = make_robot()
    snapshot = tmp_path / "context.safetensors"
    options = {"distributed.snapshot_path": str(snapshot), "distributed.snapshot_every": 1}
    robot.start(SYNC, **options)
    robot.start(FIRST, SECOND)
    remote = open_remote(robot)
    wait_for_group(remote, FIRST, SECOND)
    found = remote.reconstruct_round(chunks(0, 1))
    wait_for(snapshot.exists, PATIENCE, "snapshot")
    robot.kill(SYNC)
    found += remote.reconstruct_round(chunks(2, 3))
    generation = group(remote).generation
    robot.start(SYNC, **options)
    wait_for(lambda: group(remote).generation > generation, PATIENCE, "new generation")
    wait_for_group(remote, FIRST, SECOND)
    found += remote.reconstruct_round(chunks(4, 5))
    assert_same(found, [p for i in (0, 2, 4) for p in alone.reconstruct_round(chunks(i, i + 1))])
    wait_for(lambda: group(remote).snapshot_round == 3, PATIENCE, "snapshot of round 3")
    for name in (FIRST, SECOND, SYNC):
        robot.kill(name)
    whole = snapshot.read_bytes()
    snapshot.write_bytes(whole[: len(whole) // 2])
    snapshot.with_name("context.previous.safetensors").write_bytes(whole)
    robot.start(SYNC, FIRST, SECOND)
    robot.kill(SYNC)
    robot.start(SYNC, **options)
    generation = group(remote).generation
    wait_for(lambda: group(remote).generation > generation, PATIENCE, "new generation")
    wait_for_group(remote, FIRST, SECOND)
    assert remote.state().version == 6
    assert_same(remote.reconstruct_round(chunks(6, 7)), alone.reconstruct_round(chunks(6, 7)))
    assert "damaged snapshot refused" in robot.log(SYNC).read_text()


def test_every_worker_brings_images_to_the_size_of_the_sequence(make_robot, open_remote, alone):
    robot = make_robot()
    robot.start(SYNC, FIRST, SECOND)
    remote = open_remote(robot)
    wait_for_group(remote, FIRST, SECOND, state=("ready",))
    mixed = [of_mixed_sizes(chunk) for chunk in chunks(0, 1)]
    assert mixed[1].frames[0].rgb.shape == (40, 56, 3), "not what the second worker sees first"
    assert_same(remote.reconstruct_round(mixed), alone.reconstruct_round(mixed))


def test_a_chunk_too_large_for_one_worker_is_told_and_absorbed_by_none(
    make_robot, open_remote, alone
):
    robot = make_robot()
    robot.start(SYNC, FIRST, CRAMPED)
    remote = open_remote(robot)
    wait_for_group(remote, FIRST, CRAMPED, state=("ready",))
    large = [make_chunk(i, frames=ROOM + 1) for i in (0, 1)]
    with pytest.raises(OutOfDeviceMemory, match="memory of cuda:7"):
        remote.reconstruct_round(large)
    assert remote.state().version == 0
    assert_same(remote.reconstruct_round(chunks(0, 1)), alone.reconstruct_round(chunks(0, 1)))


@pytest.mark.parametrize("policy", ["lockstep", "async"])
def test_a_failed_prediction_is_absorbed_once_and_takes_no_chunk_with_it(
    make_robot, open_remote, policy
):
    robot = make_robot()
    robot.start(SYNC, FIRST, BLIND, **{"distributed.policy": policy})
    remote = open_remote(robot, policy=policy)
    wait_for_group(remote, FIRST, BLIND, state=("ready",))
    results = remote.reconstruct_round(chunks(0, 1))
    failures = [r for r in results if isinstance(r, ReconstructionFailed)]
    assert len(failures) == 1 and "has absorbed the chunk" in str(failures[0])
    assert remote.state().version == 2
    assert not any(
        isinstance(r, ReconstructionFailed) for r in remote.reconstruct_round(chunks(2, 3))
    )
    assert remote.state().version == 4


def test_async_workers_lose_one_and_count_nothing_twice(make_robot, open_remote, alone):
    robot = make_robot()
    robot.start(SYNC, FIRST, SECOND, **{"distributed.policy": "async"})
    remote = open_remote(robot, policy="async")
    wait_for_group(remote, FIRST, SECOND)
    rounds = [chunks(2 * i, 2 * i + 1) for i in range(5)]
    remote.reconstruct_round(rounds[0])
    hands = remote._hands
    hands._given_up.add(next(hands._numbers))  # as after a round without workers
    remote.reconstruct(make_chunk(20), contribute=False)
    during(lambda: robot.kill(SECOND), 0.1,
           lambda: [remote.reconstruct_round(r) for r in rounds[1:]])  # fmt: skip
    whole = alone.reconstruct_round([c for r in rounds for c in r])
    state, expected = remote.state(), alone.state().arrays
    assert state.version == len(whole) == 10
    for name in ("w0", "w1", "w2"):  # the first memory layer depends on nothing but the images
        found, sums = state.arrays[f"bucket0.layer1.{name}"], expected[f"bucket0.layer1.{name}"]
        assert np.linalg.norm(found - sums) <= 1e-5 * np.linalg.norm(sums)


def test_without_workers_a_chunk_fails_within_the_time_allowed(make_robot, open_remote):
    robot = make_robot()
    robot.start(SYNC)
    remote = open_remote(robot, ready_timeout=3.0)
    wait_for(lambda: group(remote), PATIENCE, "context_sync_node")
    failures = remote.reconstruct_round(chunks(0, 1))
    assert all("no group of workers" in str(f) for f in failures) and len(failures) == 2


def test_services_say_why_they_cannot(make_robot, open_remote, tmp_path):
    robot = make_robot(workers=1)
    robot.start(SYNC, FIRST)
    remote = open_remote(robot)
    wait_for_group(remote, FIRST)
    remote.reconstruct(make_chunk(0))
    client, path = remote._client, tmp_path / "memory.safetensors"
    saved = client.call("save_context", SaveContext.Request(path=str(path)))
    assert saved.success and saved.chunks == 1 and path.exists()
    path.write_bytes(path.read_bytes()[:-5])
    answer = client.call("load_context", LoadContext.Request(path=str(path)))
    assert not answer.success and "memory.safetensors" in answer.message
    answer = client.call("load_context", LoadContext.Request(path=str(tmp_path / "none")))
    assert not answer.success and "no snapshot" in answer.message
    assert remote.state().version == 1
    assert client.call("reset_context", Trigger.Request()).success
    assert remote.state().version == 0


def test_robots_do_not_see_each_other(make_robot, open_remote):
    one, two = make_robot("one", workers=1), make_robot("two", workers=2)
    one.start(SYNC, FIRST)
    two.start(SYNC, SECOND, THIRD)
    remotes = open_remote(one), open_remote(two)
    wait_for_group(remotes[0], FIRST)
    wait_for_group(remotes[1], SECOND, THIRD)
    remotes[0].reconstruct(make_chunk(0))
    assert remotes[0].state().version == 1 and remotes[1].state().version == 0
