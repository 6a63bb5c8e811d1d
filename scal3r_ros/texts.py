"""Text and YAML of strangers: any usual encoding, bounded size, nothing that grows or waits."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import yaml

from scal3r_ros.files import BadArchive, open_regular

LARGEST = 64 * 2**20
"""Bytes of the largest index or trajectory."""
LARGEST_YAML = 2**20
_LARGEST_VALUE = 2**16
"""Characters of one value: YAML's numbers to the base 60 take time with the square of them."""
_DEEPEST = 100
"""Lists inside lists; the scanner takes time with the square of them."""
_MOST_VALUES = 200_000
"""Values of a file with every alias written out: a few lines of aliases can mean billions."""


class BadText(ValueError):
    """A file cannot be read as text or YAML; the message names it and says why."""


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Text in UTF-8, or in UTF-16 with a byte order mark; raises `BadText`."""
    try:
        with open_regular(path) as file:
            data = file.read(largest + 1)
    except BadArchive as error:
        raise BadText(str(error)) from error
    except OSError as error:
        raise BadText(f"cannot read {path}: {error.strerror}") from error
    if len(data) > largest:
        raise BadText(f"{path} has more than {largest} bytes; it is no file of this kind")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadText(f"{path} is no text in UTF-8 ({error.reason}); save it as such") from error


def read_yaml(path: Path) -> Any:
    """Content of a YAML file, also of OpenCV's `FileStorage`; raises `BadText`."""
    return parse_yaml(read_text(path, LARGEST_YAML), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """Plain values of a YAML text, None if it is empty; raises `BadText`, which starts with
    `name`."""
    if text.startswith("%YAML:"):  # OpenCV writes what YAML forbids: a colon, not a space
        text = text.partition("\n")[2]
    try:
        found = [value for value in yaml.load_all(text, _Loader) if value is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" line {line + 1}"
        why = getattr(error, "problem", None) or getattr(error, "reason", None)
        why = why or ("more levels than can be" if isinstance(error, RecursionError) else error)
        raise BadText(f"{name}{where} is no readable YAML ({why}); repair or remove it") from error
    if len(found) > 1:
        raise BadText(f"{name} holds {len(found)} documents, with --- between them; keep one")
    return found[0] if found else None


class _Loader(yaml.SafeLoader):
    """Refuses depth without measure, and aliases that hold themselves or grow."""

    def fetch_flow_collection_start(self, token: type) -> None:
        if self.flow_level >= _DEEPEST:
            raise _refused_at(self.get_mark(), f"more than {_DEEPEST} levels")
        super().fetch_flow_collection_start(token)

    def compose_document(self) -> Any:
        node = super().compose_document()
        _count(node, set(), {})
        return node


def _count(node: Any, around: set[int], known: dict[int, int]) -> int:
    """Values of a node with its aliases written out; raises `YAMLError`."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in around:
        raise _refused(node, "an alias that holds itself")
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > _LARGEST_VALUE:
            raise _refused(node, f"a value of more than {_LARGEST_VALUE} characters")
        return 1
    pairs = isinstance(node, yaml.MappingNode)
    children = [part for pair in node.value for part in pair] if pairs else node.value
    total = 1
    for child in children:
        total += _count(child, around | {id(node)}, known)
        if total > _MOST_VALUES:
            raise _refused(node, f"more than {_MOST_VALUES} values with its aliases written out")
    known[id(node)] = total
    return total


def _refused(node: Any, why: str) -> yaml.YAMLError:
    return _refused_at(node.start_mark, why)


def _refused_at(mark: Any, why: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(problem=why, problem_mark=mark)


def _opencv_matrix(loader: yaml.SafeLoader, node: yaml.Node) -> dict:
    if not isinstance(node, yaml.MappingNode):
        raise _refused(node, "an opencv-matrix without fields")
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _opencv_matrix)
