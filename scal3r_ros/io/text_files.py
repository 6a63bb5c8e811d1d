"""Text and YAML files of strangers: any usual encoding, bounded size, nothing that grows."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import yaml

from scal3r_ros.files import BadArchive, open_regular
from scal3r_ros.io.source import BadInput

LARGEST = 64 * 2**20
"""Bytes of the largest index or trajectory."""
LARGEST_YAML = 2**20


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Text in UTF-8, or in UTF-16 with a byte order mark; raises `BadInput`."""
    try:
        with open_regular(path) as file:
            data = file.read(largest + 1)
    except BadArchive as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    if len(data) > largest:
        raise BadInput(f"{path} has more than {largest} bytes; it is no file of this kind")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no text in UTF-8 ({error.reason}); save it as such") from error


def read_yaml(path: Path) -> Any:
    """Content of a YAML file, also of OpenCV's `FileStorage`; raises `BadInput`."""
    text = read_text(path, LARGEST_YAML)
    if text.startswith("%YAML:"):  # OpenCV writes what YAML forbids: a colon, not a space
        text = text.partition("\n")[2]
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" line {line + 1}"
        why = getattr(error, "problem", None) or type(error).__name__
        raise BadInput(f"{path}{where} is no readable YAML ({why}); repair or remove it") from error


class _Loader(yaml.SafeLoader):
    """Refuses aliases, with which a few lines become gigabytes or hold themselves."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.constructor.ConstructorError(
                problem="aliases are not read", problem_mark=self.peek_event().start_mark
            )
        return super().compose_node(parent, index)


def _opencv_matrix(loader: yaml.SafeLoader, node: yaml.Node) -> dict:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(
            problem="an opencv-matrix without fields", problem_mark=node.start_mark
        )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _opencv_matrix)
