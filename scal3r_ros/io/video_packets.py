"""Video that comes as one packet a message, decoded by the optional library PyAV.

H.264 and its kin in `sensor_msgs/CompressedImage`, and `foxglove_msgs/CompressedVideo`. A packet is
no image of its own: most hold what changed since the one before, so all of them are decoded in
order, and those between a lost packet and the next key frame have no image.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from scal3r_ros.io.h264_frames import FrameNumbers
from scal3r_ros.io.image_header import declared_size
from scal3r_ros.io.source import BadInput

_CODECS = {
    "h264": ("h264", "h.264", "avc"),
    "hevc": ("h265", "h.265", "hevc"),
    "vp8": ("vp8",),
    "vp9": ("vp9",),
    "av1": ("av1",),
}
"""Names that FFmpeg gives to codecs, and words that announce them."""
_NAMES = {"h264": "H.264", "hevc": "H.265", "vp8": "VP8", "vp9": "VP9", "av1": "AV1"}
_START = re.compile(rb"\x00\x00\x01([\x00-\xff])")
"""Where a unit of H.264 or H.265 begins, and its first byte."""
_H265_HEADS = (0x40, 0x42, 0x44, 0x46, 0x4E)
"""First bytes of parameter sets, delimiters and notes of H.265 (ITU-T H.265, table 7-1)."""

_LATE = 1.7
"""Usual times between packets after which one is missing."""

Item = TypeVar("Item")


def video_codec(message: Any) -> str:
    """The codec of a message that is a packet of video, by its format, else by its first bytes;
    empty for an image."""
    announced = str(message.format).lower()
    for codec, words in _CODECS.items():
        if any(word in announced for word in words):
            return codec
    start = bytes(message.data[:256])
    if not start.startswith((b"\0\0\0\1", b"\0\0\1")) or declared_size(start) is not None:
        return ""
    unit = _START.search(start)
    return "hevc" if unit and unit[1][0] in _H265_HEADS else "h264"


def codec_name(codec: str) -> str:
    """The usual spelling, for messages."""
    return _NAMES[codec]


@dataclass(frozen=True)
class Decoded(Generic[Item]):
    """What became of one packet."""

    item: Item
    """What the packet was handed in with."""
    rgb: Callable[[], np.ndarray]
    """(H, W, 3) uint8; raises `BadInput` for a packet without an image."""


class _Pace:
    """The usual time between packets; where codecs do not number their frames, a longer one is
    taken for a loss."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._steps: deque[int] = deque(maxlen=15)

    def late(self, stamp_ns: int) -> bool:
        """Whether this packet comes later than it should after the one before."""
        last, self._last = self._last, stamp_ns
        if last is None or stamp_ns <= last:
            return False
        usual = sorted(self._steps)[len(self._steps) // 2] if self._steps else stamp_ns - last
        self._steps.append(stamp_ns - last)
        return stamp_ns - last > _LATE * usual


class PacketDecoder(Generic[Item]):
    """Decodes the packets of one stream; images come in order of time, some packets later."""

    def __init__(self, codec: str, name: str, max_pixels: int) -> None:
        """Raises `BadInput` where PyAV is not installed."""
        try:
            import av
        except ImportError as error:
            raise BadInput(
                f"{name} holds packets of {codec_name(codec)} video, which need the library PyAV: "
                f"pip install av"
            ) from error
        self.codec, self._name = codec, name
        self._errors, self._packet = (av.error.FFmpegError, ValueError), av.Packet
        self._context: Any = av.CodecContext.create(codec, "r")
        self._context.thread_type = "SLICE"  # threads by frame would delay every image
        self._context.options = {"max_pixels": str(max_pixels)}
        self._waiting: dict[int, tuple[int, Item]] = {}
        """Stamp and item of the packets whose image has not come out, by their number."""
        self._count = 0
        self._gaps: list[int] = []
        """Numbers of the packets before which one is missing; the next key frame mends it."""
        self._numbers, self._pace = FrameNumbers(), _Pace()

    def feed(self, data: bytes, stamp_ns: int, item: Item) -> list[Decoded[Item]]:
        """Decode the next packet; returns what has come out, of this packet or of earlier ones.

        `stamp_ns`: of its image, which may be later than that of the next packets.
        """
        packet = self._packet(data)
        packet.pts = packet.dts = self._count
        if self._has_picture(data):
            self._waiting[self._count] = (stamp_ns, item)
        if self._misses(data, stamp_ns):
            self._gaps.append(self._count)
        self._count += 1
        return self._decode(packet)

    def _misses(self, data: bytes, stamp_ns: int) -> bool:
        """Whether a packet seems to be missing before this one, which decoders fill in silence."""
        if self.codec == "h264":
            return not self._numbers.follows(data)
        if self.codec == "hevc":
            return False  # its decoder knows what it refers to
        return self._pace.late(stamp_ns)

    def flush(self) -> list[Decoded[Item]]:
        """What is left at the end."""
        found = self._decode(None)
        rest, self._waiting = list(self._waiting.values()), {}
        return [*found, *(self._lost(item) for _, item in rest)]

    def _decode(self, packet: Any) -> list[Decoded[Item]]:
        try:
            frames = self._context.decode(packet)
        except self._errors:
            return []  # its item waits, and is told as lost when a later one has its image
        found: list[Decoded[Item]] = []
        for frame in frames:
            if frame.pts not in self._waiting:
                continue
            stamp_ns, item = self._waiting.pop(frame.pts)
            earlier = [n for n, (waiting_ns, _) in self._waiting.items() if waiting_ns < stamp_ns]
            found += [self._lost(self._waiting.pop(number)[1]) for number in earlier]
            if frame.key_frame:
                self._gaps = [number for number in self._gaps if number > frame.pts]
            broken = frame.is_corrupt or any(number <= frame.pts for number in self._gaps)
            found.append(self._lost(item) if broken else self._seen(item, frame))
        return found

    def _seen(self, item: Item, frame: Any) -> Decoded[Item]:
        def convert() -> np.ndarray:
            try:
                return frame.to_ndarray(format="rgb24")
            except self._errors as error:
                raise BadInput(f"{self._name}: {codec_name(self.codec)} video: {error}") from error

        return Decoded(item, convert)

    def _lost(self, item: Item) -> Decoded[Item]:
        def refuse() -> np.ndarray:
            raise BadInput(
                f"{self._name}: a packet of {codec_name(self.codec)} video gives no image; it is "
                f"damaged, too large, or the key frame before it is missing"
            )

        return Decoded(item, refuse)

    def _has_picture(self, data: bytes) -> bool:
        """Parameter sets may come in packets of their own."""
        if self.codec == "h264":
            return any(unit[1][0] & 0x1F in (1, 2, 5) for unit in _START.finditer(data))
        if self.codec == "hevc":
            return any(unit[1][0] >> 1 & 0x3F < 32 for unit in _START.finditer(data))
        return bool(data)
