"""What number formats and slice sizes of any network may be."""

from __future__ import annotations

FORMATS = ("float32", "bfloat16")


def check_formats(numerics: object, *names: str) -> None:
    """Raise `ValueError` for a field of another number format than a network can run in."""
    for name in names:
        found = getattr(numerics, name)
        if found not in FORMATS:
            raise ValueError(f"{name} must be {' or '.join(FORMATS)}, found {found}")


def check_slices(numerics: object, *names: str) -> None:
    """Raise `ValueError` for a field that slices into nothing; None takes all at once."""
    for name in names:
        found = getattr(numerics, name)
        if found is not None and found < 1:
            raise ValueError(f"{name} must be at least 1, found {found}")
