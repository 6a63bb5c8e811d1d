"""Configuration: every option is described, checked and tested; both file forms are read alike."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scal3r_ros.config import ChunkConfig, Config, load
from scal3r_ros.options import Section, from_dict, to_dict, walk_options

TESTS = Path(__file__).parent


def test_every_option_is_described_and_its_default_is_in_range():
    for item in walk_options(Config):
        assert item.text.endswith("."), item.name
        assert item.minimum is None or item.default >= item.minimum, item.name
        assert not item.choices or item.default in item.choices, item.name


def test_dictionary_round_trip():
    config = from_dict(Config, {"chunk": {"size": 20, "overlap": 5}, "map.voxel_size": 1})
    assert config.chunk == ChunkConfig(20, 5)
    assert from_dict(Config, to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"distributed": {"policy": "async", "backend": "nccl"}},
            "set distributed.backend to auto or gloo",
        ),
        ({"chunk.sise": 2}, "did you mean chunk.size"),
        ({"chunck": {"size": 3}}, "chunck"),
        ({"chunk": 3}, "section"),
        ({"chunk": {"size": 3.5}}, "must be int"),
        ({"chunk": {"size": True}}, "must be int"),
        ({"chunk": {"size": 20, "overlap": 30}}, "must be smaller than chunk.size"),
        ({"map.alignment": "sideways"}, "first_camera"),
        ({"memory.decay": 1.5}, "^memory.decay must be at most 1.0"),
        ({"gate": {"max_gap": -1.0}}, r"^gate.max_gap \[s\] must be at least 0.0"),
        ({"memory.decay": float("nan")}, "at least"),
    ],
)
def test_wrong_values_are_refused_with_a_hint(values, words):
    with pytest.raises(ValueError, match=words):
        from_dict(Config, values)


def test_plain_and_ros_parameter_files_agree(tmp_path):
    plain, ros = tmp_path / "plain.yaml", tmp_path / "ros.yaml"
    plain.write_text("chunk: {size: 12, overlap: 4}\n")
    ros.write_text("/**:\n  ros__parameters:\n    chunk: {size: 12, overlap: 4}\n")
    assert load(plain) == load(ros) == Config(chunk=ChunkConfig(12, 4))


def test_a_file_that_is_not_a_mapping_is_refused(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="expected a mapping"):
        load(path)


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
            text = node.value.replace("\\.", ".")  # as in a pattern
            self.texts |= {text, *re.findall(r"\w+\.[\w.]*\w", text)}

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
    """One that none sets is not known to do anything.

    By its dotted name, as a keyword of its section's class, or in `replace` of a section, where its
    name belongs to one section only.
    """
    pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
    from scal3r_ros.nodes.base.node_config import NodeConfig
    from scal3r_ros.nodes.context_sync_node import ContextSyncConfig
    from scal3r_ros.nodes.reconstruction_node import ReconstructionConfig

    configs = (NodeConfig, ContextSyncConfig, ReconstructionConfig)
    owners = {name: owner for config in configs for name, owner in options(config())}
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
