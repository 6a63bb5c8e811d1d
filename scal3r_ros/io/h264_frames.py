"""Whether a packet of H.264 is missing, by the numbers that reference frames bear.

A decoder fills a gap with older pixels and says nothing. Section numbers are of ITU-T H.264.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_UNIT = re.compile(rb"\x00\x00\x01([\x00-\xff])")
_SLICES, _KEY, _PARAMETERS = (1, 2, 5), 5, 7
"""Types of units, table 7-1."""
_WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
"""Profiles whose parameter sets tell the chroma format, 7.3.2.1.1."""
_HEAD = 512


class FrameNumbers:
    """Follows the frames of one stream."""

    def __init__(self) -> None:
        self._bits, self._gaps_allowed, self._planes_apart = 0, True, False
        self._last: int | None = None

    def follows(self, data: bytes) -> bool:
        """Whether no reference frame is missing before the picture of this packet."""
        for unit in _units(data):
            kind = unit[0] & 31
            try:
                if kind == _PARAMETERS:
                    self._read_parameters(_Bits(unit[1:]))
                elif kind in _SLICES:
                    return self._read_slice(unit, kind)
            except IndexError:
                return True  # cut short; the decoder will say so
        return True

    def _read_slice(self, unit: bytes, kind: int) -> bool:
        """7.3.3: the frame's number stands near the start of each slice."""
        if not self._bits:
            return True
        bits = _Bits(unit[1:])
        for _ in range(3):  # first macroblock, type, parameter set
            bits.exponential()
        if self._planes_apart:
            bits.read(2)
        number, size = bits.read(self._bits), 1 << self._bits
        before, self._last = self._last, number if unit[0] & 0x60 else self._last
        if kind == _KEY or before is None or self._gaps_allowed:
            return True
        return number in (before, (before + 1) % size)  # 7.4.3

    def _read_parameters(self, bits: _Bits) -> None:
        """7.3.2.1.1, as far as the number of a frame needs it."""
        profile = bits.read(24) >> 16
        bits.exponential()
        self._planes_apart = False
        if profile in _WITH_CHROMA:
            chroma = bits.exponential()
            if chroma == 3:
                self._planes_apart = bool(bits.read(1))
            bits.exponential(), bits.exponential(), bits.read(1)
            if bits.read(1):
                for number in range(8 if chroma != 3 else 12):
                    if bits.read(1):
                        _skip_scaling(bits, 16 if number < 6 else 64)
        self._bits = bits.exponential() + 4
        order = bits.exponential()
        if order == 0:
            bits.exponential()
        elif order == 1:
            bits.read(1)
            for _ in range(2):
                bits.exponential()
            for _ in range(bits.exponential()):
                bits.exponential()
        bits.exponential()  # number of reference frames
        self._gaps_allowed = bool(bits.read(1))


def _units(data: bytes) -> Iterator[bytes]:
    """The first bytes of each unit, without the bytes that keep start codes apart (7.4.1)."""
    for found in _UNIT.finditer(data):
        at = found.start(1)
        yield data[at : at + _HEAD].replace(b"\x00\x00\x03", b"\x00\x00")


def _skip_scaling(bits: _Bits, count: int) -> None:
    """7.3.2.1.1.1: differences until the next value is zero."""
    last = following = 8
    for _ in range(count):
        if following:
            step = bits.exponential()
            following = (last + (step // 2 + 1 if step % 2 else -(step // 2))) % 256
        last = following or last


class _Bits:
    """Bits of a unit; raises `IndexError` at its end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        if count > self._left:
            raise IndexError("the unit ends")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def exponential(self) -> int:
        """An exponential Golomb code, 9.1."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise IndexError("no code is that long")
        return (1 << zeros) - 1 + self.read(zeros)
