"""Stopping the node inside a chunk: what was mapped can still be saved, whole."""

import threading

import pytest

from scal3r_ros.bench.city import drive
from scal3r_ros.bench.oracle import OracleReconstructor, Spoil
from scal3r_ros.config import Config
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct.interruptible import Interrupted, InterruptibleReconstructor

CONFIG = {
    "chunk.size": 12, "chunk.overlap": 6, "loop.min_gap": 40, "loop.window": 8,
    "loop.nms_window": 10, "loop.threshold": 0.5,
}  # fmt: skip


class Stuck(OracleReconstructor):
    """Never returns from the first chunk of one kind after the first one."""

    def __init__(self, city, kind):
        super().__init__(city, Spoil(scale_drift=0.02))
        self.kind, self.entered, self.released = kind, threading.Event(), threading.Event()

    def reconstruct(self, chunk, contribute=True):
        if chunk.kind == self.kind and chunk.index > 0:
            self.entered.set()
            self.released.wait()
        return super().reconstruct(chunk, contribute)


@pytest.mark.parametrize("kind", ["sequence", "loop"])
def test_a_map_is_saved_with_every_finished_chunk(kind, tmp_path):
    city = drive(frames=150, length=130.0, width=64, height=48, route="ENWSE")
    config = from_dict(Config, CONFIG)
    inner = Stuck(city, kind)
    reconstructor = InterruptibleReconstructor(inner)
    mapper = Mapper(config, reconstructor)

    def interrupt():
        inner.entered.wait()
        reconstructor.interrupt()

    stopper = threading.Thread(target=interrupt, daemon=True)
    stopper.start()
    with pytest.raises(Interrupted):
        for i in range(len(city)):
            mapper.add(city.frame(i))
    stopper.join()
    mapped, begun = len(mapper.trajectory()), mapper.unmapped
    assert begun > 0 and (kind == "sequence" or mapped > 90)
    mapper.save(tmp_path)
    inner.released.set()
    assert reconstructor.close(timeout=10.0)

    later = Mapper(config, OracleReconstructor(city))
    later.load(tmp_path)
    assert len(later.trajectory()) == mapped
    later.flush()
    assert len(later.trajectory()) == mapped + begun == later.next_frame_id
    assert later.unmapped == 0


@pytest.mark.parametrize("kind", ["sequence", "loop"])
def test_a_map_is_saved_while_the_network_does_not_answer(kind, tmp_path):
    city = drive(frames=150, length=130.0, width=64, height=48, route="ENWSE")
    config = from_dict(Config, CONFIG)
    inner = Stuck(city, kind)
    reconstructor = InterruptibleReconstructor(inner)
    mapper = Mapper(config, reconstructor)
    mapped = []

    def save_once():
        if inner.entered.is_set() and not mapped and mapper.consistent:
            mapper.save(tmp_path)
            mapped.append(len(mapper.trajectory()))
            inner.released.set()

    reconstructor.while_waiting = save_once
    for i in range(len(city)):
        mapper.add(city.frame(i))
    assert mapped and mapped[0] < len(mapper.trajectory())
    assert reconstructor.close(timeout=10.0)
    later = Mapper(config, OracleReconstructor(city))
    assert later.load(tmp_path) == []
    assert len(later.trajectory()) == mapped[0]
    later.flush()
    assert len(later.trajectory()) == later.next_frame_id >= mapped[0]
