"""Order of image stamps: sorts small disorder, drops duplicates and late frames, tells a stream
that jumped back (a looping bag, a restarted clock) from one stray frame.

Forward gaps are the business of `FrameGate`, which sees what this lets through.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

from scal3r_ros.nodes.base.node_config import TimeConfig
from scal3r_ros.records import SECOND_NS

COUNTERS = ("unstamped", "duplicate", "reordered", "late", "ignored", "jump_back")
"""What is counted, all from zero, so that diagnostics have every key from the start."""


@dataclass(frozen=True)
class Released:
    """A frame whose place in the stream is certain."""

    stamp_ns: int
    item: Any
    jumped_back: bool = False
    """True for the first frame after the stamps jumped back."""


class TimeGuard:
    """Feed every stamp in order of arrival; frames come out in order of their stamps."""

    def __init__(self, config: TimeConfig) -> None:
        self.config = config
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self.last_jump_ns: int | None = None
        """Size of the last backward jump."""
        self.reset()

    def reset(self) -> None:
        """Forget the stream, held frames included."""
        self._held: list[tuple[int, int, Any]] = []
        self._order = itertools.count()
        self._newest = 0
        """Largest stamp so far, 0 before the first."""
        self._released: int | None = None
        self._suspect: tuple[int, Any] | None = None
        self._clock_jumped = False

    def clock_jumped_back(self) -> None:
        """The ROS clock went back: the next older stamp is a jump without further evidence."""
        self._clock_jumped = True

    def push(self, stamp_ns: int, item: Any) -> list[Released]:
        """Take the next frame as it arrives; returns those that are due, oldest first."""
        if stamp_ns <= 0:
            self.counts["unstamped"] += 1
            return []
        if stamp_ns > self._newest:
            self._clear_suspect()
            self._newest = stamp_ns
            return self._hold(stamp_ns, item)
        if stamp_ns == self._released or any(stamp_ns == held[0] for held in self._held):
            self.counts["duplicate"] += 1
            return []
        if self._released is None or stamp_ns > self._released:
            self.counts["reordered"] += 1
            return self._hold(stamp_ns, item)
        return self._judge_older(stamp_ns, item)

    def flush(self) -> list[Released]:
        """Everything held, for the end of the stream."""
        self._clear_suspect()
        return self._release_until(self._newest)

    def release(self) -> list[Released]:
        """The frames held for sorting, when nothing has come for long; a suspect stays one."""
        return self._release_until(self._newest)

    def _judge_older(self, stamp_ns: int, item: Any) -> list[Released]:
        """A frame older than what has been let through: late, ignored, or the start of a jump."""
        if self._newest - stamp_ns <= self.config.jump_threshold * SECOND_NS:
            if not self._clock_jumped:
                self.counts["late"] += 1
                return []
        elif self.config.on_jump_back == "ignore_frames":
            self.counts["ignored"] += 1
            return []
        if self._clock_jumped:
            return self._jump([(stamp_ns, item)])
        if self._suspect is not None and self._suspect[0] == stamp_ns:
            self.counts["duplicate"] += 1
            return []
        if self._suspect is not None and self._suspect[0] < stamp_ns:
            return self._jump([self._suspect, (stamp_ns, item)])
        self._clear_suspect()
        self._suspect = (stamp_ns, item)
        return []

    def _jump(self, frames: list[tuple[int, Any]]) -> list[Released]:
        """End the old stream and begin the new one with `frames`."""
        ended = self._release_until(self._newest)
        self.counts["jump_back"] += 1
        self.last_jump_ns = self._newest - frames[0][0]
        self.reset()
        (first_stamp, first), *rest = frames
        self._newest = self._released = first_stamp
        started = [Released(first_stamp, first, jumped_back=True)]
        for stamp_ns, item in rest:
            started += self.push(stamp_ns, item)
        return ended + started

    def _hold(self, stamp_ns: int, item: Any) -> list[Released]:
        heapq.heappush(self._held, (stamp_ns, next(self._order), item))
        window = int(self.config.reorder_window * SECOND_NS)
        return self._release_until(self._newest - window)

    def _release_until(self, stamp_ns: int) -> list[Released]:
        released = []
        while self._held and self._held[0][0] <= stamp_ns:
            due, _, item = heapq.heappop(self._held)
            self._released = due
            released.append(Released(due, item))
        return released

    def _clear_suspect(self) -> None:
        """A single older frame that nothing followed was a stray one."""
        if self._suspect is not None:
            self.counts["late"] += 1
            self._suspect = None
