"""What `auto` stands for, with and without weights and libraries."""

import importlib.util

import pytest

from scal3r_ros.config import Config, MemoryConfig, ModelConfig
from scal3r_ros.reconstruct.choice import choose, network_model, resolved
from scal3r_ros.reconstruct.factory import EMBEDDED_PRESET, PRESETS, preset_for


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
    """A machine on which nothing has been downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def test_without_weights_it_is_structure_from_motion():
    pytest.importorskip("pycolmap")
    choice = choose(Config())
    assert choice.reconstructor == "sfm" and "no weights" in choice.reason
    assert resolved(Config()).model.reconstructor == "sfm"
    assert preset_for(Config()) == PRESETS["sfm"]


def test_weights_that_are_named_or_downloaded_come_first(tmp_path):
    named = choose(Config(model=ModelConfig(checkpoint="mine.pt")))
    assert (named.reconstructor, named.checkpoint) == ("scal3r", "mine.pt")
    fetched = tmp_path / "scal3r_ros" / "scal3r.pt"
    fetched.parent.mkdir()
    fetched.touch()
    found = choose(Config())
    assert (found.reconstructor, found.checkpoint) == ("scal3r", str(fetched))
    assert preset_for(Config()) == PRESETS["scal3r"]
    assert network_model(ModelConfig()).checkpoint == str(fetched)


def test_what_needs_a_network_gets_the_embedded_one(monkeypatch):
    finalize = Config(memory=MemoryConfig(mode="finalize"))
    assert choose(finalize).reconstructor == "scal3r"
    assert "memory.mode finalize needs a network" in choose(finalize).reason
    assert preset_for(finalize) == EMBEDDED_PRESET
    assert network_model(ModelConfig()).reconstructor == "scal3r"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose(Config()).reconstructor == "scal3r"


def test_without_pycolmap_it_is_the_embedded_network_and_told(monkeypatch):
    found = importlib.util.find_spec
    absent = lambda name, *rest: None if name == "pycolmap" else found(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    choice = choose(Config())
    assert (choice.reconstructor, choice.checkpoint) == ("scal3r", "")
    assert "pycolmap is not installed" in choice.reason


@pytest.mark.parametrize("name", ["scal3r", "loger", "sfm"])
def test_a_name_is_taken_by_its_word(name):
    config = Config(model=ModelConfig(reconstructor=name, checkpoint="w.pt"))
    assert resolved(config) == config
