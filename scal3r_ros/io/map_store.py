"""A saved map: one file of named arrays and a table of facts, written atomically, no pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scal3r_ros.files import atomic_file

VERSION = 1
_FACTS = "facts"


class BadMapFile(ValueError):
    """The file is no saved map, is damaged, or was written by another version."""


def write_map(path: str | Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Write arrays and JSON-compatible facts; raises `SaveFailed` and keeps the older file."""
    text = json.dumps({"version": VERSION, **facts}, sort_keys=True)
    with atomic_file(path) as file:
        table = {_FACTS: np.frombuffer(text.encode(), np.uint8)}
        np.savez(file, **table, **arrays)  # type: ignore[arg-type]  # none is called allow_pickle


def read_map(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_map` wrote; raises `BadMapFile`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        facts = json.loads(arrays.pop(_FACTS).tobytes())
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadMapFile(f"{path} is no saved map or is damaged: {error}") from error
    if facts.get("version") != VERSION:
        raise BadMapFile(
            f"{path} has format {facts.get('version')}, this program reads {VERSION}; map again"
        )
    return arrays, facts
