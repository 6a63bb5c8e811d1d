"""torchrun with two processes gives what one process gives."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is absent; run the tests with `make test`")
HERE = Path(__file__).parent
CREW = HERE.parent / "distributed"
sys.path.insert(0, str(CREW))

import sharded_run  # noqa: E402
from crew import tiny_network  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def torchrun(folder: Path, out: str) -> subprocess.CompletedProcess:
    """`sharded_run.py` in two processes."""
    path = os.pathsep.join([str(HERE.parents[1]), str(CREW)])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", str(HERE / "sharded_run.py"), str(folder / "options.yaml"), out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(command, env=environment, timeout=200, capture_output=True, text=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from scal3r_ros.model.checkpoint import save_checkpoint

    network, folder = tiny_network(), tmp_path_factory.mktemp("weights")
    return save_checkpoint(network.state_dict(), network.architecture, folder, "tiny")[0]


@pytest.mark.parametrize("memory", ["batch", "stream"])
def test_two_processes_are_one(tmp_path, checkpoint, memory):
    """`batch`: the whole sequence. `stream`: rounds of three chunks, whoever does them."""
    options = f"""
model: {{checkpoint: {checkpoint}, device: cpu, threads: 1}}
memory: {{mode: {memory}}}
distributed: {{round_size: 3}}
"""
    (tmp_path / "options.yaml").write_text(options)
    assert sharded_run.main(str(tmp_path / "options.yaml"), str(tmp_path / "one.npz")) == 0
    done = torchrun(tmp_path, str(tmp_path / "two.npz"))
    assert done.returncode == 0, done.stderr
    one, two = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert value.shape == two[name].shape
        difference = np.linalg.norm((value - two[name]).astype(float))
        assert difference <= 1e-5 * np.linalg.norm(value.astype(float)), name


def test_a_helper_ends_with_an_error_when_rank_0_is_gone(tmp_path, checkpoint):
    (tmp_path / "options.yaml").write_text(f"model: {{checkpoint: {checkpoint}, device: cpu}}")
    done = torchrun(tmp_path, "/nowhere/out.npz")
    assert done.returncode != 0
    assert "FileNotFoundError" in done.stderr
