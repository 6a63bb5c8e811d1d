"""Text and YAML files of an input; what is wrong with one is a `BadInput`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from scal3r_ros import texts
from scal3r_ros.io.source import BadInput

_Read = TypeVar("_Read")


def read_text(path: Path) -> str:
    """Text in UTF-8, or in UTF-16 with a byte order mark; raises `BadInput`."""
    return _of_input(texts.read_text, path)


def read_yaml(path: Path) -> Any:
    """Content of a YAML file, also of OpenCV's `FileStorage`; raises `BadInput`."""
    return _of_input(texts.read_yaml, path)


def _of_input(read: Callable[[Path], _Read], path: Path) -> _Read:
    try:
        return read(path)
    except texts.BadText as error:
        raise BadInput(str(error)) from error
