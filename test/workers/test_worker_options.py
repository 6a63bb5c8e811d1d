"""Where a group meets and how long it waits is what its options say."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is absent; run the tests with `make test`")
import torch
from crew import CONFIG

from scal3r_ros.config import DistributedConfig
from scal3r_ros.workers.coordinator import Coordinator
from scal3r_ros.workers.group import Place, connect, host_store
from scal3r_ros.workers.membership import COMPUTING, IDLE, GroupBroken, Report

REPOSITORY = Path(__file__).resolve().parents[2]
SILENT_FIRST_PROCESS = """
import time
from scal3r_ros.options import from_dict
from scal3r_ros.config import Config
from scal3r_ros.workers.sharded import serve
from scal3r_ros.workers.torchrun import is_helper, opened_reconstructor
config = from_dict(Config, {"distributed.command_timeout": 1.0})
if is_helper():
    raise SystemExit(serve(config))
with opened_reconstructor(config):
    time.sleep(6.0)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_the_meeting_place_has_the_port_that_is_configured():
    port = free_port()
    store = host_store(DistributedConfig(port=port))
    assert store.port == port
    store.close()


def test_tensors_travel_over_the_interface_that_is_configured():
    store = host_store(CONFIG)
    config = replace(CONFIG, backend="gloo", interface="lo")
    connect(store, Place(1, 0, 1), config, torch.device("cpu")).close()
    with pytest.raises(GroupBroken, match="absent0"):
        wrong = replace(config, interface="absent0")
        connect(store, Place(2, 0, 1), wrong, torch.device("cpu"))
    store.close()


@pytest.mark.parametrize("limit", [7.0, 30.0])
def test_a_worker_that_computes_for_longer_than_a_round_may_take_is_dropped(limit):
    """Two workers on a clock of the test; one of them goes on telling that it computes."""
    coordinator = Coordinator(replace(CONFIG, round_timeout=limit), 2, first_generation=1)
    now, states, dropped_at = 0.0, {"/a": IDLE, "/b": IDLE}, None
    while dropped_at is None and now < 100.0:
        now += 0.5
        plan = coordinator.plan
        for name, state in states.items():
            coordinator.hear(Report(name, "weights", state, plan.generation, 0), 0, now)
        plan = coordinator.step(now).plan
        if plan.ready and states["/b"] == IDLE:
            states["/b"], began = COMPUTING, now
        elif states["/b"] == COMPUTING and "/b" not in plan.workers:
            dropped_at = now - began
    coordinator.close()
    assert dropped_at == pytest.approx(limit, abs=1.1)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_process_of_torchrun_does_not_wait_for_ever_for_its_commands(tmp_path):
    script = tmp_path / "silent.py"
    script.write_text(SILENT_FIRST_PROCESS)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    ended = subprocess.run(
        [sys.executable, *launcher, str(script)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        timeout=150,
        capture_output=True,
        text=True,
    )
    assert ended.returncode != 0
    assert "rank 1 ends, another process is gone" in ended.stderr
