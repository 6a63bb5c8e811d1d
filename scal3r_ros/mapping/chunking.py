"""Overlapping chunks by frame id: the offline partition, produced frame by frame.

A chunk of `size` frames shares its first `overlap` frames with its predecessor. Of the shared
frames the first half belongs to the earlier chunk and the rest to the later one, so that every
frame is owned exactly once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from scal3r_ros.config import ChunkConfig
from scal3r_ros.records import Chunk, Frame


def partition(count: int, size: int, overlap: int) -> list[range]:
    """Positions of the frames of each chunk when all `count` frames are known in advance."""
    if overlap >= size:
        raise ValueError(f"overlap ({overlap}) must be smaller than chunk size ({size})")
    if count <= size:
        return [range(count)] if count else []
    stride = size - overlap
    chunks = (count - overlap + stride - 1) // stride
    return [range(i * stride, min(i * stride + size, count)) for i in range(chunks)]


def middle_position(count: int) -> int:
    """Of the frame whose camera is the chunk's coordinate system, for reconstructors that choose
    the middle one, as Scal3R does: ceil(n / 2) - 1."""
    return (count + 1) // 2 - 1


def split_overlap(
    overlap_ids: Sequence[int],
    previous: Collection[int],
    current: Collection[int],
    kept: int | None = None,
) -> tuple[list[int], list[int]]:
    """Who owns the shared frames: (ids owned by the previous chunk, ids owned by the current one).

    `previous` and `current` are the frames that each chunk reconstructed; a frame that only one of
    them has goes to that one, a frame that neither has belongs to nobody. `kept` frames stay with
    the previous chunk, by default half of them.
    """
    half = len(overlap_ids) // 2 if kept is None else kept
    owners: tuple[list[int], list[int]] = ([], [])
    for position, frame_id in enumerate(overlap_ids):
        wanted = 0 if position < half else 1
        available = (frame_id in previous, frame_id in current)
        if any(available):
            owners[wanted if available[wanted] else 1 - wanted].append(frame_id)
    return owners


class Chunker:
    """Collects frames; emits a chunk whenever `size` of them are there."""

    def __init__(self, config: ChunkConfig) -> None:
        self.config = config
        self.size = config.size
        self.session = 0
        self._next_index = 0
        self._buffer: list[Frame] = []
        self._overlap_ids: tuple[int, ...] = ()
        self.first_size: tuple[int, int] | None = None
        """Of the first frame ever pushed; see `Chunk`."""

    @property
    def pending(self) -> tuple[Frame, ...]:
        """Frames held for the next chunk, its overlap with the previous one included."""
        return tuple(self._buffer)

    @property
    def overlap_ids(self) -> tuple[int, ...]:
        """Ids of the pending frames that the previous chunk already had."""
        return self._overlap_ids

    @property
    def new_frames(self) -> int:
        """Pending frames that were in no chunk yet."""
        return len(self._buffer) - len(self._overlap_ids)

    @property
    def upcoming_index(self) -> int:
        """Index that the next chunk will get."""
        return self._next_index

    def next_index(self) -> int:
        """Reserve the next chunk index; loop chunks take theirs here too."""
        index = self._next_index
        self._next_index += 1
        return index

    def push(self, frame: Frame) -> Chunk | None:
        """Add the next frame; returns a chunk when one is complete."""
        if self._buffer and frame.id <= self._buffer[-1].id:
            raise ValueError(
                f"frame ids must increase: {frame.id} came after {self._buffer[-1].id}"
            )
        if self.first_size is None:
            self.first_size = frame.rgb.shape[:2]
        self._buffer.append(frame)
        return self._emit(self.next_index()) if len(self._buffer) >= self.size else None

    def flush(self) -> Chunk | None:
        """The last, possibly short chunk of the session; None if every frame was in a chunk.

        After `recut` there may be several: call until None.
        """
        return self._emit(self.next_index()) if self.new_frames else None

    def start_session(self) -> Chunk | None:
        """End the chain (as `flush`) and begin a new one that shares no frame with it."""
        last = self.flush()
        if self.new_frames:
            raise ValueError(
                f"{self.new_frames} frames wait for further chunks; flush until None first"
            )
        self._buffer, self._overlap_ids = [], ()
        self.session += 1
        return last

    def recut(self, chunks: Sequence[Chunk], size: int) -> list[Chunk]:
        """Take the chunks emitted last back and cut their frames again, `size` in each.

        For a device that cannot hold them: later chunks have that size too. At least one frame
        beyond the overlap stays. Frames that fill no chunk yet wait for the next.
        """
        size = max(size, self.config.overlap + 1)
        longest = max(len(chunk.frames) for chunk in chunks)
        if not 0 < size < longest:
            raise ValueError(f"chunks of {longest} frames cannot be cut down to {size}")
        frames = {f.id: f for chunk in chunks for f in chunk.frames}
        frames |= {f.id: f for f in self._buffer}
        self.size, self._overlap_ids = size, chunks[0].overlap_ids
        self._buffer = list(frames.values())
        indices = [chunk.index for chunk in chunks]
        cut = []
        while len(self._buffer) >= size:
            cut.append(self._emit(indices.pop(0) if indices else self.next_index()))
        return cut

    def restore(
        self,
        pending: Sequence[Frame],
        overlap: int,
        session: int,
        next_index: int,
        first_size: tuple[int, int] | None = None,
    ) -> None:
        """Continue a saved chain: its pending frames, of which the first `overlap` were shared."""
        self.first_size = first_size
        self._buffer = list(pending)
        self._overlap_ids = tuple(frame.id for frame in self._buffer[:overlap])
        self.session, self._next_index = session, next_index

    def _emit(self, index: int) -> Chunk:
        frames = tuple(self._buffer[: self.size])
        rest = self._buffer[len(frames) :]
        chunk = Chunk(index, self.session, frames, self._overlap_ids, first_size=self.first_size)
        self._keep(frames)
        self._buffer += rest
        return chunk

    def _keep(self, frames: tuple[Frame, ...]) -> None:
        """Hold the end of an emitted chunk as the start of the next one."""
        self._buffer = list(frames[-self.config.overlap :])
        self._overlap_ids = tuple(frame.id for frame in self._buffer)
