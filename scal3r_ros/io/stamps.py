"""Time stamps as text, in whatever unit, to integer nanoseconds; what can be no time is refused."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

import numpy as np

from scal3r_ros.io.source import BadInput
from scal3r_ros.records import SECOND_NS

_LONGEST = 64
"""Characters of a number; more are no stamp."""
_UNITS = (
    ("seconds", Decimal(10) ** 11, Decimal(10) ** 9),
    ("milliseconds", Decimal(10) ** 14, Decimal(10) ** 6),
    ("microseconds", Decimal(10) ** 17, Decimal(10) ** 3),
    ("nanoseconds", Decimal(2) ** 63, Decimal(1)),
)
"""Unit, below which magnitude it is meant, nanoseconds of one. Seconds reach the year 5138; times
since 1970 in the finer units begin far above the limit of the coarser one."""


def parse_number(text: str) -> Decimal:
    """A finite decimal number; raises `ValueError`."""
    if len(text) > _LONGEST:
        raise ValueError(f"{text[:_LONGEST]}... is no number of a sensible length")
    try:
        value = Decimal(text.strip())
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is no number") from error
    if not value.is_finite() or (value and abs(value.adjusted()) > _LONGEST):
        raise ValueError(f"{text!r} is not finite, or beyond all sense")
    return value


def to_nanoseconds(values: Sequence[Decimal], name: str) -> tuple[list[int], str]:
    """Stamps of one file (N) and the unit that they were taken for; raises `BadInput`.

    The unit is that of times since 1970 of this size. Small whole numbers that as seconds would
    lie hours apart count from the start of a recording, in microseconds or nanoseconds.
    """
    largest = max((abs(value) for value in values), default=Decimal(0))
    fitting = next((entry for entry in _UNITS if largest < entry[1]), None)
    if fitting is None:
        raise BadInput(
            f"{name}: {largest:.6g} is no time in any unit; expected seconds, or nanoseconds since "
            f"1970"
        )
    unit, _, factor = fitting
    if unit == "seconds" and (step := _whole_step(values)) >= 10_000:
        unit, factor = (
            ("nanoseconds", Decimal(1)) if step >= 1e6 else ("microseconds", _UNITS[2][2])
        )
    if largest * factor >= _UNITS[-1][1]:
        raise BadInput(
            f"{name}: {largest:.6g} {unit} is after the year 2262, which nanoseconds end"
        )
    return [int((v * factor).to_integral_value(ROUND_HALF_EVEN)) for v in values], unit


def seconds_text(stamp_ns: int) -> str:
    """Seconds with nine digits, also before the epoch: -2100000000 is -2.100000000."""
    seconds, nanoseconds = divmod(abs(stamp_ns), SECOND_NS)
    return f"{'-' if stamp_ns < 0 else ''}{seconds}.{nanoseconds:09d}"


def _whole_step(values: Sequence[Decimal]) -> float:
    """Median step of whole numbers; 0 if there are fractions, or fewer than three."""
    if len(values) < 3 or any(value != value.to_integral_value() for value in values):
        return 0.0
    return float(np.median(np.diff(np.sort(np.array(values, dtype=np.float64)))))
