"""The sizes of a network as they stand in its checkpoint: JSON of plain values by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

_Sizes = TypeVar("_Sizes", bound="StoredSizes")


@dataclass(frozen=True)
class StoredSizes:
    """Base of a network's frozen dataclass of sizes."""

    @classmethod
    def from_dict(cls: type[_Sizes], values: Mapping[str, Any]) -> _Sizes:
        """Build from stored names; an unknown name is refused."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown architecture entries {unknown}; known are {sorted(known)}")
        return cls(**values)

    @classmethod
    def from_json(cls: type[_Sizes], text: str) -> _Sizes:
        return cls.from_dict(json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))
