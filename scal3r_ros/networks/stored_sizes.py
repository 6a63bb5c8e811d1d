"""The sizes of a network as they stand in its checkpoint: JSON of plain values by name.

A checkpoint may be anybody's. Its sizes are checked before a network is built from them: one with a
million layers would be built for hours, one with zero heads divides by them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

_Sizes = TypeVar("_Sizes", bound="StoredSizes")
_MOST = {
    "depth": 256,
    "heads": 256,
    "steps": 64,
    "iterations": 64,
    "ratio": 64,
    "multi": 64,
    "tokens": 1024,
    "image_size": 8192,
    "pixel_limit": 2**24,
}
"""Largest whole numbers of entries with these words in their names."""
_WIDEST = 2**16
_LONGEST = 256
"""Entries of a list."""


@dataclass(frozen=True)
class StoredSizes:
    """Base of a network's frozen dataclass of sizes."""

    @classmethod
    def from_dict(cls: type[_Sizes], values: Mapping[str, Any]) -> _Sizes:
        """Build from stored names; an unknown name or a value beyond all sense is a
        `ValueError`."""
        if not isinstance(values, Mapping):
            raise ValueError(f"expected entries by name, found {type(values).__name__}")
        known = {item.name: item.default for item in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown architecture entries {unknown}; known are {sorted(known)}")
        for name, value in values.items():
            _check(name, value, known[name])
        return cls(**values)

    @classmethod
    def from_json(cls: type[_Sizes], text: str) -> _Sizes:
        try:
            values = json.loads(text)
        except RecursionError as error:
            raise ValueError("it has more levels than can be read") from error
        return cls.from_dict(values)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def _check(name: str, value: Any, default: Any) -> None:
    """Whether a value can be one of the kind of `default`; raises `ValueError`."""
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or len(value) > _LONGEST:
            raise ValueError(f"{name} must be a list of at most {_LONGEST}, found {_short(value)}")
        least = 1 if name.startswith("dpt") else 0  # widths; others are numbers of layers
        for item in value:
            _check_whole(name, item, least, _WIDEST)
    elif isinstance(default, bool | str):
        if type(value) is not type(default):
            raise ValueError(f"{name} must be {type(default).__name__}, found {_short(value)}")
    elif isinstance(default, int):
        most = min((_MOST[word] for word in _MOST if word in name), default=_WIDEST)
        _check_whole(name, value, 0 if name.endswith("_tokens") else 1, most)
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 <= value <= 1e6:
            raise ValueError(f"{name} must be a number from 0 to 1e6, found {_short(value)}")
        if "base" in name and not value:
            raise ValueError(f"{name} must be positive, found {_short(value)}")


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f"{name} must be a whole number from {least} to {most}, found {_short(value)}"
        )


def _short(value: Any) -> str:
    return repr(value)[:40]
