"""Runs in memory.mode finalize that are killed or interrupted, and go on with the same result."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from mapper_runs import config  # noqa: E402
from network_chain import frames, reconstructor  # noqa: E402
from oracle import OracleReconstructor  # noqa: E402

from scal3r_ros.config import Config, MemoryConfig, ModelConfig  # noqa: E402
from scal3r_ros.io.source import SourceImage  # noqa: E402
from scal3r_ros.io.stretch import Stretch  # noqa: E402
from scal3r_ros.options import from_dict  # noqa: E402
from scal3r_ros.pipeline import offline  # noqa: E402
from scal3r_ros.pipeline.mapper import Mapper  # noqa: E402
from scal3r_ros.reconstruct.scal3r.setup import open_scal3r  # noqa: E402

FRAMES = 24
OPTIONS = {
    "chunk.size": 6,
    "chunk.overlap": 3,
    "memory.mode": "finalize",
    "alignment.method": "vggt_long",  # random weights pass no gate
    "loop.threshold": -1.0,  # everything looks alike
    "loop.min_gap": 8,
    "loop.window": 3,
    "loop.nms_window": 6,
}


class Recording:
    """Noise images; reading them ends with `error` at frame `stop`."""

    description = "noise"
    files = ()

    def __init__(self, stop=None, error=None):
        self.images, self.stop, self.error = frames(FRAMES), stop, error
        self.stretch = Stretch()

    def __len__(self):
        return len(self.images)

    def __iter__(self):
        for frame in self.images:
            if frame.id == self.stop:
                raise self.error
            yield SourceImage(frame.id, frame.stamp_ns, lambda frame=frame: frame)


class Killed(Exception):
    """Nothing can be saved any more."""


class CtrlC:
    """The user interrupts the second pass after some chunks."""

    def __init__(self, inner, after):
        self._inner, self._after = inner, after
        self.name, self.round_size = inner.name, inner.round_size

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def finalize(self):
        for count, outcome in enumerate(self._inner.finalize()):
            if count == self._after:
                raise KeyboardInterrupt
            yield outcome


def engine(folder, out, megabytes):
    memory = MemoryConfig(mode="finalize", host_megabytes=megabytes)
    return open_scal3r(ModelConfig(checkpoint=str(folder), device="cpu"), memory, out / ".resume")


def run(folder, out, source=None, megabytes=1000.0, wrap=lambda inner: inner, **options):
    settings = from_dict(Config, OPTIONS)
    tool = wrap(engine(folder, out, megabytes))
    return offline.run(settings, source or Recording(), tool, out, **options)


def results(folder):
    return {name: (folder / name).read_bytes() for name in ("trajectory.txt", "map.ply")}


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    run(folder, out)
    return out


@pytest.fixture
def saves_often(monkeypatch):
    """After every frame, whatever it costs."""
    monkeypatch.setattr(offline._Session, "_save_if_due", lambda session, every: session._save())


@pytest.mark.parametrize("megabytes", [0.0, 0.3, 1000.0])
def test_a_killed_run_goes_on_to_the_same_map(folder, whole, tmp_path, megabytes, saves_often):
    with pytest.raises(Killed):
        killed = Recording(20, Killed())
        run(folder, tmp_path, killed, megabytes)
    kept = sorted((tmp_path / ".resume" / "files").glob("*/chunks/*_tokens.pt"))
    assert len(kept) >= 5, "the chunks of the stream and those that tried loops"
    run(folder, tmp_path, megabytes=megabytes, resume=True)
    assert results(tmp_path) == results(whole)
    assert not (tmp_path / ".resume").exists()
    tried = json.loads((whole / "report.json").read_text())["counters"]
    assert tried.get("loop_rejected", 0) + tried.get("loop_closed", 0) >= 2


def test_a_run_killed_while_it_saves_goes_on_from_the_save_before(
    folder, whole, tmp_path, monkeypatch, saves_often
):
    """The chunks are written, the map file is not."""
    from scal3r_ros.pipeline import save as saving

    real, saves = saving.write_map, []

    def dies_late(path, arrays, facts):
        saves.append(facts["kept_chunks"])
        if saves[-1] >= 4:
            raise Killed
        real(path, arrays, facts)

    monkeypatch.setattr(saving, "write_map", dies_late)
    with pytest.raises(Killed):
        run(folder, tmp_path)
    monkeypatch.setattr(saving, "write_map", real)
    assert 4 == saves[-1] > saves[-2] > 0, "chunks were written that no map file knows"
    run(folder, tmp_path, resume=True)
    assert results(tmp_path) == results(whole)


def test_an_interrupted_second_pass_is_made_again(folder, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, wrap=lambda inner: CtrlC(inner, 4))
    run(folder, tmp_path, resume=True)
    assert results(tmp_path) == results(whole)


def test_saving_costs_the_disk_nothing_twice(folder, tmp_path):
    """What waits on disk and what is saved there are the same bytes."""
    tool = engine(folder, tmp_path, 0.0)
    mapper = Mapper(from_dict(Config, OPTIONS), tool)
    for frame in frames(12):
        mapper.add(frame)
    mapper.save(tmp_path / "saved")
    saved = sorted((tmp_path / "saved" / "files").glob("*/chunks/*.pt"))
    waiting = list((tmp_path / ".resume").rglob("*.pt"))
    assert saved and {p.stat().st_ino for p in saved} == {p.stat().st_ino for p in waiting}
    times = [p.stat().st_mtime_ns for p in saved]
    mapper.save(tmp_path / "saved")
    assert [p.stat().st_mtime_ns for p in saved] == times, "what is saved is not written again"


def test_a_map_whose_chunks_were_not_kept_is_not_built_again(street, folder, tmp_path):
    """Rather an error than a map of the newest chunks alone."""
    settings = from_dict(Config, {**OPTIONS, "memory.mode": "stream"})
    first = Mapper(settings, reconstructor(folder))
    for frame in frames(12):
        first.add(frame)
    first.save(tmp_path)
    second = Mapper(from_dict(Config, OPTIONS), reconstructor(folder, mode="finalize"))
    second.load(tmp_path)
    for frame in frames(12, 12):
        second.add(frame)
    poses = len(second.trajectory())
    with pytest.raises(ValueError, match="were not kept"):
        second.finalize()
    assert len(second.trajectory()) >= poses > 12
    second.reset()
    for frame in frames(12):
        second.add(frame)
    assert second.finalize()[-1].corrected


def test_a_chunk_that_failed_then_and_succeeds_now_is_mapped(street):
    """Predictions meet their chunks by index, not by their place in the row."""

    class Recovers(OracleReconstructor):
        def __init__(self, city):
            super().__init__(city)
            self.seen = []

        def reconstruct(self, chunk, contribute=True):
            self.seen.append(chunk)
            if chunk.index == 2:
                from scal3r_ros.reconstruct.interface import ReconstructionFailed

                raise ReconstructionFailed("not finite")
            return super().reconstruct(chunk, contribute)

        def reconstruct_round(self, chunks):
            from scal3r_ros.reconstruct.interface import ReconstructionFailed

            try:
                return [self.reconstruct(chunk) for chunk in chunks]
            except ReconstructionFailed as failure:
                return [failure]

        def finalize(self):
            return [OracleReconstructor(self.city).reconstruct(chunk) for chunk in self.seen]

    mapper = Mapper(config(memory__mode="finalize"), Recovers(street))
    for i in range(60):
        mapper.add(street.frame(i))
    mapper.flush()
    assert mapper.counters["chunk_failed"] == 1 and len(set(mapper.graph().parts)) == 2
    mapper.finalize()
    assert len(set(mapper.graph().parts)) == 1
    ids = [pose.frame_id for pose in mapper.trajectory()]
    np.testing.assert_array_equal(ids, range(60))
