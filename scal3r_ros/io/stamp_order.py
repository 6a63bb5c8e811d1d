"""Recordings whose stamps are in disorder, as the node sees them: a little of it is sorted, a clock
that stepped back begins a new stretch, and nothing is thrown away."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar

from scal3r_ros.io.source import SourceImage

JUMP_NS = 1_000_000_000
"""Larger steps back are a clock that was set, or a second recording; smaller ones are disorder."""

log = logging.getLogger(__name__)
HELD = 4
"""Images that wait for one that was recorded late."""
_Item = TypeVar("_Item")


def sorted_closely(stamped: Iterable[tuple[int, _Item]], name: str) -> Iterator[tuple[int, _Item]]:
    """Images by their stamps (nanoseconds), where they come at most `HELD` places too late; a
    warning names the source by `name`.

    A step back by more than `JUMP_NS` is no disorder: what came before it comes out first.
    """
    held: list[tuple[int, int, _Item]] = []
    newest, late, numbers = None, 0, count()
    for stamp_ns, item in stamped:
        if newest is not None and stamp_ns < newest - JUMP_NS:
            while held:
                yield _first(held)
            newest = None
        late += newest is not None and stamp_ns < newest
        heappush(held, (stamp_ns, next(numbers), item))
        newest = stamp_ns if newest is None else max(newest, stamp_ns)
        if len(held) > HELD:
            yield _first(held)
    while held:
        yield _first(held)
    if late:
        log.warning("%s: %d images came after later ones; they are sorted", name, late)


def _first(held: list[tuple[int, int, _Item]]) -> tuple[int, _Item]:
    stamp_ns, _, item = heappop(held)
    return stamp_ns, item


def with_jumps(images: Iterable[SourceImage]) -> Iterator[tuple[SourceImage, bool]]:
    """Images, and whether the clock stepped back before one.

    One image with an older stamp may be a stray one; two in order are a jump. The first of them is
    held until the second comes: only bags have them, whose images can be decoded later.
    """
    newest: int | None = None
    suspect: SourceImage | None = None
    for image in images:
        if suspect is not None:
            jumped = suspect.stamp_ns < image.stamp_ns < (newest or 0) - JUMP_NS
            yield suspect, jumped
            newest, suspect = (suspect.stamp_ns if jumped else newest), None
        if newest is not None and image.stamp_ns < newest - JUMP_NS:
            suspect = image
            continue
        yield image, False
        newest = image.stamp_ns if newest is None else max(newest, image.stamp_ns)
    if suspect is not None:
        yield suspect, False
