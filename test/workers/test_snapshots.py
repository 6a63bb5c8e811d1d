"""Snapshots of the committed memory, taken one after the other."""

import time
from pathlib import Path

import numpy as np
import pytest

from scal3r_ros.config import DistributedConfig
from scal3r_ros.workers import coordinator as coordination
from scal3r_ros.workers.coordinator import Coordinator
from scal3r_ros.workers.group import join_store
from scal3r_ros.workers.membership import BROKEN, IDLE, Report
from scal3r_ros.workers.packing import seal, unseal, upload
from scal3r_ros.workers.snapshots import read_snapshot, snapshot_key

WORKER = "/worker"


class OneWorker:
    """Rank 0 of a group of one: answers every request with a memory that counts the requests."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator, self.answered, self.committed = coordinator, 0, 0
        self.refuses = False
        """Whether it says that its group broke, as after a memory that does not fit."""

    def step(self) -> None:
        said = self.coordinator.step(time.monotonic())
        if said.snapshot_request > self.answered:
            store = join_store(said.address, said.port, self.coordinator.config)
            header = {"version": str(said.snapshot_request), "committed": str(self.committed)}
            header["fingerprint"] = "weights"
            memory = seal(header, {"w": np.full(3, said.snapshot_request, np.float32)})
            upload(store, snapshot_key(said.snapshot_request), memory, 5.0)
            self.answered = said.snapshot_request
        generation = said.plan.generation if WORKER in said.plan.workers else 0
        state = BROKEN if self.refuses else IDLE
        report = Report(WORKER, "weights", state, generation, self.committed)
        self.coordinator.hear(report, self.answered, time.monotonic())

    def until(self, condition, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline
            self.step()
            time.sleep(0.01)


def test_saves_wait_for_one_another_and_for_the_automatic_one(tmp_path):
    automatic = tmp_path / "automatic.safetensors"
    config = DistributedConfig(snapshot_every=1, snapshot_path=str(automatic))
    coordinator = Coordinator(config, expected=1, first_generation=1)
    worker = OneWorker(coordinator)
    worker.until(lambda: coordinator.plan.ready)
    worker.committed = 1
    worker.step()  # a round is committed: the automatic snapshot is asked for
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    saves = [coordinator.save(time.monotonic(), str(path)) for path in paths]
    assert not any(save.done for save in saves)
    worker.until(lambda: all(save.done for save in saves))
    assert [save.success for save in saves] == [True, True], [save.message for save in saves]
    versions = [memory_of(path) for path in (automatic, *paths)]
    assert versions == sorted(set(versions)), "each is a memory of its own, in order"
    assert [save.chunks for save in saves] == versions[1:]


def memory_of(path: Path) -> int:
    """The number that the worker wrote into a snapshot."""
    data, refused = read_snapshot(path)
    header, arrays = unseal(data)
    assert not refused and (arrays["w"] == int(header["version"])).all()
    return int(header["version"])


def test_a_reset_while_a_snapshot_is_written_does_not_end_the_save(tmp_path, monkeypatch):
    coordinator = Coordinator(DistributedConfig(), expected=1, first_generation=1)
    worker = OneWorker(coordinator)
    worker.until(lambda: coordinator.plan.ready)
    real = coordination.write_snapshot

    def meanwhile(path, data):
        coordinator.reset(time.monotonic())
        real(path, data)

    monkeypatch.setattr(coordination, "write_snapshot", meanwhile)
    save = coordinator.save(time.monotonic(), str(tmp_path / "memory.safetensors"))
    worker.until(lambda: save.done)
    assert save.success and save.chunks == memory_of(tmp_path / "memory.safetensors")
    assert coordinator.snapshot is None, "the reset holds"


HEADER = {"kind": "scal3r", "fingerprint": "weights", "version": "3", "committed": "3"}
UNFIT = {
    "lacks fingerprint, version or committed": (("version", None), 1.0),
    "KeyError": (("fingerprint", None), 1.0),
    "invalid literal": (("committed", "many"), 1.0),
    "belongs to weights others": (("fingerprint", "others"), 1.0),
    "not finite in w": (("kind", "scal3r"), np.nan),
}


@pytest.mark.parametrize("text", UNFIT)
def test_a_snapshot_that_no_worker_can_take_is_refused_at_once(tmp_path, text):
    coordinator = Coordinator(DistributedConfig(), expected=1, first_generation=1)
    worker = OneWorker(coordinator)
    worker.until(lambda: coordinator.plan.ready)
    (name, value), factor = UNFIT[text]
    header = {**HEADER, name: value}
    sealed = seal({k: v for k, v in header.items() if v}, {"w": np.ones(3, np.float32) * factor})
    (tmp_path / "memory.safetensors").write_bytes(sealed)
    started = time.monotonic()
    load = coordinator.load(started, str(tmp_path / "memory.safetensors"))
    worker.until(lambda: load.done)
    assert not load.success and text in load.message
    assert time.monotonic() - started < 5.0, "answered long before its deadline"
    assert coordinator.snapshot is None and coordinator.announcement().origin.kind == "members"


def test_a_load_that_nobody_takes_over_leaves_the_group_with_its_own_memory(tmp_path):
    config = DistributedConfig(service_timeout=1.0)
    coordinator = Coordinator(config, expected=1, first_generation=1)
    worker = OneWorker(coordinator)
    worker.until(lambda: coordinator.plan.ready)
    (tmp_path / "memory.safetensors").write_bytes(seal(HEADER, {"w": np.ones(3, np.float32)}))
    load = coordinator.load(time.monotonic(), str(tmp_path / "memory.safetensors"))
    worker.refuses = True
    worker.until(lambda: load.done)
    assert not load.success and "did not form again" in load.message
    worker.refuses = False
    worker.until(lambda: coordinator.plan.ready)
    assert coordinator.announcement().origin.kind == "members"
