"""A saved map: one file of named arrays and a table of facts, written atomically, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scal3r_ros.files import BadArchive, open_arrays, write_arrays

VERSION = 1
_FACTS = "facts"


class BadMapFile(ValueError):
    """The file is no saved map, is damaged, or was written by another version."""


def write_map(path: str | Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Write arrays and JSON-compatible facts; raises `SaveFailed` and keeps the older file."""
    text = json.dumps({"version": VERSION, **facts}, sort_keys=True)
    write_arrays(path, {_FACTS: np.frombuffer(text.encode(), np.uint8), **arrays})


def read_map(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_map` wrote; raises `BadMapFile`."""
    try:
        with open_arrays(path) as file:
            arrays = dict(file)
        facts = json.loads(arrays.pop(_FACTS).tobytes())
    except (BadArchive, OSError, KeyError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadMapFile(f"{path} is no saved map or is damaged: {error}") from error
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        found = facts.get("version") if isinstance(facts, dict) else type(facts).__name__
        raise BadMapFile(f"{path} has format {found}, this program reads {VERSION}; map again")
    return arrays, facts
