"""torchrun with two processes gives what one process gives."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is absent; run the tests with `make test`")
HERE = Path(__file__).parent
SCRIPT = str(HERE / "sharded_run.py")
BAG = HERE.parents[1] / "demo" / "loop_room"
import sharded_run  # noqa: E402
import torch.distributed as dist  # noqa: E402
from crew import tiny_network  # noqa: E402

from scal3r_ros.config import DistributedConfig  # noqa: E402
from scal3r_ros.workers import sharded  # noqa: E402
from scal3r_ros.workers.membership import GroupBroken  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]


def torchrun(*command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """A Python program in two processes."""
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [sys.executable, "-m", *launcher, *options, *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # a restart needs a fresh store
    return subprocess.run(command, env=environment, timeout=400, capture_output=True, text=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from scal3r_ros.networks.scal3r.checkpoint import save_checkpoint

    network, folder = tiny_network(), tmp_path_factory.mktemp("weights")
    return save_checkpoint(network.state_dict(), network.architecture, folder, "tiny")[0]


def test_two_processes_are_one(tmp_path, checkpoint):
    """Rounds of three chunks, whoever does them, images of mixed sizes, a prediction that fails;
    memory saved, reset and restored on all."""
    options = f"""
model: {{checkpoint: {checkpoint}, device: cpu, threads: 1}}
distributed: {{round_size: 3}}
"""
    (tmp_path / "options.yaml").write_text(options)
    assert sharded_run.main(str(tmp_path / "options.yaml"), str(tmp_path / "one.npz")) == 0
    done = torchrun(SCRIPT, str(tmp_path / "options.yaml"), str(tmp_path / "two.npz"))
    assert done.returncode == 0, done.stderr
    one, two = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert one["memory_chunks"] == two["memory_chunks"] == 5, "the failed prediction's chunk too"
    assert "depth_3" in two and "depth_4" not in two, "one of five predictions has failed"
    for name, value in one.items():
        assert value.shape == two[name].shape
        difference = np.linalg.norm((value - two[name]).astype(float))
        assert difference <= 1e-5 * np.linalg.norm(value.astype(float)), name


def test_ranks_meet_where_only_those_with_the_secret_get_in(tmp_path, monkeypatch):
    """Whatever the launcher's store says: it lets everybody in."""
    secret, other = tmp_path / "secret", tmp_path / "other"
    for path in (secret, other):
        path.write_text(path.name * 20)
        path.chmod(0o600)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    launcher = dist.HashStore()
    config = DistributedConfig(secret_file=str(secret), store_timeout=5.0)
    served = sharded._meet(launcher, 0, config)
    try:
        served.set("greeting", "hello")
        assert sharded._meet(launcher, 1, config).get("greeting") == b"hello"
        stranger = replace(config, secret_file=str(other))
        with pytest.raises(GroupBroken, match="does not share our secret"):
            sharded._meet(launcher, 1, stranger)
        launcher.set("scal3r/port/0", "22; rm")
        with pytest.raises(GroupBroken, match="as a port"):
            sharded._meet(launcher, 1, config)
    finally:
        served.close()


def test_the_command_line_maps_the_recording_alike(tmp_path, checkpoint):
    """`batch`: the whole sequence is one round, sharded over the processes."""
    from scal3r_ros.cli import main

    arguments = ["reconstruct", str(BAG), "--quiet", "--checkpoint", str(checkpoint), "--set"]
    arguments += ["gate.stride=24", "chunk.size=6", "chunk.overlap=3", "model.threads=1"]
    arguments += ["alignment.method=vggt_long", "loop.enabled=false"]  # random weights pass no gate
    batch = [*arguments, "memory.mode=batch"]
    done = torchrun("-m", "scal3r_ros.cli", *batch, "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert main([*batch, "--out", str(tmp_path / "one")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "other")]) == 0
    one, two, other = (
        np.loadtxt(tmp_path / name / "trajectory.txt") for name in ("one", "two", "other")
    )
    assert one.shape == two.shape == (15, 8)
    size = np.ptp(one[:, 1:4], axis=0).max()
    assert np.abs(one[:, 1:4] - two[:, 1:4]).max() <= 1e-4 * size
    assert np.abs(one[:, 4:] - two[:, 4:]).max() <= 1e-4
    assert np.abs(one[:, 1:4] - other[:, 1:4]).max() > 1e-2 * size, "the memory has no effect"
    assert (tmp_path / "two" / "map.ply").exists()


def test_a_dead_helper_costs_a_restart_and_no_chunk(tmp_path, checkpoint):
    """Rank 0 saves what it has, torchrun starts all again, and the map is that of one process."""
    from scal3r_ros.cli import main

    arguments = ["reconstruct", str(BAG), "--quiet", "--checkpoint", str(checkpoint), "--set"]
    arguments += ["gate.stride=18", "chunk.size=4", "chunk.overlap=2", "model.threads=1"]
    arguments += ["alignment.method=vggt_long", "loop.enabled=false", "distributed.round_size=2"]
    dying = [
        str(HERE.parent / "pipeline" / "dying_run.py"),
        *arguments,
        "--out",
        str(tmp_path / "two"),
        "--resume",
    ]
    done = torchrun(*dying, options=["--max-restarts", "1"])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("go on with the same command and --resume") == 1
    assert done.stderr.count("resuming after frame") == 1
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    one, two = (np.loadtxt(tmp_path / name / "trajectory.txt") for name in ("one", "two"))
    assert one.shape == two.shape == (20, 8)
    size = np.ptp(one[:, 1:4], axis=0).max()
    assert np.abs(one[:, 1:4] - two[:, 1:4]).max() <= 1e-4 * size


def test_a_helper_ends_with_an_error_when_rank_0_is_gone(tmp_path, checkpoint):
    (tmp_path / "options.yaml").write_text(f"model: {{checkpoint: {checkpoint}, device: cpu}}")
    done = torchrun(SCRIPT, str(tmp_path / "options.yaml"), "/nowhere/out.npz")
    assert done.returncode != 0
    assert "FileNotFoundError" in done.stderr
