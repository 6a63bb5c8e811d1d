"""Checkpoints of the CUT3R family: nothing foreign runs, keys are strict, the licence is told."""

import argparse
import os

import pytest
import torch
from mem3r_fixtures import architecture, cut3r, weights

from scal3r_ros.networks.checkpoint import CheckpointError, Contents, write_contents
from scal3r_ros.networks.mem3r import checkpoint
from scal3r_ros.networks.mem3r.foreign_pickle import read_foreign


class Trap:
    """An object that would leave a file behind if it were built."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_tensors_are_read_beside_foreign_objects(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "cut3r.pth"
    state = {f"module.{key}": value for key, value in weights().items()}
    settings = argparse.Namespace(model="Net(size=1)", trap=Trap(marker), nested=[Trap(marker)])
    torch.save({"args": settings, "model": state, "epoch": 3}, path)
    found = read_foreign(path, "model")
    assert not marker.exists()
    assert found.keys() == weights().keys()
    assert all(torch.equal(value, weights()[key]) for key, value in found.items())


def test_a_trap_among_the_tensors_does_not_run(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "bad.pth"
    torch.save({"model": {"a": Trap(marker)}}, path)
    with pytest.raises(CheckpointError, match="no tensors"):
        read_foreign(path, "model")
    assert not marker.exists()


@pytest.mark.parametrize("content", [{"weights": {}}, [1, 2]])
def test_another_layout_is_refused(tmp_path, content):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="under the key 'model'"):
        read_foreign(path, "model")


def test_no_archive_is_refused(tmp_path):
    path = tmp_path / "text.pth"
    path.write_text("weights")
    with pytest.raises(CheckpointError, match="zip archive"):
        read_foreign(path, "model")


def test_safetensors_say_their_architecture(tmp_path):
    contents = Contents(weights(), checkpoint.NAME, architecture().to_json())
    (path,) = write_contents(contents, tmp_path, "small")
    network = checkpoint.load_network(path)
    assert network.architecture == architecture()
    mine, theirs = network.state_dict(), cut3r().state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert not checkpoint.load_network(path, encoder_half_rope=False).architecture.encoder_half_rope


def test_keys_are_strict_and_the_licence_is_told(tmp_path, caplog):
    """A file of the reduced size is not the public one, and says what does not fit."""
    path = tmp_path / "cut3r.pth"
    torch.save({"model": weights()}, path)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        checkpoint.load_network(path)
    assert "no commercial use" in caplog.text


def test_an_absent_file_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        checkpoint.load_network(tmp_path / "none.pth")
