"""What tells the frames of a window apart."""

from __future__ import annotations


def check_window(window: int, overlap: int) -> None:
    """Refuse a window that has no frame beyond its overlap."""
    if not 0 <= overlap < window:
        raise ValueError(
            f"a window of {window} frames needs an overlap of 0 to {window - 1}, found {overlap}; "
            f"set chunk.size to at least chunk.overlap + 1"
        )


def window_tokens(frames: int, window: int, overlap: int) -> list[int]:
    """Which of the three window tokens each frame gets: 0 for the first `overlap` frames, 2 for
    those after `window - overlap`, 1 between.

    Decided by the nominal size, so a short window may have no token 2, and the first window of a
    sequence has token 0 too.
    """
    check_window(window, overlap)
    if frames > window:
        raise ValueError(
            f"{frames} frames do not fit a window of {window}; raise chunk.size or pass fewer"
        )
    middle = max(window - 2 * overlap, 0)
    kinds = [0] * overlap + [1] * middle + [2] * overlap
    return kinds[:frames]
