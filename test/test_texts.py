"""YAML of strangers is read in bounded time and memory, or refused in one sentence."""

import os

import pytest

from scal3r_ros.config import ChunkConfig, load
from scal3r_ros.texts import BadText, parse_yaml, read_yaml

BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join(10 * [f'*a{n - 1}'])}]\n" for n in range(1, 12)
)
HOSTILE = {
    "a: &a [*a]": "line 1.*holds itself",
    "&a chunk: &b {size: *b}": "holds itself",
    BOMB: "aliases written out",
    "a: " + 40_000 * "1:" + "1": "more than 65536 characters",
    "a: " + "[" * 100_000: "more than 100 levels",
    "\n".join(" " * n + "a:" for n in range(700)): "more levels than can be",
    "a: !!python/object/apply:os.system ['true']": "could not determine a constructor",
    "a: \x00": "no readable YAML",
    "a: 1\n---\na: 2\n": "holds 2 documents",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("text", "why"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_hostile_yaml_is_one_sentence(tmp_path, text, why):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(BadText, match=f"(?s)options.yaml.*{why}") as caught:
        read_yaml(path)
    assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match="options: "):
        load(path)


def test_an_echoed_message_ends_with_a_line():
    assert parse_yaml("%YAML 1.1\n---\na: 1\n---\n", "b") == {"a": 1}
    assert parse_yaml("", "b") is None


def test_aliases_that_hold_little_are_read(tmp_path):
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}", "b")["b"]["x"] == 1
    path = tmp_path / "options.yaml"
    path.write_text("chunk:\n  size: &size 12\n  overlap: 4\nloop: {window: *size}\n")
    assert load(path).chunk == ChunkConfig(12, 4)


@pytest.mark.timeout(20)
def test_a_pipe_is_no_file_of_options(tmp_path):
    os.mkfifo(tmp_path / "options.yaml")
    with pytest.raises(ValueError, match="no regular file"):
        load(tmp_path / "options.yaml")
