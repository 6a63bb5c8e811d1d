"""Frames that wait for their chunk survive a save."""

import numpy as np

from scal3r_ros.config import ChunkConfig
from scal3r_ros.mapping.chunking import Chunker
from scal3r_ros.pipeline.save import pack_frames, unpack_frames
from scal3r_ros.records import Frame

CONFIG = ChunkConfig(size=4, overlap=1)


def frame(i: int) -> Frame:
    return Frame(i, 10 * i, np.full((3 + i % 2, 5, 3), i, np.uint8))


def test_a_saved_chain_goes_on_at_the_size_of_its_first_image():
    chunker = Chunker(CONFIG)
    waiting = [chunk for i in range(6) if (chunk := chunker.push(frame(i)))]
    arrays, facts = pack_frames(chunker, waiting)
    loaded = Chunker(CONFIG)
    (chunk,) = unpack_frames(loaded, arrays, facts)
    following = loaded.push(frame(6))
    assert chunk.first_size == following.first_size == (3, 5)
    assert (chunk.frame_ids, following.frame_ids) == ((0, 1, 2, 3), (3, 4, 5, 6))
    assert all((a.rgb == b.rgb).all() for a, b in zip(chunk.frames, waiting[0].frames))
    del facts["first_size"]  # a map of an older version
    assert unpack_frames(Chunker(CONFIG), arrays, facts)[0].first_size is None
