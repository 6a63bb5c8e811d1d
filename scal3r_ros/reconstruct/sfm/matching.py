"""Which frames are compared, and what was found out about them, each only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import numpy as np

from scal3r_ros.reconstruct.sfm.features import FeatureKind, Features, verify
from scal3r_ros.records import Chunk, Frame

_NEIGHBOURS = (1, 2, 3, 5, 8, 12)
"""Distances in the order of time at which frames are matched."""
_LEAST_SHARE, _LEAST_SHARE_APART = 0.2, 0.3
"""Smallest share of matches that must agree with one geometry, for frames at most `_NEXT` apart,
which certainly show the same thing, and for others: between unrelated images of one room, dozens
of chance matches agree with some geometry."""
_NEXT = 2
_REVISITS = 4
"""Most similar frames of the other visit that a frame of a loop chunk is matched with."""
_CACHED_FRAMES = 256


class Matcher:
    """Features and verified pairs of the frames seen last, by frame id."""

    def __init__(self, kind: FeatureKind, limit: int, seed: int) -> None:
        self._kind, self._limit, self._seed = kind, limit, seed
        self.forget()

    def forget(self) -> None:
        """Forget all frames, for instance because their images are rectified from now on."""
        self._features: dict[int, Features] = {}
        self._geometries: dict[tuple[int, int], Any] = {}

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Inside the block nothing is known, and nothing of it is remembered: recorded images of
        frames seen before differ a little from those, and what a loop finds must not depend on
        whether they are still known."""
        known = self._features, self._geometries
        self.forget()
        try:
            yield
        finally:
            self._features, self._geometries = known

    def features_of(self, frame: Frame) -> Features:
        """Features of a rectified frame."""
        if frame.id not in self._features:
            self._features[frame.id] = self._kind.extract(frame.rgb, self._limit)
        return self._features[frame.id]

    def geometries(
        self,
        frame_ids: Sequence[int],
        features: Sequence[Features],
        pairs: Sequence[tuple[int, int]],
        camera: Any,
    ) -> dict[tuple[int, int], Any]:
        """Verified geometry of the pairs of positions that show the same thing."""
        found = {}
        for first, second in pairs:
            ids = frame_ids[first], frame_ids[second]
            if ids not in self._geometries:
                pair = features[first], features[second]
                matches = self._kind.match(*pair)
                share = _LEAST_SHARE if second - first <= _NEXT else _LEAST_SHARE_APART
                self._geometries[ids] = verify(*pair, matches, camera, self._seed, share)
            if self._geometries[ids] is not None:
                found[first, second] = self._geometries[ids]
        self._forget_old()
        return found

    def _forget_old(self) -> None:
        for frame_id in list(self._features)[:-_CACHED_FRAMES]:
            del self._features[frame_id]
        if len(self._geometries) > _CACHED_FRAMES * 2 * len(_NEIGHBOURS):
            kept = self._features.keys()
            self._geometries = {ids: g for ids, g in self._geometries.items() if kept >= set(ids)}


def pairs_in_time(count: int, first_new: int = 0) -> list[tuple[int, int]]:
    """Neighbours among `count` frames in order of time, of which the later one is not before
    `first_new`."""
    if count <= max(_NEIGHBOURS) // 2:
        pairs = set(combinations(range(count), 2))
    else:
        pairs = {(i, i + step) for step in _NEIGHBOURS for i in range(count - step)}
    return sorted(pair for pair in pairs if pair[1] >= first_new)


def pairs_of_loop(chunk: Chunk, descriptors: np.ndarray) -> list[tuple[int, int]]:
    """Neighbours within each of the two visits of a loop chunk, and frames of the other visit that
    look most alike by unit descriptors (S, D)."""
    cut = int(np.diff(chunk.frame_ids).argmax()) + 1
    pairs = set(pairs_in_time(cut))
    pairs |= {(cut + i, cut + j) for i, j in pairs_in_time(len(chunk.frames) - cut)}
    similar = descriptors[:cut] @ descriptors[cut:].T
    for row in range(cut):
        best = np.argsort(-similar[row], kind="stable")[:_REVISITS]
        pairs |= {(row, cut + int(j)) for j in best}
    for column in range(similar.shape[1]):
        best = np.argsort(-similar[:, column], kind="stable")[:_REVISITS]
        pairs |= {(int(i), cut + column) for i in best}
    return sorted(pairs)
