"""Images that cannot be used: left out, counted, and too many of them end the run."""

from __future__ import annotations

import logging

from scal3r_ros.io.source import BadInput

_TOLD = 5
"""Images that are warned of one by one."""
_JUDGED = 20
"""Images of a source of unknown length before their share is judged."""
log = logging.getLogger(__name__)


class BadImages:
    """The share of a source that may be bad."""

    def __init__(self, largest_share: float, total: int, known: tuple[int, ...] = ()) -> None:
        """total: images of the source, 0 if unknown. known: ids from an interrupted run."""
        self.ids = list(known)
        self._share, self._total = largest_share, total
        self._first = ""

    def __contains__(self, image_id: int) -> bool:
        return image_id in self.ids

    def note(self, image_id: int, error: BadInput) -> None:
        """Leave this image out; raises `BadInput` once they are too many."""
        self._first = self._first or str(error)
        self.ids.append(image_id)
        if len(self.ids) <= _TOLD:
            log.warning("image left out: %s", error)
        seen = image_id + 1
        if self._total or seen >= _JUDGED:
            self._judge(self._total or seen)

    def finish(self, seen: int) -> str:
        """What to report at the end, empty if all were good; raises `BadInput`."""
        self._judge(seen)
        if not self.ids:
            return ""
        return f"{len(self.ids)} of {seen} images were left out; the first: {self._first}"

    def _judge(self, count: int) -> None:
        if len(self.ids) > self._share * count:
            raise BadInput(
                f"{len(self.ids)} of {count} images cannot be used, more than input.max_bad "
                f"({self._share:g}) allows; the first: {self._first}"
            )
