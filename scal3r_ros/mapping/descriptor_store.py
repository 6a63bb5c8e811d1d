"""Descriptors of all frames of a session, in blocks, for one nearest neighbour search per frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

DESCRIPTOR_WIDTH = 512
"""Longer descriptors are projected to this many numbers; cosines survive to about one by its
root."""
CAPACITY = 100_000
"""Descriptors kept; beyond it every second of the older half is dropped."""
BLOCK = 4096
"""Rows of one block: growing never copies what is there."""


class DescriptorStore:
    """Unit vectors by frame id, ascending.

    Values are rounded to half precision, so that a saved store is exact at half the size, and held
    in single precision, in which they are multiplied.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._clear()

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> np.ndarray:
        """(N,) int64 frame ids."""
        return np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in self._filled())])

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Remember frames newer than all before; `vectors` (n, D) float32."""
        fresh = ids > self._last
        rounded = vectors[fresh].astype(np.float16).astype(np.float32)
        self._append(ids[fresh], rounded)
        if len(self) > self.capacity:
            self._thin()

    def mean(self) -> np.ndarray:
        """(D,) mean of all; the sums are exact, whatever the order in which they were made."""
        return (self._sum / max(self._count, 1)).astype(np.float32)

    def nearest(
        self, vectors: np.ndarray, newest: np.ndarray, answers: int = 1, apart: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `answers` (k) largest cosines (n, k) with the stored vectors, their mean subtracted
        from both sides, and the frame ids (n, k) where they are found; -inf where nothing is.

        newest: (n,) the last frame id that each vector may be matched with. Answers to one vector
        are frames more than `apart` from each other: places, not views of one place.
        """
        mean = self.mean()
        centred = vectors - mean
        centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
        values = [np.full((len(vectors), 0), -np.inf)]
        matches = [np.full((len(vectors), 0), -1, np.int64)]
        for ids, past in self._filled():
            if ids[0] > newest.max():
                break
            # (p - m) . c and |p - m| without forming p - m, which would copy the block.
            product = centred @ past.T - (centred @ mean)[:, None]
            squares = np.einsum("nd,nd->n", past, past) - 2.0 * (past @ mean) + mean @ mean
            cosine = product / np.sqrt(np.maximum(squares, 1e-12))
            cosine[ids[None] > newest[:, None]] = -np.inf
            found = _best_places(cosine, np.broadcast_to(ids, cosine.shape), answers, apart)
            values.append(found[0])
            matches.append(found[1])
        values.append(np.full((len(vectors), answers), -np.inf))
        matches.append(np.full((len(vectors), answers), -1, np.int64))
        everything = np.concatenate(values, axis=1), np.concatenate(matches, axis=1)
        return _best_places(*everything, answers, apart)

    def centred(self, frame_ids: Sequence[int]) -> dict[int, np.ndarray]:
        """Unit vectors of those frames that are stored, the mean of all subtracted first."""
        mean, found = self.mean(), {}
        for ids, vectors in self._filled():
            for row in np.flatnonzero(np.isin(ids, frame_ids)).tolist():
                vector = vectors[row] - mean
                found[int(ids[row])] = vector / max(float(np.linalg.norm(vector)), 1e-6)
        return found

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays, to save and restore."""
        vectors = [vectors.astype(np.float16) for _, vectors in self._filled()]
        width = vectors[0].shape[1] if vectors else 0
        empty = np.zeros((0, width), np.float16)
        return {"ids": self.ids, "descriptors": np.concatenate([empty, *vectors])}

    def restore(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Hold what a saved store held."""
        self._clear()
        self._append(np.asarray(ids, np.int64), np.asarray(vectors, np.float32))

    def _clear(self) -> None:
        self._blocks: list[tuple[np.ndarray, np.ndarray]] = []
        self._count, self._last = 0, -np.inf
        self._sum = np.zeros(())

    def _filled(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids and vectors of each block, without its free rows."""
        for number, (ids, vectors) in enumerate(self._blocks):
            used = min(self._count - number * BLOCK, BLOCK)
            yield ids[:used], vectors[:used]

    def _append(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        if not len(ids):
            return
        self._sum = self._sum + vectors.sum(axis=0, dtype=np.float64)
        self._last = int(ids[-1])
        while len(ids):
            row = self._count % BLOCK
            if not row:
                fresh = np.zeros((BLOCK, vectors.shape[1]), np.float32)
                self._blocks.append((np.zeros(BLOCK, np.int64), fresh))
            taken = min(BLOCK - row, len(ids))
            known_ids, known = self._blocks[-1]
            known_ids[row : row + taken], known[row : row + taken] = ids[:taken], vectors[:taken]
            self._count += taken
            ids, vectors = ids[taken:], vectors[taken:]

    def _thin(self) -> None:
        """Drop every second vector of the older half."""
        saved = self.state()
        half = self._count // 2
        keep = np.concatenate([np.arange(0, half, 2), np.arange(half, self._count)])
        self.restore(saved["ids"][keep], saved["descriptors"][keep])


def _best_places(
    cosine: np.ndarray, ids: np.ndarray, answers: int, apart: int
) -> tuple[np.ndarray, np.ndarray]:
    """The largest of each row (n, m), then the largest away from it, and so on: (n, answers)."""
    rows, left = np.arange(len(cosine)), cosine.copy()
    values, matches = [], []
    for _ in range(min(answers, cosine.shape[1])):
        top = left.argmax(axis=1)
        values.append(left[rows, top])
        matches.append(np.where(np.isfinite(values[-1]), ids[rows, top], -1))
        if len(values) < answers:
            left[np.abs(ids - matches[-1][:, None]) <= apart] = -np.inf
            left[rows, top] = -np.inf
    return np.stack(values, axis=1), np.stack(matches, axis=1)
