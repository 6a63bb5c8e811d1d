"""Chunks by frame id: the stream of chunks is the offline partition, for every length."""

import numpy as np
import pytest

from scal3r_ros.config import ChunkConfig
from scal3r_ros.mapping.chunking import Chunker, partition, split_overlap
from scal3r_ros.records import Frame

IMAGE = np.zeros((2, 2, 3), np.uint8)


def frames(count: int, first: int = 0) -> list[Frame]:
    return [Frame(first + i, 1000 * (first + i), IMAGE) for i in range(count)]


def drain(chunker: Chunker) -> list:
    chunks = []
    while chunk := chunker.flush():
        chunks.append(chunk)
    return chunks


def stream(chunker: Chunker, items: list[Frame]) -> list:
    return [chunk for frame in items if (chunk := chunker.push(frame))]


@pytest.mark.parametrize(("size", "overlap"), [(60, 30), (7, 3), (5, 4), (2, 1), (10, 1)])
def test_stream_reproduces_the_offline_partition(size, overlap):
    for count in [*range(1, 4 * size), 4541]:
        chunker = Chunker(ChunkConfig(size=size, overlap=overlap))
        chunks = stream(chunker, frames(count)) + drain(chunker)
        found = [chunk.frame_ids for chunk in chunks]
        assert found == [tuple(ids) for ids in partition(count, size, overlap)]
        for before, after in zip(chunks, chunks[1:]):
            assert after.overlap_ids == before.frame_ids[-overlap:] == after.frame_ids[:overlap]
        assert [chunk.index for chunk in chunks] == list(range(len(chunks)))


def test_scal3rs_sizes_give_scal3rs_chunks():
    chunks = partition(4541, 60, 30)
    assert len(chunks) == 151
    assert chunks[0] == range(60)
    assert chunks[1] == range(30, 90)
    assert chunks[-1] == range(4500, 4541)
    assert partition(60, 60, 30) == [range(60)]
    assert [len(c) for c in partition(61, 60, 30)] == [60, 31]


def test_every_frame_is_owned_once_and_as_in_scal3r():
    chunks = [tuple(ids) for ids in partition(250, 60, 30)]
    owned: dict[int, int] = dict.fromkeys(chunks[0], 0)
    for k, (before, after) in enumerate(zip(chunks, chunks[1:]), start=1):
        shared = [i for i in after if i in before]
        to_previous, to_current = split_overlap(shared, before, after)
        assert sorted(to_previous + to_current) == shared
        owned.update(dict.fromkeys(to_current, k))
        owned.update(dict.fromkeys((i for i in after if i not in before), k))
    assert [i for i, k in owned.items() if k == 0] == list(range(45))
    assert [i for i, k in owned.items() if k == 2] == list(range(75, 105))
    assert sorted(owned) == list(range(250))


def test_a_frame_that_one_chunk_lost_goes_to_the_other():
    assert split_overlap([1, 2, 3, 4], {1, 3, 4}, {2, 4}) == ([1, 3], [2, 4])
    assert split_overlap([1, 2, 3], {1, 2}, set()) == ([1, 2], [])
    assert split_overlap([1, 2, 3], set(), set()) == ([], [])


def test_a_new_session_shares_nothing_with_the_old_one():
    chunker = Chunker(ChunkConfig(size=6, overlap=2))
    first = stream(chunker, frames(9))
    tail = chunker.start_session()
    second = stream(chunker, frames(6, first=9))
    assert tail.frame_ids == (4, 5, 6, 7, 8)
    assert tail.overlap_ids == (4, 5)
    assert second[0].frame_ids == (9, 10, 11, 12, 13, 14)
    assert second[0].overlap_ids == ()
    assert [c.session for c in (*first, tail, *second)] == [0, 0, 1]


def test_loop_chunks_take_indices_from_the_same_row():
    chunker = Chunker(ChunkConfig(size=3, overlap=1))
    first = stream(chunker, frames(3))
    assert chunker.next_index() == 1
    assert [first[0].index, stream(chunker, frames(2, first=3))[0].index] == [0, 2]


def test_a_chunk_too_large_for_the_device_shrinks_and_loses_no_frame():
    chunker = Chunker(ChunkConfig(size=10, overlap=4))
    chunk = stream(chunker, frames(10))[0]
    small = chunker.recut([chunk], 6)
    chunks = [*small, *stream(chunker, frames(20, first=10)), *drain(chunker)]
    assert [c.frame_ids[0] for c in small] == [0, 2, 4]
    assert_chain(chunks, 6, 30)


@pytest.mark.parametrize("size", [6, 7, 9])
def test_chunks_of_a_round_are_cut_again_together(size):
    chunker = Chunker(ChunkConfig(size=10, overlap=4))
    done, *waiting = stream(chunker, frames(30))
    loop = chunker.next_index()
    small = chunker.recut(waiting, size)
    assert small[0].overlap_ids == done.frame_ids[-4:]
    assert [c.index for c in small][: len(waiting)] == [c.index for c in waiting]
    assert loop not in {c.index for c in small} and len({c.index for c in small}) == len(small)
    rest = stream(chunker, frames(7, first=30)) + drain(chunker)
    assert_chain([*small, *rest], size, 37, first=6)


def assert_chain(chunks, size, end, first=0):
    """No frame is lost and neighbours share as many as configured."""
    assert all(len(c.frames) <= size for c in chunks)
    for before, after in zip(chunks, chunks[1:]):
        assert after.overlap_ids == before.frame_ids[-4:]
    assert sorted({i for c in chunks for i in c.frame_ids}) == list(range(first, end))


def test_chunks_cannot_be_cut_below_their_overlap():
    chunker = Chunker(ChunkConfig(size=5, overlap=4))
    with pytest.raises(ValueError, match="chunks of 5 frames cannot be cut down to 5"):
        chunker.recut(stream(chunker, frames(6)), 3)


def test_saved_chain_continues_with_the_same_chunks():
    whole = Chunker(ChunkConfig(size=8, overlap=3))
    expected = stream(whole, frames(30)) + drain(whole)
    first = Chunker(ChunkConfig(size=8, overlap=3))
    found = stream(first, frames(17))
    second = Chunker(ChunkConfig(size=8, overlap=3))
    second.restore(first.pending, len(first.overlap_ids), first.session, first.next_index())
    found += stream(second, frames(13, first=17)) + drain(second)
    assert [c.frame_ids for c in found] == [c.frame_ids for c in expected]
    assert [c.overlap_ids for c in found] == [c.overlap_ids for c in expected]


def test_every_chunk_knows_the_size_of_the_first_image_of_all():
    first = np.zeros((3, 5, 3), np.uint8)
    chunker = Chunker(ChunkConfig(size=4, overlap=1))
    chunks = stream(chunker, [Frame(0, 0, first), *frames(12, first=1)])
    chunker.start_session()
    chunks += stream(chunker, frames(4, first=20))
    chunks += chunker.recut(chunks[-1:], 3)
    assert {c.first_size for c in chunks} == {(3, 5)} and len(chunks) == 6


def test_frames_must_arrive_in_order():
    chunker = Chunker(ChunkConfig())
    chunker.push(Frame(5, 0, IMAGE))
    with pytest.raises(ValueError, match="must increase: 5 came after 5"):
        chunker.push(Frame(5, 0, IMAGE))
    with pytest.raises(ValueError, match="smaller than chunk size"):
        partition(10, 3, 3)
