"""Which frames of the stream become candidates: decided by time stamps alone, before decoding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from scal3r_ros.config import GateConfig
from scal3r_ros.records import SECOND_NS


@dataclass(frozen=True)
class GateDecision:
    """Whether to keep a frame and, if not, why."""

    keep: bool
    reason: str
    """`kept`, `stride`, `rate`, `duplicate_stamp` or `backward_stamp`."""
    starts_session: bool = False
    """True for the first frame after a gap: it cannot be connected to what came before."""


class FrameGate:
    """Stride, maximum rate, stamp order and gaps."""

    def __init__(self, config: GateConfig) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """Forget the stream's time, for instance after its clock jumped back."""
        self._last_seen: int | None = None
        self._due = 0
        self._since_stride = 0

    @property
    def last_stamp_ns(self) -> int | None:
        """Newest stamp seen."""
        return self._last_seen

    def restore(self, last_stamp_ns: int | None) -> None:
        """Continue a saved stream: older stamps are refused, a long pause is a gap."""
        self.reset()
        self._last_seen = last_stamp_ns

    def admit(self, stamp_ns: int) -> GateDecision:
        """Judge the next frame of the stream by its stamp."""
        decision = self._judge(stamp_ns)
        self.counts[decision.reason] += 1
        if decision.starts_session:
            self.counts["gap"] += 1
        return decision

    def _judge(self, stamp_ns: int) -> GateDecision:
        last, gap = self._last_seen, False
        if last is not None:
            if stamp_ns == last:
                return GateDecision(False, "duplicate_stamp")
            if stamp_ns < last:
                return GateDecision(False, "backward_stamp")
            max_gap = self.config.max_gap * SECOND_NS
            gap = bool(max_gap) and stamp_ns - last > max_gap
        self._last_seen = stamp_ns
        if last is None or gap:
            self._since_stride, self._due = 0, stamp_ns
        on_stride = self._since_stride % self.config.stride == 0
        self._since_stride += 1
        if not on_stride:
            return GateDecision(False, "stride")
        return self._limit_rate(stamp_ns, gap)

    def _limit_rate(self, stamp_ns: int, gap: bool) -> GateDecision:
        """Keep frames on a schedule, so that jitter of the camera does not halve the rate."""
        if self.config.max_rate > 0:
            period = int(SECOND_NS / self.config.max_rate)
            if stamp_ns < self._due - period // 20:
                return GateDecision(False, "rate")
            self._due = max(self._due + period, stamp_ns + period * 9 // 10)
        return GateDecision(True, "kept", gap)
