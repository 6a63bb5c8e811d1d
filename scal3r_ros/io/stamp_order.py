"""A recording whose clock stepped back, as the node sees it: a new stretch, nothing thrown away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scal3r_ros.io.source import SourceImage

JUMP_NS = 1_000_000_000
"""Larger steps back are a clock that was set, or a second recording; smaller ones are disorder."""


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
