"""The time of a bag while it is played: at a rate, and standing still while paused."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Maps bag time to steady time at a rate, and stands still while paused."""

    def __init__(self, rate: float, paused: bool, now: Callable[[], float] = time.monotonic):
        if not rate > 0:
            raise ValueError(f"rate must be positive, found {rate}")
        self._rate, self._now = rate, now
        self._anchor, self._bag_ns, self._paused = now(), 0, paused

    @property
    def paused(self) -> bool:
        return self._paused

    def restart(self, bag_ns: int) -> None:
        """Bag time is `bag_ns` now."""
        self._anchor, self._bag_ns = self._now(), bag_ns

    def set_paused(self, paused: bool) -> None:
        """Stop or go on; the time spent paused does not count."""
        self.restart(self.bag_time())
        self._paused = paused

    def bag_time(self) -> int:
        """Bag time now, nanoseconds."""
        if self._paused:
            return self._bag_ns
        return self._bag_ns + int((self._now() - self._anchor) * self._rate * 1e9)

    def seconds_until(self, bag_ns: int) -> float:
        """Steady seconds until bag time reaches `bag_ns`; infinite while paused."""
        if self._paused:
            return float("inf")
        return (bag_ns - self.bag_time()) / 1e9 / self._rate
