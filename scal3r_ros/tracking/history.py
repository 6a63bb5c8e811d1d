"""The last observations by time: what a chunk that comes seconds late is joined to the present by.

Bounded in number; nothing of the images is kept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping

import numpy as np

from scal3r_ros.tracking.corners import Observations

_LENGTH = 1200
"""Images remembered: 40 s at 30 Hz."""


class History:
    """Observations of the newest images, in order of their stamps."""

    def __init__(self) -> None:
        self._entries: list[Observations] = []

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, observations: Observations) -> None:
        """Add the newest."""
        self._entries.append(observations)
        if len(self._entries) > _LENGTH:
            del self._entries[: len(self._entries) - _LENGTH]

    def replace_newest(self, observations: Observations) -> None:
        """The newest image was understood better."""
        self._entries[-1] = observations

    def at(self, stamp_ns: int) -> Observations | None:
        """Those of exactly that time, if they are still known."""
        place = bisect_left(self._entries, stamp_ns, key=lambda entry: entry.stamp_ns)
        found = place < len(self._entries) and self._entries[place].stamp_ns == stamp_ns
        return self._entries[place] if found else None

    def thinned_after(self, stamp_ns: int, count: int, most_left_out: int) -> list[Observations]:
        """The next ones behind that time: about `count`, evenly spread up to the newest, but never
        more than `most_left_out` between two of them."""
        place = bisect_right(self._entries, stamp_ns, key=lambda entry: entry.stamp_ns)
        left = len(self._entries) - place
        step = min(max(1, -(-left // count)), most_left_out + 1)
        # Counted from the newest, so that it is among them.
        return self._entries[place + (left - 1) % step :: step][:count]

    @property
    def newest(self) -> Observations:
        """Of the newest image; there must be one."""
        return self._entries[-1]

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest; -1 when there is none."""
        return self._entries[-1].stamp_ns if self._entries else -1

    def state(self) -> dict[str, np.ndarray]:
        none = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.float32)]
        return {
            "stamps": np.array([entry.stamp_ns for entry in self._entries], np.int64),
            "counts": np.array([len(entry.ids) for entry in self._entries], np.int64),
            "ids": np.concatenate([entry.ids for entry in self._entries] or none[0]),
            "pixels": np.concatenate([entry.pixels for entry in self._entries] or none[1]),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        ends = np.cumsum(state["counts"])[:-1]
        parts = zip(np.split(state["ids"], ends), np.split(state["pixels"], ends))
        stamps = state["stamps"].tolist()
        self._entries = [Observations(s, i.copy(), p.copy()) for s, (i, p) in zip(stamps, parts)]
