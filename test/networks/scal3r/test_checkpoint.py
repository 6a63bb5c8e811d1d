"""Checkpoints: round trips, and every way in which a file can be wrong."""

import hashlib
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_network import SMALL, random_images, random_network

from scal3r_ros.networks.checkpoint import CheckpointError, check_state
from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.checkpoint import EMBEDDED, load_network, save_checkpoint


def assert_same_weights(network, expected):
    found, wanted = network.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys()
    for key in wanted:
        assert torch.equal(found[key], wanted[key]), key


def test_shards_carry_their_architecture(network, tmp_path):
    paths = save_checkpoint(network.state_dict(), SMALL, tmp_path, "net", shard_bytes=100_000)
    assert len(paths) > 3
    assert all(path.stat().st_size < 250_000 for path in paths)
    for given in (tmp_path, paths[0], paths[-1]):
        loaded = load_network(given)
        assert loaded.network.architecture == SMALL
        assert_same_weights(loaded.network, network)
    images = random_images(1, 2)
    assert torch.equal(loaded.network(images)[0].depth, network(images)[0].depth)


def test_half_precision_shards_are_computed_in_float32(network, tmp_path):
    save_checkpoint(network.state_dict(), SMALL, tmp_path, "net", torch.float16)
    loaded = load_network(tmp_path / "net.safetensors").network
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in loaded.parameters())
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float())


def test_pickled_state_dict(network, tmp_path):
    path = tmp_path / "net.pt"
    torch.save(network.state_dict(), path)
    loaded = load_network(path, SMALL)
    assert_same_weights(loaded.network, network)
    assert loaded.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_network(path, SMALL, sha256=loaded.fingerprint.upper())


def test_checksum_is_demanded_when_given(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="expected 00000"):
        load_network(tmp_path / "net.pt", SMALL, sha256="0" * 64)


def test_fingerprint_covers_every_shard(network, tmp_path):
    paths = save_checkpoint(network.state_dict(), SMALL, tmp_path, "net", shard_bytes=100_000)
    before = load_network(tmp_path).fingerprint
    tensors = load_file(paths[1])
    key = next(iter(tensors))
    tensors[key] = tensors[key] + 1
    save_file(tensors, paths[1], {"architecture": SMALL.to_json()})
    assert load_network(tmp_path).fingerprint != before


def test_all_wrong_keys_are_in_one_error(network, tmp_path):
    state = network.state_dict()
    for key in [k for k in state if k.startswith("cam_decoder.")]:
        del state[key]
    state["spare.weight"] = torch.zeros(3)
    state["agg_regator.camera_token"] = torch.zeros(1, 2, 1, 5)
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(CheckpointError) as caught:
        load_network(tmp_path / "net.pt", SMALL)
    text = str(caught.value)
    assert "1 unexpected: spare.weight" in text
    assert "1 wrong shape: agg_regator.camera_token (1, 2, 1, 5), expected (1, 2, 1, 32)" in text
    missing = text.split(" missing: ")[1].split(";")[0]
    assert missing.endswith(", ...") and missing.count("cam_decoder.") == 10


def test_another_architecture_is_refused(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="missing"):
        load_network(tmp_path / "net.pt")  # the official size


def test_integers_are_no_weights(network):
    state = network.state_dict()
    key = "cam_decoder.embed_pose.weight"
    state[key] = state[key].long()
    with pytest.raises(CheckpointError, match="1 not floating point"):
        check_state(state, network.state_dict(), "net")


def test_embedded_checkpoint_is_the_listed_one_and_computes():
    loaded = load_network(EMBEDDED)
    assert loaded.fingerprint in (EMBEDDED / "SHA256SUMS").read_text()
    patch = loaded.network.architecture.patch_size
    images = torch.randint(0, 256, (1, 3, 3, 3 * patch, 4 * patch), dtype=torch.uint8)
    (prediction,) = loaded.network(images)
    assert torch.isfinite(prediction.camera).all()
    assert (prediction.depth > 0).all() and torch.isfinite(prediction.depth).all()


