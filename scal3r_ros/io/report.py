"""`report.json`: what was run, what came out, what was left out and why."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from scal3r_ros import __version__
from scal3r_ros.files import write_text

_LIBRARIES = ("numpy", "scipy", "opencv-python-headless", "torch", "pycolmap", "rosbags")


def write_report(path: str | Path, facts: Mapping[str, Any]) -> None:
    """Write facts as JSON with sorted keys; numbers that JSON has no word for become null."""
    write_text(path, json.dumps(_plain(facts), indent=2, sort_keys=True, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Version of this package, of Python and of the libraries that are installed."""
    found = {"scal3r_ros": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
