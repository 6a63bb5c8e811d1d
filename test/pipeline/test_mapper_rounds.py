"""Chunks in rounds, chunks too large for the device, and everything once more."""

import numpy as np
import pytest
from mapper_runs import config, relative_error, run
from oracle import REALISTIC, OracleReconstructor

from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct.interface import OutOfDeviceMemory


class Cramped(OracleReconstructor):
    """A device that holds at most `room` frames."""

    room = 12

    def reconstruct_round(self, chunks):
        assert len(chunks) <= self.round_size
        if max(len(chunk.frames) for chunk in chunks) > self.room:
            raise OutOfDeviceMemory(f"{len(chunks[0].frames)} frames do not fit")
        return super().reconstruct_round(chunks)


@pytest.mark.parametrize("round_size", [1, 2, 3, 1000])
def test_a_chunk_too_large_for_the_device_is_shortened_and_no_frame_lost(street, round_size):
    reconstructor = Cramped(street)
    reconstructor.round_size = round_size
    mapper = Mapper(config(), reconstructor)
    updates = run(street, mapper)
    events = [e for u in updates for e in u.events]
    assert [e.name for e in events] == ["chunk_shrunk"]
    assert [p.frame_id for p in mapper.trajectory()] == list(range(60))
    assert set(mapper.graph().parts) == {0}
    assert relative_error(street, mapper.trajectory()) < 1e-5


def test_a_device_too_small_for_any_chunk_says_so(street):
    reconstructor = Cramped(street)
    reconstructor.room = 8
    with pytest.raises(OutOfDeviceMemory):
        run(street, Mapper(config(), reconstructor))


class Rounds(OracleReconstructor):
    """Takes several chunks at once and remembers how many."""

    round_size = 3

    def __init__(self, city):
        super().__init__(city)
        self.sizes = []

    def reconstruct_round(self, chunks):
        self.sizes.append(len(chunks))
        return super().reconstruct_round(chunks)


def test_rounds_of_several_chunks_give_the_same_map(street):
    reconstructor = Rounds(street)
    mapper = Mapper(config(), reconstructor)
    run(street, mapper)
    assert reconstructor.sizes == [3, 3, 1]
    single = Mapper(config(), OracleReconstructor(street))
    run(street, single)
    for ours, theirs in zip(mapper.trajectory(), single.trajectory(), strict=True):
        np.testing.assert_array_equal(ours.T_map_camera, theirs.T_map_camera)


class Finalizing(OracleReconstructor):
    """Streams with noise; knows the truth at the end."""

    def __init__(self, city):
        super().__init__(city, REALISTIC)
        self.seen = []

    def reconstruct(self, chunk, contribute=True):
        self.seen.append(chunk)
        return super().reconstruct(chunk, contribute)

    def finalize(self):
        better = OracleReconstructor(self.city)
        return [better.reconstruct(chunk) for chunk in self.seen]


def test_finalize_maps_everything_again_under_the_next_revision(street):
    mapper = Mapper(config(memory__mode="finalize"), Finalizing(street))
    run(street, mapper)
    before = relative_error(street, mapper.trajectory())
    updates = mapper.finalize()
    assert updates[-1].corrected and updates[-1].map_revision == mapper.map_revision == 1
    assert len(updates[-1].poses) == 60
    assert relative_error(street, mapper.trajectory()) < 1e-5 < before


def test_an_interrupt_while_everything_is_mapped_again_keeps_the_old_map(street):
    class Interrupted(Finalizing):
        def finalize(self):
            yield from super().finalize()[:2]
            raise KeyboardInterrupt

    mapper = Mapper(config(memory__mode="finalize"), Interrupted(street))
    run(street, mapper)
    before = [pose.T_map_camera for pose in mapper.trajectory()]
    with pytest.raises(KeyboardInterrupt):
        mapper.finalize()
    np.testing.assert_array_equal([pose.T_map_camera for pose in mapper.trajectory()], before)
    assert mapper.consistent
