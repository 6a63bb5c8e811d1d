"""The network in a process of its own gives what it gives in this one."""

import os
import shutil
import signal
import threading

import numpy as np
import pytest
from oracle_node import StampOracle
from process_openers import OPTIONS, open_broken, open_fatal, open_quick, open_slow

from scal3r_ros.config import Config
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline.export import export
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct import process
from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.reconstruct.interruptible import Interrupted, InterruptibleReconstructor
from scal3r_ros.reconstruct.process import ProcessLost, ProcessReconstructor
from scal3r_ros.records import Chunk, Frame


def chunk(index, frames):
    city = StampOracle(OPTIONS).city
    return Chunk(index, 0, tuple(city.frame(i) for i in frames))


def test_same_predictions_errors_and_memory_as_in_this_process():
    here, there = open_quick(None), ProcessReconstructor(Config(), open_quick)
    try:
        pid = there._process.pid
        assert pid != os.getpid()
        for first in (0, 8):
            mine = here.reconstruct(chunk(first, range(first, first + 8)))
            (other,) = there.reconstruct_round([chunk(first, range(first, first + 8))])
            np.testing.assert_array_equal(mine.depth, other.depth)
            np.testing.assert_array_equal(mine.T_chunk_camera, other.T_chunk_camera)
        state = there.state()
        assert state.version == 2 and state.arrays["absorbed"].tolist() == [0, 8]
        strange = Chunk(9, 0, (Frame(0, 5, np.zeros((4, 4, 3), np.uint8)),))
        with pytest.raises(ReconstructionFailed, match="not from the city"):
            there.reconstruct(strange)
        there.reset()
        assert there.state().version == 0
        there.restore(state)
        assert there.state().version == 2
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ProcessLost, match="-9"):
            there.state()
    finally:
        there.close()


def test_a_map_outlives_the_process_that_holds_the_memory(tmp_path):
    """It is saved with the memory that was known last, and mapping goes on with that too."""
    config = from_dict(Config, {"chunk.size": 8, "chunk.overlap": 4})
    there = ProcessReconstructor(config, open_quick)
    city = StampOracle(OPTIONS).city
    try:
        mapper = Mapper(config, InterruptibleReconstructor(there))
        for index in range(12):
            mapper.add(city.frame(index))
        absorbed = there.state().version
        os.kill(there._process.pid, signal.SIGKILL)
        (event,) = mapper.save(tmp_path)
        assert event.name == "memory_outdated" and "-9" in event.message
        assert f"the first {absorbed} chunks" in event.message
        assert len(export(mapper, tmp_path / "export")) > 3
        mapped = len(mapper.trajectory())
        updates = [u for index in range(12, 16) for u in mapper.add(city.frame(index))]
        (event,) = [e for update in updates for e in update.events]
        assert event.name == "network_restarted" and "does the chunk again" in event.message
        assert len(mapper.trajectory()) > mapped == 12
        assert there.state().arrays["absorbed"].tolist() == [0, 1, 2]
        os.kill(there._process.pid, signal.SIGKILL)
        mapper.load(tmp_path)  # starts another process
        assert len(mapper.trajectory()) == mapped and there.state().version == absorbed == 2
    finally:
        there.close()


def test_a_chunk_that_ends_every_process_is_left_out(tmp_path):
    config = from_dict(Config, {"chunk.size": 8, "chunk.overlap": 4})
    there = ProcessReconstructor(config, open_fatal)
    try:
        mapper = Mapper(config, InterruptibleReconstructor(there))
        city = StampOracle(OPTIONS).city
        updates = [update for index in range(20) for update in mapper.add(city.frame(index))]
        told = [event.name for update in updates for event in update.events]
        assert told.count("network_restarted") == 2 and told.count("chunk_failed") == 1
        assert [pose.frame_id for pose in mapper.trajectory()][-1] == 19, "and the stream goes on"
        assert there.state().arrays["absorbed"].tolist() == [0, 1, 3]
    finally:
        there.close()


def test_loading_errors_are_raised_here():
    with pytest.raises(ValueError, match="weights are missing"):
        ProcessReconstructor(Config(), open_broken)


def test_an_interrupted_chunk_ends_with_its_process():
    reconstructor = InterruptibleReconstructor(ProcessReconstructor(Config(), open_slow))
    threading.Timer(0.3, reconstructor.interrupt).start()
    with pytest.raises(Interrupted):
        reconstructor.reconstruct(chunk(0, range(4)))
    assert reconstructor.state().version == 0, "the memory can still be saved"
    process = reconstructor._inner._process
    assert reconstructor.close(timeout=0.1)
    assert not process.is_alive()


def test_a_chunk_that_does_not_fit_into_shared_memory_is_refused(monkeypatch):
    """Writing into a full /dev/shm would end the node with a bus error."""
    there = ProcessReconstructor(Config(), open_quick)
    try:
        with monkeypatch.context() as cramped:
            full = shutil.disk_usage("/")._replace(free=0)
            cramped.setattr(process.shutil, "disk_usage", lambda path: full)
            with pytest.raises(ReconstructionFailed, match="--shm-size"):
                there.reconstruct(chunk(0, range(4)))
        assert there.reconstruct(chunk(1, range(4))).depth.shape[0] == 4
    finally:
        there.close()
