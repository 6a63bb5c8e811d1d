"""Frames on their way to the worker: bounded in number, bytes and delay, every drop counted.

Only frames that are in no chunk yet are here, so that whatever is dropped, neighbouring chunks keep
sharing their overlap.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import Any

from scal3r_ros.nodes.base.node_config import QueueConfig

BLOCK_SLACK = 16
"""Frames accepted beyond the bound with policy block: those that the reordering still held."""


@dataclass(frozen=True)
class Ticket:
    """One admitted frame, not decoded yet."""

    stamp_ns: int
    message: Any
    nbytes: int
    calibration: Any = None
    starts_session: bool = False
    """The frame cannot be connected to the one before; survives if the frame is dropped."""
    resets_map: bool = False
    """The map is to be emptied before this frame; survives if the frame is dropped."""


class FrameQueue:
    """Thread-safe queue with the policies `block`, `drop_oldest` and `thin`."""

    def __init__(self, config: QueueConfig, least: int = 1) -> None:
        """`least` frames may wait however long they take: those of a chunk."""
        self.config, self.least = config, least
        self.seconds_per_frame = 0.0
        """How long the worker takes for one; 0 while that is not known."""
        self.changed = threading.Condition()
        """Notified when a frame arrives; the worker waits on it."""
        self.counts: Counter[str] = Counter(cleared=0)
        self._tickets: deque[Ticket] = deque()
        self._nbytes = 0
        self._keep_every = 1
        self._since_kept = 0
        self._session_due = False
        self._reset_due = False

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def nbytes(self) -> int:
        return self._nbytes

    @property
    def full(self) -> bool:
        """Whether another frame of the usual size would exceed a bound."""
        return self._exceeds(self._nbytes // max(1, len(self._tickets)))

    def put(self, ticket: Ticket) -> bool:
        """Queue a frame by the policy; False if this very frame was dropped."""
        with self.changed:
            accepted = getattr(self, f"_put_{self.config.policy}")(self._with_due_flags(ticket))
            self.changed.notify_all()
            return accepted

    def pop(self) -> Ticket | None:
        """The oldest frame, or None; never waits."""
        with self.changed:
            if not self._tickets:
                return None
            ticket = self._tickets.popleft()
            self._nbytes -= ticket.nbytes
            if self._keep_every > 1 and 4 * len(self._tickets) <= self._most:
                self._keep_every //= 2
            return ticket

    def clear(self) -> int:
        """Drop everything, because the map is reset or unloaded; returns how many frames."""
        with self.changed:
            dropped = len(self._tickets)
            self.counts["cleared"] += dropped
            self._tickets.clear()
            self._nbytes = 0
            self._keep_every, self._since_kept = 1, 0
            self._session_due = self._reset_due = False
            return dropped

    def _put_block(self, ticket: Ticket) -> bool:
        if len(self._tickets) >= self.config.max_frames + BLOCK_SLACK:
            return self._drop(ticket)
        return self._append(ticket)

    def _put_drop_oldest(self, ticket: Ticket) -> bool:
        while self._tickets and self._exceeds(ticket.nbytes):
            self._remove(0)
            ticket = self._with_due_flags(ticket) if not self._tickets else ticket
        return self._append(ticket)

    def _put_thin(self, ticket: Ticket) -> bool:
        """Halve the rate of what waits and of what comes, so that time stays evenly covered."""
        self._since_kept += 1
        if self._since_kept < self._keep_every:
            return self._drop(ticket)
        while self._tickets and self._exceeds(ticket.nbytes):
            for position in range(max(0, len(self._tickets) - 2), -1, -2):
                self._remove(position)
            self._keep_every *= 2
            ticket = self._with_due_flags(ticket)
        self._since_kept = 0
        return self._append(ticket)

    def _append(self, ticket: Ticket) -> bool:
        self._tickets.append(ticket)
        self._nbytes += ticket.nbytes
        self.counts["queued"] += 1
        return True

    def _drop(self, ticket: Ticket) -> bool:
        self.counts["dropped"] += 1
        self._session_due |= ticket.starts_session
        self._reset_due |= ticket.resets_map
        return False

    def _remove(self, position: int) -> None:
        """Drop a waiting frame; what it announced passes to its successor."""
        ticket = self._tickets[position]
        del self._tickets[position]
        self._nbytes -= ticket.nbytes
        self._drop(ticket)
        if position < len(self._tickets):
            self._tickets[position] = self._with_due_flags(self._tickets[position])

    def _with_due_flags(self, ticket: Ticket) -> Ticket:
        if not (self._session_due or self._reset_due):
            return ticket
        ticket = replace(
            ticket,
            starts_session=ticket.starts_session or self._session_due,
            resets_map=ticket.resets_map or self._reset_due,
        )
        self._session_due = self._reset_due = False
        return ticket

    def _exceeds(self, nbytes: int) -> bool:
        limit = self.config.max_megabytes * 1e6
        return len(self._tickets) >= self._most or self._nbytes + nbytes > limit

    @property
    def _most(self) -> int:
        """Frames that may wait: so many that they are not old when it is their turn."""
        options = self.config
        if options.policy == "block" or not (options.max_delay and self.seconds_per_frame):
            return options.max_frames
        in_time = int(options.max_delay / self.seconds_per_frame)
        return min(options.max_frames, max(self.least, in_time))