class Mine:
    """Creates a file when unpickled by an unrestricted reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_nothing_in_a_checkpoint_is_executed(network, tmp_path):
    marker, path = tmp_path / "executed", tmp_path / "net.pt"
    torch.save({**network.state_dict(), "extra": Mine(str(marker))}, path)
    with pytest.raises(CheckpointError, match="never loaded"):
        load_network(path, SMALL)
    path.write_bytes(pickle.dumps(Mine(str(marker))))
    with pytest.raises(CheckpointError, match="never loaded"):
        load_network(path, SMALL)
    assert not marker.exists()
    with path.open("rb") as stream:
        pickle.load(stream).close()
    assert marker.exists(), "the trap itself must work"


def test_a_small_file_declares_no_large_tensors(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"weight": torch.zeros(1).expand(10**9)}, path)
    with pytest.raises(CheckpointError, match="declares tensors of 4000000000 bytes, but has"):
        load_network(path, SMALL)


@pytest.mark.parametrize("seed", range(12))
def test_a_spoilt_pickle_is_one_sentence(tmp_path, seed):
    random, path = np.random.default_rng(seed), tmp_path / "net.pt"
    torch.save({"weight": torch.zeros(3, 4)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    spoilt = next(data for name, data in members.items() if name.endswith("data.pkl"))
    for place in random.integers(2, len(spoilt), 3):
        spoilt[place] = random.integers(256)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, bytes(data))
    with pytest.raises(CheckpointError) as caught:
        load_network(path, SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_truncated_files(network, tmp_path, name, keep):
    path = tmp_path / name
    if name.endswith(".pt"):
        torch.save(network.state_dict(), path)
    else:
        save_checkpoint(network.state_dict(), SMALL, tmp_path, "net")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match="damaged"):
        load_network(path, SMALL)


def test_wrapped_and_foreign_contents(network, tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"model": network.state_dict()}, path)
    with pytest.raises(CheckpointError, match=r"no tensors: \['model'\]"):
        load_network(path, SMALL)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="found list"):
        load_network(path, SMALL)


def test_absent_files_and_shards(network, tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_network(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="expected one checkpoint"):
        load_network(tmp_path)
    (tmp_path / "net.onnx").touch()
    with pytest.raises(CheckpointError, match=r"expected a \.pt or \.safetensors"):
        load_network(tmp_path / "net.onnx")
    paths = save_checkpoint(network.state_dict(), SMALL, tmp_path, "net", shard_bytes=100_000)
    paths[1].unlink()
    with pytest.raises(CheckpointError, match=f"shards are missing.*{paths[1].name}"):
        load_network(tmp_path)


def test_unusable_stored_architecture(network, tmp_path):
    path = tmp_path / "net.safetensors"
    for text in ("{", '{"wings": 2}', '{"num_heads": 5}', "[1]"):
        save_file(dict(network.state_dict()), path, {"architecture": text})
        with pytest.raises(CheckpointError, match="architecture cannot be used"):
            load_network(path)


def test_given_architecture_wins_over_the_stored_one(network, tmp_path):
    save_checkpoint(network.state_dict(), SMALL, tmp_path, "net")
    other = replace(SMALL, camera_iterations=2, image_size=112)
    assert load_network(tmp_path, other).network.architecture == other


def test_published_size_is_assumed_when_nothing_is_stored(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: .*1 unexpected: a"):
        load_network(tmp_path / "net.safetensors")
    with torch.device("meta"):
        count = len(random_network(Architecture()).state_dict())
    with pytest.raises(CheckpointError, match=f"{count} missing"):
        load_network(tmp_path / "net.safetensors")


def test_weights_of_another_network_are_refused_by_name(network, tmp_path):
    path = tmp_path / "net.safetensors"
    metadata = {"network": "loger", "architecture": SMALL.to_json()}
    save_file(dict(network.state_dict()), path, metadata)
    with pytest.raises(CheckpointError, match="holds weights of loger, expected those of scal3r"):
        load_network(path)
