"""Every option is set by some test: one that none sets is not known to do anything."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.context_sync_node import ContextSyncConfig
from scal3r_ros.nodes.reconstruction_node import ReconstructionConfig
from scal3r_ros.options import Section

pytestmark = pytest.mark.ros
TESTS = Path(__file__).parent
CONFIGS = (NodeConfig, ContextSyncConfig, ReconstructionConfig)


def options(section: Section, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Dotted names with the class that has the field."""
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if isinstance(value, Section):
            yield from options(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, type(section)


class Settings(ast.NodeVisitor):
    """What tests could set: texts and the dotted words in them, keywords of calls, paths of
    nested dictionaries."""

    def __init__(self) -> None:
        self.texts: set[str] = set()
        self.keywords: set[tuple[str, str]] = set()
        for path in TESTS.rglob("*.py"):
            if path != Path(__file__):
                self.visit(ast.parse(path.read_text()))

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.texts.add(node.value)
            self.texts |= set(re.findall(r"\w+\.[\w.]*\w", node.value))

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        for keyword in node.keywords:
            self.keywords.add((called, keyword.arg or ""))
            self.texts.add((keyword.arg or "").replace("__", "."))
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        self.texts |= set(nested_names(node))
        self.generic_visit(node)


def nested_names(node: ast.Dict) -> Iterator[str]:
    """`a.b` of {"a": {"b": ...}}."""
    for key, value in zip(node.keys, node.values):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value
            if isinstance(value, ast.Dict):
                yield from (f"{key.value}.{name}" for name in nested_names(value))


def test_every_option_is_set_by_some_test():
    """By its dotted name, as a keyword of its section's class, or in `replace` of a section, where
    its name belongs to one section only."""
    owners = {name: owner for config in CONFIGS for name, owner in options(config())}
    sections: dict[str, set[type]] = {}
    for name, owner in owners.items():
        sections.setdefault(name.rpartition(".")[2], set()).add(owner)
    found = Settings()

    def is_set(name: str, owner: type) -> bool:
        field = name.rpartition(".")[2]
        makers = {parent.__name__ for parent in owner.__mro__}
        makers |= {"replace"} if len(sections[field]) == 1 else set()
        return name in found.texts or any((maker, field) in found.keywords for maker in makers)

    unset = [name for name, owner in owners.items() if not is_set(name, owner)]
    assert not unset, f"no test sets {', '.join(unset)}; assert what they do, or delete them"
