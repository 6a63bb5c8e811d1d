"""Frames that wait for their chunk survive a save."""

import numpy as np

from scal3r_ros.config import ChunkConfig
from scal3r_ros.pipeline.chunk_queue import ChunkQueue
from scal3r_ros.pipeline.state_arrays import pack_queue, unpack_queue
from scal3r_ros.records import Frame

CONFIG = ChunkConfig(size=4, overlap=1)


def frame(i: int) -> Frame:
    return Frame(i, 10 * i, np.full((3 + i % 2, 5, 3), i, np.uint8))


def loaded(arrays, facts):
    chunks = ChunkQueue(CONFIG)
    unpack_queue(chunks, arrays, facts)
    return chunks


def test_a_saved_chain_goes_on_at_the_size_of_its_first_image():
    saved = ChunkQueue(CONFIG)
    for i in range(6):
        saved.push(frame(i))
    arrays, facts = pack_queue(saved)
    found = loaded(arrays, facts)
    found.push(frame(6))
    chunk, following = found.waiting
    assert chunk.first_size == following.first_size == (3, 5)
    assert (chunk.frame_ids, following.frame_ids) == ((0, 1, 2, 3), (3, 4, 5, 6))
    assert all((a.rgb == b.rgb).all() for a, b in zip(chunk.frames, saved.waiting[0].frames))
    del facts["first_size"]  # a map of an older version
    assert loaded(arrays, facts).waiting[0].first_size is None
