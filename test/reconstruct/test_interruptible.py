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


class Lingers(OracleReconstructor):
    """The memory has absorbed a chunk a while before the answer is there."""

    def __init__(self, city):
        super().__init__(city)
        self.absorbed, self.released = threading.Event(), threading.Event()

    def reconstruct(self, chunk, contribute=True):
        prediction = super().reconstruct(chunk, contribute)
        if chunk.index > 0:
            self.absorbed.set()
            self.released.wait()
        return prediction


@pytest.mark.parametrize("stops", [False, True])
def test_a_chunk_that_ends_while_the_map_is_saved_is_absorbed_once(tmp_path, stops):
    city = drive(frames=30, length=30.0, width=64, height=48, route="E")
    config = from_dict(Config, {**CONFIG, "loop.enabled": False})
    inner = Lingers(city)
    reconstructor = InterruptibleReconstructor(inner)
    mapper = Mapper(config, reconstructor)

    def save():
        if inner.absorbed.is_set() and not inner.released.is_set():
            mapper.save(tmp_path)
            inner.released.set()

    def interrupt():
        inner.absorbed.wait()
        reconstructor.interrupt()

    if stops:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(Interrupted):
            for i in range(len(city)):
                mapper.add(city.frame(i))
        save()
    else:
        reconstructor.while_waiting = save
        for i in range(len(city)):
            mapper.add(city.frame(i))
    assert reconstructor.close(timeout=10.0)
    later = Mapper(config, OracleReconstructor(city))
    later.load(tmp_path)
    assert later.unmapped > 0 and later.reconstructor.version == 2
    for i in range(later.next_frame_id, len(city)):
        later.add(city.frame(i))
    later.flush()
    assert len(later.trajectory()) == 30
    assert later.counters["chunks"] == later.reconstructor.version == 4
    later.save(tmp_path)
    again = Mapper(config, OracleReconstructor(city))
    again.load(tmp_path)
    assert again.reconstructor.version == 4
